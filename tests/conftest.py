"""Makes tests/problems.py importable from every test folder."""

import torch

torch.set_num_threads(1)  # small matrices: more threads only cost time, and results must not depend on them

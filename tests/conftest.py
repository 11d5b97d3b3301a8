"""For all tests; also makes the helper modules of this folder importable from the others."""

import signal
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)  # small matrices: more threads only cost time, and results must not depend on them


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """A shell that starts the tests in the background has told them to ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""The base noise: a function of (kind, seed, repeat, image index), the same for every network and level."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["normal", "uniform"]

BLOCK = 50
"""Images that share one generator: long enough to draw fast, short enough to start anywhere."""


def base_noise(kind: Kind, seed: int, repeat: int, start: int, stop: int, shape: tuple[int, ...]) -> Tensor:
    """(stop - start, *shape) float32 on the CPU: N(0, 1) or U[-1/2, 1/2) for the images start, …, stop - 1.

    Image i always gets the same numbers, whichever range it is asked for in. No global generator is involved.
    """
    first, last = start // BLOCK, -(-stop // BLOCK)
    noise = torch.empty((last - first) * BLOCK, *shape)
    generator = torch.Generator()
    for block, rows in enumerate(torch.split(noise, BLOCK), start=first):
        words = [seed, repeat, int(kind == "uniform"), block]
        generator.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        # Always a whole block: torch draws the tail of a shorter tensor differently.
        if kind == "normal":
            rows.normal_(generator=generator)
        else:
            rows.uniform_(-0.5, 0.5, generator=generator)
    return noise[start - first * BLOCK : stop - first * BLOCK]

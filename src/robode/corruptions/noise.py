"""The base noise: a function of (kind, seed, repeat, image index), the same for every network and level."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["normal", "uniform"]

BLOCK = 50
"""Images that share one generator: long enough to draw fast, short enough to start anywhere."""

DRAWS = 2
"""Third word of the draws of a suite's perturbations, after the two kinds of base noise."""


def base_noise(kind: Kind, seed: int, repeat: int, start: int, stop: int, shape: tuple[int, ...]) -> Tensor:
    """(stop - start, *shape) float32 on the CPU: N(0, 1) or U[-1/2, 1/2) for the images start, …, stop - 1.

    Image i always gets the same numbers, whichever range it is asked for in. No global generator is involved.
    """
    first, last = start // BLOCK, -(-stop // BLOCK)
    noise = torch.empty((last - first) * BLOCK, *shape, dtype=torch.float32)
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


def streamed(values: Tensor, device: torch.device) -> Tensor:
    """Host tensor -> the same on `device`; to a GPU without waiting for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class Draws:
    """Random numbers that belong to images: image i draws the same ones whichever batch it is in.

    words: of the seed (the first ones tell one use from another); part: the images. What is drawn comes on `device`,
    one row for each of the images that `of` has left.
    """

    def __init__(self, words: Sequence[int], part: range, device: torch.device | str = "cpu"):
        self.part, self.device = part, torch.device(device)
        self.rows: Tensor | None = None
        first, last = part.start // BLOCK, -(-part.stop // BLOCK)
        self._offset, self._blocks = part.start - first * BLOCK, [torch.Generator() for _ in range(first, last)]
        for block, generator in enumerate(self._blocks, start=first):
            state = np.random.SeedSequence([*words, block]).generate_state(1, np.uint64)[0]
            generator.manual_seed(int(state))

    def of(self, rows: Tensor) -> Draws:
        """The same stream for some of the images. rows: (k,) int64 or bool, counted as here."""
        some = copy.copy(self)
        mine = torch.arange(len(self.part)) if self.rows is None else self.rows
        some.rows = mine[rows.cpu()]
        return some

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32, N(0, 1)."""
        return self._chosen([torch.randn(BLOCK, *shape, generator=each, dtype=torch.float32) for each in self._blocks])

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) float32 in [0, 1)."""
        return self._chosen([torch.rand(BLOCK, *shape, generator=each, dtype=torch.float32) for each in self._blocks])

    def _chosen(self, blocks: list[Tensor]) -> Tensor:
        every = torch.cat(blocks)[self._offset : self._offset + len(self.part)]
        return streamed(every if self.rows is None else every[self.rows], self.device)

"""Noise: the base noise of every image, random numbers that belong to images, and perturbations made of noise alone.

The base noise is a function of (kind, seed, repeat, image index), the same for every network and level.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robode.config.levels import UPPER, noise_levels
from robode.corruptions.perturbation import Batch, Bounds, Corruption, clip

Kind = Literal["normal", "uniform"]

BLOCK = 50
"""Images that share one generator: long enough to draw fast, short enough to start anywhere."""

FAR = 1e12
"""Times the smallest difference of two float32 in [-1/2, 1/2), still far outside any bounds."""

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


class PerSampleRNG:
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

    def of(self, rows: Tensor) -> PerSampleRNG:
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


class Clean(Corruption):
    """The data as they are."""

    name = "clean"
    severity_unit = "none"
    corrupts = False

    def __init__(self, suite: str = "clean") -> None:
        super().__init__(suite)

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        return batch.x


class ClipOnly(Corruption):
    """The clip of the protocol without anything else: of normalised images a strong corruption by itself."""

    name = "clip_only"
    severity_unit = "none"

    def __init__(self, suite: str = "noise") -> None:
        super().__init__(suite)

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        return clip(batch.x.clone(), batch.bounds)


class Gaussian(Corruption):
    """x + sqrt(var) z, z ~ N(0, 1) per entry, then the clip. var: one or more variances, in units of x²."""

    name = "gaussian"
    severity_unit = "variance"
    noise = "normal"

    def __init__(self, var: float | Sequence[float], suite: str = "noise") -> None:
        super().__init__(suite, noise_levels("suite.gaussian.var", var, UPPER["var"]))

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        assert batch.noise is not None
        return clip(torch.add(batch.x, batch.noise, alpha=severity**0.5), batch.bounds)


class SaltAndPepper(Corruption):
    """Each entry becomes, with probability amount/2 each, the upper bound (salt) or the lower one (pepper).

    amount: one or more shares in [0, 1]. What is hit at a small amount is also hit at a larger one.
    """

    name = "salt_and_pepper"
    severity_unit = "amount"
    noise = "uniform"
    optional = True

    def __init__(self, amount: float | Sequence[float], suite: str = "noise") -> None:
        super().__init__(suite, noise_levels("suite.salt_and_pepper.amount", amount, UPPER["amount"]))

    def refusal(self, bounds: Bounds | None) -> str | None:
        return "salt and pepper are the bounds of the data, and these data have none" if bounds is None else None

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        assert batch.noise is not None and batch.bounds is not None
        # Entries in the tails of U[-1/2, 1/2) are thrown far beyond the bounds, and the clip brings them
        # back onto them. Ten times faster than two masks, because torch compares slowly on a CPU.
        hit = nn.functional.hardshrink(batch.noise, 0.5 - severity / 2)
        return clip(torch.add(batch.x, hit, alpha=FAR), batch.bounds)

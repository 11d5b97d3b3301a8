"""A clean picture for each noisy one: a regression whose score is the peak signal-to-noise ratio, in dB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robode.tasks.measure import Better, t_interval
from robode.tasks.regression import Regression


@dataclass(frozen=True)
class Denoising(Regression):
    """A sample is a picture with noise, its target the picture without, as a vector: channels, then rows, then columns.

    A score is PSNR = -10 log10(||output - target||^2/d), d numbers a picture, whose values lie in [0, 1]. noise: the
    standard deviation of the samples' noise, in units of the values.
    """

    noise: float = 0.0

    name: ClassVar[str] = "denoising"
    score_name: ClassVar[str] = "PSNR"
    better: ClassVar[Better] = "higher"
    worst: ClassVar[float] = -math.inf
    unit: str = "dB"

    @property
    def compared(self) -> int:
        """1: pixels are no classes, and nobody asks for the difference of two."""
        return 1

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """The PSNR of each picture."""
        return psnr(output, target).float()

    def certified(
        self, output: Tensor, target: Tensor, pairs: Tensor, radius: float, room: Tensor | float = 0.0
    ) -> Tensor:
        """The PSNR at the distance `Regression.certified` from the target, rounded down to float32."""
        error = super().certified(output, target, pairs, radius, room).double()
        bound = _of_error(error, self.size)
        rounded = bound.float()
        return torch.where(rounded > bound, rounded.nextafter(torch.full_like(rounded, -math.inf)), rounded)

    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        """mean ± t s/√n; (−∞, ∞) for one picture, and where a score is not finite."""
        return t_interval(scores)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """-10 log10 of the mean of (output - target)^2, for values in [0, 1]: (B, ...) twice -> (B,) float64; inf where
    they are equal, -inf where something is not finite."""
    difference = (output.double() - target.double()).flatten(1)
    return _of_error(difference.norm(dim=1).nan_to_num(math.inf, math.inf), difference.shape[1])


def _of_error(error: Tensor, size: int) -> Tensor:
    """error: (B,) float64, 2-norms of `size` numbers."""
    return -20 * (error / math.sqrt(size)).log10()

"""Numbers a sample, for example the state after some time: the score is the distance from the target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.tasks.measure import Better, t_interval
from robode.tasks.task import AttackLoss, Task


@dataclass(frozen=True)
class Regression(Task):
    """A score is the 2-norm of output - target. size: how many numbers a target has; unit: of each of them."""

    size: int
    unit: str = "data units"

    name: ClassVar[str] = "regression"
    score_name: ClassVar[str] = "error"
    better: ClassVar[Better] = "lower"
    worst: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        if not self.unit:
            raise BadInput("Regression: expected a unit of the targets, for example 'data units'")

    @property
    def outputs(self) -> int:
        """One for each number of a target."""
        return self.size

    def check(self, target: Tensor, name: str) -> None:
        """target: (n, size) float32, finite. Raises `BadInput`."""
        if target.dtype != torch.float32 or target.dim() != 2 or target.shape[1] != self.size:
            found = f"{tuple(target.shape)} {target.dtype}"
            shaped = target.dim() == 2 and target.shape[1] == self.size
            hint = (
                "; write target.float()"
                if shaped
                else "; write target[:, None]"
                if target.dim() == self.size == 1
                else ""
            )
            raise BadInput(f"{name}: expected targets (n, {self.size}) float32, got {found}{hint}")
        finite = target.isfinite().all(1)
        if not bool(finite.all()):
            raise BadInput(f"{name}: a target is not finite: that of sample {int((~finite).nonzero()[0])}")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, the mean over samples and numbers."""
        return nn.functional.mse_loss(output, target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """The error of each sample."""
        return _bounded(_error(output, target)).float()

    def failed(self, output: Tensor, target: Tensor) -> Tensor:
        """Never: an error can always be larger."""
        return torch.zeros(len(output), dtype=torch.bool, device=output.device)

    @property
    def attack_losses(self) -> Mapping[str, AttackLoss]:
        """The error itself."""
        return MappingProxyType({"error": _error})

    def certified(
        self, output: Tensor, target: Tensor, pairs: Tensor, radius: float, room: Tensor | float = 0.0
    ) -> Tensor:
        """error + L radius + room, rounded up to float32; L = pairs[0, 0], of the whole output."""
        grown = pairs[0, 0] * radius if radius else 0.0  # inf * 0 is no number
        bound = _bounded(_error(output, target) + grown + room)
        rounded = bound.float()
        return torch.where(rounded < bound, rounded.nextafter(torch.full_like(rounded, math.inf)), rounded)

    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        """mean ± t s/√n, not below 0; [0, ∞] for one sample, and where an error is not finite."""
        low, high = t_interval(scores)
        return max(0.0, low), high


def _error(output: Tensor, target: Tensor) -> Tensor:
    return torch.linalg.vector_norm(output - target, dim=1)


def _bounded(error: Tensor) -> Tensor:
    """What is no number is infinitely wrong."""
    return error.nan_to_num(math.inf, math.inf)

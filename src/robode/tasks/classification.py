"""One of several classes a sample: the target is its number, the output one logit a class."""

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
from robode.tasks.intervals import wilson
from robode.tasks.losses import cross_entropy, dlr, fallen, margin
from robode.tasks.measure import CLASSIFICATION, Better
from robode.tasks.task import AttackLoss, Task


@dataclass(frozen=True)
class Classification(Task):
    """A score is 1 where the largest logit is that of the class and all are finite, else 0: accuracies are shares.

    class_names: in the order of the labels.
    """

    class_names: tuple[str, ...]

    name: ClassVar[str] = CLASSIFICATION.task
    score_name: ClassVar[str] = CLASSIFICATION.score_name
    better: ClassVar[Better] = CLASSIFICATION.better
    worst: ClassVar[float] = 0.0

    @property
    def outputs(self) -> int:
        """As many as classes."""
        return len(self.class_names)

    def check(self, target: Tensor, name: str) -> None:
        """target: (n,) int64, each in 0 … classes - 1. Raises `BadInput`."""
        if target.dtype != torch.int64 or target.dim() != 1:
            given = f"{tuple(target.shape)} {target.dtype}"
            raise BadInput(f"{name}: expected labels (n,) int64, got {given}{self._instead(target)}")
        outside = (target < 0) | (target >= self.outputs)
        if bool(outside.any()):
            index = int(outside.nonzero()[0])
            from_one = target.min() == 1 and target.max() == self.outputs
            raise BadInput(
                f"{name}: a label is outside 0 to {self.outputs - 1}: that of sample {index} is {int(target[index])}"
                f"{'; labels begin with 0: write target - 1' if from_one else ''}"
            )

    def _instead(self, target: Tensor) -> str:
        """What to write where it is plain how targets of another form are meant."""
        if target.dim() == 2 and target.shape[1] in (1, self.outputs):
            return "; write target.argmax(1)" if target.shape[1] > 1 else "; write target.squeeze(1).long()"
        return "; write target.long()" if target.dim() == 1 else ""

    def strata(self, target: Tensor) -> Tensor:
        """The classes."""
        return target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(output, target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """1 for right answers."""
        return (~fallen(output, target)).float()

    def failed(self, output: Tensor, target: Tensor) -> Tensor:
        """Wrong answers."""
        return fallen(output, target)

    @property
    def attack_losses(self) -> Mapping[str, AttackLoss]:
        """Cross-entropy, margin and difference of logits ratio."""
        return MappingProxyType({"ce": cross_entropy, "margin": margin, "dlr": dlr})

    def certified(self, output: Tensor, target: Tensor, pairs: Tensor, radius: float) -> Tensor:
        """1 where the answer is right and (z_y - z_j) / pairs[y, j] >= radius for every other class j.

        Where two rows of the last layer are equal (a pair 0), no x' changes their margin: +-inf.
        """
        margins = output.gather(1, target[:, None]) - output
        radii = torch.where(margins.isfinite(), margins / pairs[target], 0.0).nan_to_num(0.0, math.inf, -math.inf)
        proven = radii.scatter(1, target[:, None], math.inf).amin(1) >= radius
        return (proven & ~fallen(output, target)).float()

    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        """Wilson's at n = the number of samples. scores: 0 or 1 each, or means over copies of the same samples."""
        return wilson(float(scores.sum(dtype=np.float64)), len(scores))

"""One of several classes a sample: the target is its number, the output one logit a class.

The functions are what an attack on a classifier climbs: one number for each sample, larger is worse for the network.
Sources: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020 (DLR); Carlini and Wagner 2017 (margin).
"""

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
from robode.tasks.measure import CLASSIFICATION, Better, wilson
from robode.tasks.task import AttackLoss, Task

TINY = 1e-12
"""Keeps the quotient of DLR finite where the logits are all equal."""


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
        return (~misclassified(output, target)).float()

    def failed(self, output: Tensor, target: Tensor) -> Tensor:
        """Wrong answers."""
        return misclassified(output, target)

    @property
    def attack_losses(self) -> Mapping[str, AttackLoss]:
        """Cross-entropy, margin and difference of logits ratio."""
        return MappingProxyType({"ce": cross_entropy, "margin": margin, "dlr": dlr})

    def certified(
        self, output: Tensor, target: Tensor, pairs: Tensor, radius: float, room: Tensor | float = 0.0
    ) -> Tensor:
        """1 where the answer is right and (z_y - z_j) / pairs[y, j] >= radius for every other class j. room: plays no
        part, radii have theirs.

        Where two rows of the last layer are equal (a pair 0), no x' changes their margin: +-inf.
        """
        margins = output.gather(1, target[:, None]) - output
        radii = torch.where(margins.isfinite(), margins / pairs[target], 0.0).nan_to_num(0.0, math.inf, -math.inf)
        proven = radii.scatter(1, target[:, None], math.inf).amin(1) >= radius
        return (proven & ~misclassified(output, target)).float()

    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        """Wilson's at n = the number of samples. scores: 0 or 1 each, or means over copies of the same samples."""
        return wilson(float(scores.sum(dtype=np.float64)), len(scores))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)_y: (B,). Vanishes, with its gradient, where the network is sure of itself."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y: (B,), positive exactly for wrong answers."""
    return _best_other(logits, labels) - _own(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, (max_{j != y} z_j - z_y) / (z_(1) - z_(3)): (B,), blind to shift and scale.

    z_(k): the k-th largest logit. Raises BadInput for fewer than 3 classes.
    """
    _need(logits, 3, "dlr")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2): (B,). Raises BadInput for fewer than 4 classes."""
    _need(logits, 4, "targeted dlr")
    top = logits.topk(4, dim=1).values
    return margin_targeted(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y: (B,). For data with too few classes for `dlr_targeted`."""
    return _own(logits, targets) - _own(logits, labels)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the answer is wrong, (B,) bool; logits that are not finite are wrong answers."""
    return (logits.argmax(dim=1) != labels) | ~logits.isfinite().all(dim=1)


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


def _best_other(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)


def _need(logits: Tensor, classes: int, name: str) -> None:
    if logits.shape[1] < classes:
        raise BadInput(f"loss: {name} needs at least {classes} classes, got {logits.shape[1]}; use margin")

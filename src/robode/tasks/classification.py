"""Classification: the target is a class, the score of a sample 1 for the right answer and 0 for any other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from robode.errors import BadInput
from robode.tasks.task import AttackLoss, Task


class Classification(Task):
    """One of several classes; outputs are logits, answers that are not finite are wrong."""

    name, score_name, better, worst = "classification", "accuracy", "higher", 0.0

    def __init__(self, class_names: tuple[str, ...]):
        self.class_names = class_names

    @property
    def outputs(self) -> int:
        return len(self.class_names)

    def check(self, target: Tensor, name: str) -> None:
        if target.ndim != 1 or target.dtype != torch.int64:
            raise BadInput(f"data={name}: expected one int64 class for each sample, got {tuple(target.shape)}")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        return (~self.failed(output, target)).float()

    def failed(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(dim=1) != target) | ~output.isfinite().all(dim=1)

    @property
    def attack_losses(self) -> Mapping[str, AttackLoss]:
        from robode.robustness.attacks.losses import LOSSES  # which imports this package

        return LOSSES

    def certified(self, output: Tensor, target: Tensor, pairs: Tensor, radius: float) -> Tensor:
        margins = output.gather(1, target[:, None]) - output
        safe = (margins >= radius * pairs.to(output)[target]).scatter(1, target[:, None], True)
        return (safe.all(dim=1) & ~self.failed(output, target)).float()

    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        from robode.report.records import wilson

        n = len(scores)
        return wilson(round(float(scores.sum())), n) if n else (math.nan, math.nan)

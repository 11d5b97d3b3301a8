"""A task says what a target is, what an output is worth for it, and which direction is better.

Nothing else in robode knows of classes: the network has `outputs` numbers to give, evaluation keeps one score a sample,
and checkpoints, curves and intervals follow the task's direction and unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robode.tasks.measure import Better, Measure

AttackLoss = Callable[[Tensor, Tensor], Tensor]
"""output (B, outputs), target (B, ...) -> (B,): what an attack climbs; larger is worse for the network."""


class Task(ABC):
    """What all tasks answer. Outputs are (B, outputs), targets (B,) or (B, *shape); scores are (B,) float32.

    name: of the task; score_name: what its score is called on pages and in the training log ("accuracy").
    better: whether a higher or a lower score is better. unit: of the score, "" for shares of samples.
    worst: the score of an output that is not finite.

    Scores without a unit are 0 or 1 each: a mean score is then the share of samples that are right.
    """

    name: ClassVar[str]
    score_name: ClassVar[str]
    better: ClassVar[Better]
    worst: ClassVar[float]
    unit: str = ""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the head gives for one sample."""

    @abstractmethod
    def check(self, target: Tensor, name: str) -> None:
        """Raises `BadInput` for targets (n, ...) that are none of this task. name: of the data set, for the message."""

    def strata(self, target: Tensor) -> Tensor:
        """Groups of samples whose shares a split keeps, (n,) int64; one, where nothing else is said."""
        return torch.zeros(len(target), dtype=torch.int64)

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss that is logged on validation data whatever the objectives are, a mean over samples: 0-d."""

    @abstractmethod
    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """One score a sample, (B,) float32; `worst` for outputs that are not finite."""

    @abstractmethod
    def failed(self, output: Tensor, target: Tensor) -> Tensor:
        """Where an attack has nothing left to do, (B,) bool."""

    @property
    @abstractmethod
    def attack_losses(self) -> Mapping[str, AttackLoss]:
        """What attacks may climb, by name; the first one is the default."""

    @property
    def compared(self) -> int:
        """How many of the outputs are compared with each other, the first ones; of others no pair is certified."""
        return self.outputs

    @abstractmethod
    def certified(
        self, output: Tensor, target: Tensor, pairs: Tensor, radius: float, room: Tensor | float = 0.0
    ) -> Tensor:
        """A bound of the score that no x' within `radius` is worse than, (B,) float32. pairs (compared, compared):
        certified Lipschitz constants; of output i - output j off the diagonal, of the whole output on it. room: (B,),
        how much further than that an output may be, by rounding."""

    @abstractmethod
    def interval(self, scores: np.ndarray) -> tuple[float, float]:
        """95 % interval of the mean score of all samples like these. scores: (n,)."""

    @property
    def measure(self) -> Measure:
        """What reports know of the task."""
        return Measure(self.name, self.score_name, self.better, self.unit)

    def worse(self, a: Tensor, b: Tensor) -> Tensor:
        """Elementwise the worse of two scores."""
        return a.minimum(b) if self.better == "higher" else a.maximum(b)

    def is_better(self, a: float, b: float) -> bool:
        """Whether the score a is strictly better than b."""
        return a > b if self.better == "higher" else a < b

"""A corruption and an attack."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from robode.attacks.attack import Attack
from robode.attacks.balls import beside
from robode.attacks.problem import Problem
from robode.corruptions.perturbation import Batch, Corruption, clip


class Dim(Corruption):
    """Every entry is drawn towards 0. share: one or more parts of it that are lost."""

    name = "dim"
    severity_unit = "share"

    def __init__(self, share: Sequence[float] = (0.1, 0.5), suite: str = "shapes"):
        super().__init__(suite, tuple(share))

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        return clip(batch.x * (1 - severity), batch.bounds)


class Coin(Attack):
    """A random corner of the ball, which is better than nothing."""

    def __init__(self, eps: Sequence[float] = (0.1, 0.3), suite: str = "shapes"):
        super().__init__("coin", eps, "linf", suite)

    def find(self, problem: Problem) -> Tensor:
        x = problem.x
        corner = problem.rng.uniform(*x.shape[1:]).to(x) < 0.5
        return clip(x + beside(problem.eps, x) * (2 * corner.to(x) - 1), problem.bounds)

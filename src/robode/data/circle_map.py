"""Maps of the circle to itself, one of the lecture's that folds and a rotation: angles, and where they are sent."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.tasks.regression import Regression


class CircleMap(Source):
    """x = (cos a, sin a) -> (cos phi(a), sin phi(a)). No classes.

    target: fold = phi(a) = a + 0.6 sin 2a - 0.15 cos 3a, of degree 1 and not injective, since phi' = 1 + 1.2 cos 2a +
    0.45 sin 3a reaches -0.65 at pi/2; rotation = phi(a) = a + 2. train: how many angles, evenly from 0 on. arc: the
    share of the circle that they cover. test: angles, evenly over the whole circle, between those of a training on as
    many. Raises `BadInput` for another target.
    """

    def __init__(self, train: int = 100, arc: float = 1.0, test: int = 1000, target: str = "fold") -> None:
        if target not in TARGETS:
            raise BadInput(f"data.source.target: expected one of {', '.join(TARGETS)}, got {target}")
        self.train, self.arc, self.test, self.phi = train, arc, test, TARGETS[target]

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Regression(2))

    def load(self) -> tuple[Samples, Samples]:
        angles = 2 * math.pi * self.arc * torch.arange(self.train, dtype=torch.float64) / self.train
        between = 2 * math.pi * (torch.arange(self.test, dtype=torch.float64) + 0.5) / self.test
        train, test = (Samples(on_circle(a).float(), on_circle(self.phi(a)).float()) for a in (angles, between))
        return train, test


def phi(a: Tensor) -> Tensor:
    """The angle that a is sent to, not reduced. Any shape."""
    return a + 0.6 * (2 * a).sin() - 0.15 * (3 * a).cos()


def rotation(a: Tensor) -> Tensor:
    """a + 2 rad. Any shape."""
    return a + 2


TARGETS: dict[str, Callable[[Tensor], Tensor]] = {"fold": phi, "rotation": rotation}


def on_circle(a: Tensor) -> Tensor:
    """(n,) angles -> (n, 2) points."""
    return torch.stack([a.cos(), a.sin()], dim=1)

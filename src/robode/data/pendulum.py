"""The flow map of the pendulum: where a state is after some time. No classes, no labels; vectors without bounds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.tasks.regression import Regression

SEED = 0
"""The states are part of the data set: they do not move with the user's seed."""
FINEST = 0.005
"""Longest step of the integration, whose error is then far below what float32 can tell apart."""

States = NDArray[np.float64]


class Pendulum(Source):
    """States (q, p) drawn uniformly from a box, and where q' = p, p' = -sin q has taken them after `time`.

    q: the angle in rad; time is in units of sqrt(length/gravity), so p is in rad too. The box is |q| <= angle,
    |p| <= momentum. train, test: how many states.

    Raises:
        BadInput: a time, angle or momentum that is no number > 0, or counts below 1.
    """

    def __init__(
        self, time: float = 0.5, angle: float = 2.0, momentum: float = 2.0, train: int = 2000, test: int = 500
    ) -> None:
        for key, value in (("time", time), ("angle", angle), ("momentum", momentum)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise BadInput(f"data.source.{key}: expected a number > 0, got {value}")
        for key, count in (("train", train), ("test", test)):
            if type(count) is not int or count < 1:
                raise BadInput(f"data.source.{key}: expected a whole number > 0, got {count}")
        self.time, self.box, self.train, self.test = time, (angle, momentum), train, test

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Regression(2, "rad"))

    def load(self) -> tuple[Samples, Samples]:
        states = np.random.default_rng(SEED).uniform(-1, 1, (self.train + self.test, 2)) * self.box
        states = states.astype(np.float32)  # what the network sees is what is integrated
        after = flow(states.astype(np.float64), self.time)
        x, target = torch.from_numpy(states), torch.from_numpy(after.astype(np.float32))
        return Samples(x[: self.train], target[: self.train]), Samples(x[self.train :], target[self.train :])


def flow(states: States, time: float) -> States:
    """(n, 2) states (q, p) -> the same after `time`, by the classical Runge-Kutta method in steps of at most FINEST."""
    count = int(np.ceil(time / FINEST))
    h = time / count
    for _ in range(count):
        a = _derivative(states)
        b = _derivative(states + h / 2 * a)
        c = _derivative(states + h / 2 * b)
        d = _derivative(states + h * c)
        states = states + h / 6 * (a + 2 * b + 2 * c + d)
    return states


def _derivative(states: States) -> States:
    q, p = states.T
    return np.stack([p, -np.sin(q)], axis=1)

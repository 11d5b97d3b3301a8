"""The flow map of the harmonic oscillator: a rotation, known exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from robode.data.dynamics import Dynamics, States, Times, check_positive


class Oscillator(Dynamics):
    """States (q, p) drawn uniformly from [-side, side]^2, and where q' = p, p' = -q has taken them after dt: turned
    clockwise by the angle dt. Everything is dimensionless. Invariant: H = (q^2 + p^2)/2.

    train, test: how many states. times: see `Dynamics`.

    Raises:
        BadInput: a dt or side that is no number > 0, or counts below 1.
    """

    size = 2

    def __init__(self, dt: float = 0.1, side: float = 1.2, train: int = 1000, test: int = 500, times: int = 0) -> None:
        super().__init__(dt, train, test, times)
        check_positive("side", side)
        self.box = (side, side)

    def derivative(self, states: States) -> States:
        q, p = states.T
        return np.stack([p, -q], axis=1)

    def flow(self, states: States, time: Times) -> States:
        q, p = states[:, :1], states[:, 1:]
        return np.concatenate([np.cos(time) * q + np.sin(time) * p, np.cos(time) * p - np.sin(time) * q], axis=1)

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        return {"energy": lambda y: np.square(y).sum(1) / 2}

"""The flow map of the pendulum: where a state is after some time. No classes, no labels; vectors without bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from robode.data.dynamics import Dynamics, States, check_positive


class Pendulum(Dynamics):
    """States (q, p) drawn uniformly from a box, and where q' = p, p' = -sin q has taken them after `time`.

    q: the angle in rad; time is in units of sqrt(length/gravity), so p is in rad too. The box is |q| <= angle,
    |p| <= momentum. train, test: how many states. Invariant: H = p^2/2 + 1 - cos q.

    Raises:
        BadInput: a time, angle or momentum that is no number > 0, or counts below 1.
    """

    size, unit, clock = 2, "rad", "time"

    def __init__(
        self, time: float = 0.5, angle: float = 2.0, momentum: float = 2.0, train: int = 2000, test: int = 500
    ) -> None:
        super().__init__(time, train, test)
        check_positive("angle", angle)
        check_positive("momentum", momentum)
        self.box = (angle, momentum)

    def derivative(self, states: States) -> States:
        q, p = states.T
        return np.stack([p, -np.sin(q)], axis=1)

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        return {"energy": lambda y: y[:, 1] ** 2 / 2 + 1 - np.cos(y[:, 0])}

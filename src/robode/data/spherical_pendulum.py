"""The flow map of a pendulum in space: a motion that is constrained to a sphere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from robode.data.dynamics import Dynamics, States, Times, check_positive
from robode.errors import BadInput


class SphericalPendulum(Dynamics):
    """States (q, v) with |q| = 1 and <q, v> = 0, and where q' = v, v' = -e3 + (q3 - |v|^2) q has taken them after dt.

    q: position, in lengths of the pendulum, gravity points to -e3, and time is in units of sqrt(length/gravity). q is
    drawn uniformly from the sphere, v at right angles to it, from all that have an energy of at most `energy` there: no
    motion leaves the states that are drawn. Invariants: energy |v|^2/2 + q3, momentum q1 v2 - q2 v1, and the
    constraints length |q| and tangency <q, v>. train, test: how many states.

    Raises:
        BadInput: a dt that is no number > 0, an energy below 1, that of rest at the top, or counts below 1.
    """

    size, start = 6, (1.0, 0.0, 0.0, 0.0, 0.5, 0.0)

    def __init__(self, dt: float = 0.5, energy: float = 1.0, train: int = 1000, test: int = 500) -> None:
        super().__init__(dt, train, test)
        check_positive("energy", energy)
        if energy < 1:
            raise BadInput(f"data.source.energy: expected a number >= 1, that of rest at the top, got {energy}")
        self.energy = energy

    def derivative(self, states: States) -> States:
        """Of the nearest state on the sphere: beside it the equation is unstable."""
        q, v = np.split(self.nearest(states), 2, axis=1)
        along = q[:, 2:] - np.sum(v**2, axis=1, keepdims=True)
        return np.concatenate([v, along * q - np.array([0.0, 0.0, 1.0])], axis=1)

    def nearest(self, states: States) -> States:
        """q of length 1, and v without its part along q."""
        q = _unit(states[:, :3])
        v = states[:, 3:] - np.sum(q * states[:, 3:], axis=1, keepdims=True) * q
        return np.concatenate([q, v], axis=1)

    def flow(self, states: States, time: Times) -> States:
        """From the nearest state on the sphere to one on the sphere."""
        return self.nearest(super().flow(self.nearest(states), time))

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        return {
            "energy": lambda y: np.sum(y[:, 3:] ** 2, axis=1) / 2 + y[:, 2],
            "momentum": lambda y: y[:, 0] * y[:, 4] - y[:, 1] * y[:, 3],
            "length": lambda y: np.linalg.norm(y[:, :3], axis=1),
            "tangency": lambda y: np.sum(y[:, :3] * y[:, 3:], axis=1),
        }

    def draw(self, random: np.random.Generator, count: int) -> States:
        q, other = (_unit(random.standard_normal((count, 3))) for _ in range(2))
        v = _unit(other - np.sum(q * other, axis=1, keepdims=True) * q)
        most = np.sqrt(2 * (self.energy - q[:, 2:]))
        return np.concatenate([q, most * np.sqrt(random.uniform(0, 1, (count, 1))) * v], axis=1)


def _unit(vectors: States) -> States:
    """(n, d), each of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

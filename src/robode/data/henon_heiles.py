"""The flow map of the Henon-Heiles system, a star in the plane of a galaxy. (Henon and Heiles 1964)"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from robode.data.dynamics import Dynamics, States, check_positive
from robode.errors import BadInput


class HenonHeiles(Dynamics):
    """States (q1, q2, p1, p2), in this order, drawn uniformly from [-side, side]^4, and where they are after dt under
    H = (p1^2 + p2^2)/2 + (q1^2 + q2^2)/2 + q1^2 q2 - q2^3/3. Everything is dimensionless. Invariant: H.

    Below H = 1/6 motions near the origin stay there; with side = 0.25 every state is. train, test: how many states.
    times: see `Dynamics`.

    Raises:
        BadInput: a dt that is no number > 0, a side outside (0, 0.25], or counts below 1.
    """

    size = 4

    def __init__(self, dt: float = 0.1, side: float = 0.25, train: int = 2000, test: int = 500, times: int = 0) -> None:
        super().__init__(dt, train, test, times)
        check_positive("side", side)
        if side > 0.25:
            raise BadInput(f"data.source.side: expected at most 0.25, beyond which motions escape, got {side}")
        self.box = (side,) * 4

    def derivative(self, states: States) -> States:
        q1, q2, p1, p2 = states.T
        return np.stack([p1, p2, -q1 - 2 * q1 * q2, -q2 - q1**2 + q2**2], axis=1)

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        return {"energy": _energy}


def _energy(y: States) -> States:
    """H, (n, 4) -> (n,)."""
    q1, q2, p1, p2 = y.T
    energy: States = (p1**2 + p2**2 + q1**2 + q2**2) / 2 + q1**2 * q2 - q2**3 / 3
    return energy

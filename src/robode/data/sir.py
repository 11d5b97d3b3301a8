"""The flow map of an epidemic: susceptible, infected, recovered. (Kermack and McKendrick 1927)"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from robode.data.dynamics import Dynamics, States, check_positive


class SIR(Dynamics):
    """Shares (S, I, R) of a population, drawn uniformly from S + I + R = 1, none below 0, and where they are after dt:

    S' = -infection S I, I' = infection S I - recovery I, R' = recovery I. Invariant: the mass S + I + R.

    infection, recovery: rates per unit of time. train, test: how many states.

    Raises:
        BadInput: a dt or a rate that is no number > 0, or counts below 1.
    """

    size, unit, start = 3, "shares", (0.99, 0.01, 0.0)

    def __init__(
        self, dt: float = 1.0, infection: float = 1.5, recovery: float = 0.5, train: int = 1000, test: int = 500
    ) -> None:
        super().__init__(dt, train, test)
        check_positive("infection", infection)
        check_positive("recovery", recovery)
        self.infection, self.recovery = infection, recovery

    def derivative(self, states: States) -> States:
        s, i, _ = states.T
        caught, healed = self.infection * s * i, self.recovery * i
        return np.stack([-caught, caught - healed, healed], axis=1)

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        return {"mass": lambda y: y.sum(1)}

    def draw(self, random: np.random.Generator, count: int) -> States:
        return random.dirichlet(np.ones(self.size), count)

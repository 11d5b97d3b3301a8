"""The flow map of the linear advection equation on a periodic grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from robode.data.dynamics import Dynamics, States, Times, check_positive
from robode.errors import BadInput


class Advection(Dynamics):
    """Values of u at the 32 points j/32 of the periodic interval [0, 1), and what u_t + speed u_x = 0 makes of them in
    dt: u(x - speed dt), exactly.

    u(x) = sum over k = 1, ..., modes of (a_k cos 2 pi k x + b_k sin 2 pi k x)/k with a_k, b_k drawn from N(0, 1), so
    the grid knows u. Invariant: the norm of the 32 numbers.

    speed: per unit of time. train, test: how many states.

    Raises:
        BadInput: a dt or a speed that is no number > 0, modes outside [1, 15], or counts below 1.
    """

    size = 32

    def __init__(
        self, dt: float = 0.05, speed: float = 1.0, modes: int = 3, train: int = 1000, test: int = 500
    ) -> None:
        super().__init__(dt, train, test)
        check_positive("speed", speed)
        if type(modes) is not int or not 1 <= modes < self.size // 2:
            raise BadInput(f"data.source.modes: expected a whole number in [1, {self.size // 2 - 1}], got {modes}")
        self.speed, self.modes = speed, modes

    def derivative(self, states: States) -> States:
        """-speed u_x of what the grid knows: trigonometric interpolation."""
        return np.fft.irfft(self._rates() * np.fft.rfft(states), self.size)

    def flow(self, states: States, time: Times) -> States:
        return np.fft.irfft(np.exp(self._rates() * time) * np.fft.rfft(states), self.size)

    def _rates(self) -> NDArray[np.complex128]:
        """By which wave k = 0, ..., 16 turns; the last one stands, as the grid sees its derivative at zeros alone."""
        return -2j * np.pi * self.speed * np.append(np.arange(self.size // 2), 0)

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        return {"norm": lambda y: np.linalg.norm(y, axis=1)}

    def draw(self, random: np.random.Generator, count: int) -> States:
        k = np.arange(1, self.modes + 1)
        phase = 2 * np.pi * np.outer(k, np.arange(self.size) / self.size)
        a, b = random.standard_normal((2, count, self.modes)) / k
        return a @ np.cos(phase) + b @ np.sin(phase)

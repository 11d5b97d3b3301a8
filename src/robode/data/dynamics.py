"""Flow maps of dynamical systems: a state, and where the system has taken it after some time. A system is one class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.tasks.flow_map import FlowMap

SEED = 0
"""The states are part of the data set: they do not move with the user's seed."""
FINEST = 0.005
"""Longest step of the integration, whose error is then far below what float32 can tell apart."""

States = NDArray[np.float64]
"""(n, d): one state a row."""
Times = float | NDArray[np.float64]
"""One for all states, or one for each, (n, 1)."""


class Dynamics(Source):
    """States y of an autonomous system y' = f(y), drawn once for all, and where they are after dt.

    A system writes `derivative`, and what of the rest is its own: `box` or `draw`, `nearest` where states are
    constrained, `flow` where it is known in closed form, `invariants`, `start`, `unit`.

    times: 0, or M: every state comes M times, each with a time drawn uniformly from [0, dt], which is the last number
    of the sample; the target is where the state is then. train, test: how many states.

    Raises:
        BadInput: a time or a box that is no number > 0, or counts below 1.
    """

    size: ClassVar[int]
    """d, how many numbers a state has."""
    unit: ClassVar[str] = "data units"
    """Of each of them."""
    clock: ClassVar[str] = "dt"
    """The key of the data that says dt."""
    box: tuple[float, ...]
    """States are drawn from |y_i| <= box_i, uniformly."""

    def __init__(self, dt: float, train: int, test: int, times: int = 0) -> None:
        check_positive(self.clock, dt)
        for key, count, least in (("train", train, 1), ("test", test, 1), ("times", times, 0)):
            if type(count) is not int or count < least:
                raise BadInput(f"data.source.{key}: expected a whole number >= {least}, got {count}")
        self.dt, self.train, self.test, self.times = dt, train, test, times

    # ---- what a system writes -----------------------------------------------------------------------------------

    @abstractmethod
    def derivative(self, states: States) -> States:
        """f: (n, d) -> (n, d)."""

    @property
    def invariants(self) -> Mapping[str, Callable[[States], States]]:
        """What solutions keep, by name: (n, d) -> (n,), in float64."""
        return {}

    @property
    def start(self) -> tuple[float, ...]:
        """Where the trajectories that are measured and drawn begin."""
        return tuple(self.draw(np.random.default_rng(SEED), 1)[0].tolist())

    def draw(self, random: np.random.Generator, count: int) -> States:
        """(count, d) states."""
        return random.uniform(-1, 1, (count, self.size)) * self.box

    def nearest(self, states: States) -> States:
        """(n, d) states -> the nearest ones that satisfy the system's constraints: all do, where there are none."""
        return states

    def flow(self, states: States, time: Times) -> States:
        """(n, d) states -> the same after a time >= 0: by the classical Runge-Kutta method in steps of at most FINEST,
        unless the system knows better."""
        count = max(int(np.ceil(np.max(time) / FINEST)), 1)
        h = time / count
        for _ in range(count):
            a = self.derivative(states)
            b = self.derivative(states + h / 2 * a)
            c = self.derivative(states + h / 2 * b)
            d = self.derivative(states + h * c)
            states = states + h / 6 * (a + 2 * b + 2 * c + d)
        return states

    # ---- what follows from it -----------------------------------------------------------------------------------

    @property
    def info(self) -> DatasetInfo:
        numbers = self.size + (1 if self.times else 0)
        task = FlowMap(self.size, self.unit, self.dt, tuple(self.invariants), bool(self.times))
        return DatasetInfo((numbers,), (0.0,) * numbers, (1.0,) * numbers, None, task)

    def load(self) -> tuple[Samples, Samples]:
        random = np.random.default_rng(SEED)
        states = self.draw(random, self.train + self.test).astype(np.float32)  # what the network sees is integrated
        time: Times = self.dt
        x, copies = states, max(self.times, 1)
        if self.times:
            states = np.repeat(states, self.times, axis=0)
            moments = random.uniform(0, self.dt, (len(states), 1)).astype(np.float32)
            x, time = np.concatenate([states, moments], axis=1), moments.astype(np.float64)
        after = self.flow(states.astype(np.float64), time).astype(np.float32)
        first, given, target = self.train * copies, torch.from_numpy(x), torch.from_numpy(after)
        return Samples(given[:first], target[:first]), Samples(given[first:], target[first:])


def check_positive(key: str, value: float) -> None:
    """Raises `BadInput` for what is no number > 0. key: of the source."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BadInput(f"data.source.{key}: expected a number > 0, got {value}")

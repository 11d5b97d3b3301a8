"""Flows whose fields a test writes down, bound to samples (label, number): the context of a sample is the sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.encoders import Control, States
from robode.heads import Identity
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4
from robode.network import Network
from robode.objectives.lyapunov import potential
from robode.ode.bounds import Scalar
from robode.ode.controlled import ControlledField
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.tasks.classification import Classification

N, SIZE = 3, 2
INFO = DatasetInfo((SIZE,), (0.0,) * SIZE, (1.0,) * SIZE, None, Classification(tuple("abc")))


class Rows(Source):
    """The same samples (B, 2) for training and testing; the label of a sample is its first number."""

    def __init__(self, x: Tensor):
        self.x = x

    @property
    def info(self) -> DatasetInfo:
        return INFO

    def load(self) -> tuple[Samples, Samples]:
        found = Samples(self.x, self.x[:, 0].round().long())
        return found, found


class Itself(Control):
    def control(self, x: Tensor) -> Tensor:
        return x


class HandMade(Flow):
    """make: context (B, 2) -> the field."""

    controlled, flattens, context = True, True, SIZE

    def __init__(self, make: Callable[[Tensor], VectorField], depth: int = 4, integrator: Integrator | None = None):
        super().__init__(N, depth, integrator or RK4(), horizon=1.0)
        self.make = make

    def fields(self, context: Tensor | None = None) -> Sequence[VectorField]:
        assert context is not None
        return [self.make(context)] * self.depth


def network(make: Callable[[Tensor], VectorField], depth: int = 4, integrator: Integrator | None = None) -> Network:
    return Network(INFO, HandMade(make, depth, integrator), Itself((SIZE,), States(N, True, SIZE)), Identity(N, N))


def data(x: Tensor) -> DataModule:
    return DataModule(Rows(x), batch_size=10, seed=0, validation=0)


@dataclass(frozen=True)
class Falling(ControlledField):
    """Along -grad V_y so fast that dV/dt = -rate V exactly; x: (B, 2), labels and rates."""

    x: Tensor

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        labels = self.x[:, 0].round().long()
        gradient = y.softmax(0) - one_hot(labels, len(y)).T
        V = potential(y.T, labels)
        return -self.x[:, 1] * V * gradient / gradient.square().sum(0)

    def on_all(self, t: Scalar, y: Tensor) -> Tensor:
        S = y.shape[1]
        return torch.stack([replace(self, x=each.expand(S, -1))(t, y) for each in self.x])

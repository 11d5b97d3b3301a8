"""The same flow, solved more finely: does what was found about a network hold for its ODE, or for its solver only?"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from robode.ode.bounds import Scalar, value
from robode.ode.flow import Flow
from robode.ode.integrators import Integrator
from robode.ode.runge_kutta import Dopri5
from robode.ode.vector_field import VectorField

SUBSTEPS = 4  # the error of a method of order p falls by 4^p
TIGHTER = 0.01  # of the tolerances of an adaptive method

Net = TypeVar("Net", bound=nn.Module)


class Substeps(Integrator):
    """`count` steps of h/count of another method."""

    def __init__(self, method: Integrator, count: int = SUBSTEPS):
        self.inner, self.count = method, count
        self.name, self.order = f"{method.name} x {count}", method.order

    def suits(self, field: VectorField) -> bool:
        return self.inner.suits(field)

    def step_limit(self, m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
        return self.inner.step_limit(m, M, gamma, omega)  # the layers stay as long as they were

    def step(self, field: VectorField, t: float, h: Scalar, y: Tensor, u: Tensor | None = None) -> Tensor:
        size = h / self.count
        for i in range(self.count):
            y = self.inner.step(field, t + i * value(size), size, y, u)
        return y

    def jacobian(self, field: VectorField, t: float, h: Scalar, y: Tensor) -> Tensor:
        size = h / self.count
        product = torch.eye(y.shape[-2], dtype=y.dtype, device=y.device)
        for i in range(self.count):
            product = self.inner.jacobian(field, t + i * value(size), size, y) @ product
            y = self.inner.step(field, t + i * value(size), size, y)
        return product

    def lipschitz(self, field: VectorField, h: float) -> float:
        return math.prod([self.inner.lipschitz(field, h / self.count)] * self.count)


def finer(method: Integrator) -> Integrator:
    """`SUBSTEPS` steps in place of one; for an adaptive method tolerances times `TIGHTER`."""
    if isinstance(method, Dopri5):
        return Dopri5(TIGHTER * method.rtol, TIGHTER * method.atol)
    return Substeps(method)


def with_finer_solver(network: Net) -> Net | None:
    """A copy of a network whose flow is solved more finely, with the weights of the moment; None for one without a
    `Flow`, or whose layers are not the steps of an ODE."""
    flow = getattr(network, "flow", None)
    if not isinstance(flow, Flow) or not flow.solves_an_ode:
        return None
    found = copy.deepcopy(network)
    found.flow.integrator = finer(flow.method)  # type: ignore[union-attr]
    return found

"""The same flow, solved more finely: does what was found about a network hold for its ODE, or for its solver only?"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from robode.integrators.one_step import Integrator, repeated
from robode.integrators.runge_kutta import Dopri5
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.step import Step

SUBSTEPS = 4  # the error of a method of order p falls by 4^p
TIGHTER = 0.01  # of the tolerances of an adaptive method

Net = TypeVar("Net", bound=nn.Module)


class Substeps(Integrator):
    """`count` steps of h/count of another method."""

    def __init__(self, method: Integrator, count: int = SUBSTEPS):
        self.inner, self.count = method, count
        self.name, self.order = f"{method.name} x {count}", method.order
        self.circle = method.circle  # the layers stay as long as they were

    def suits(self, field: VectorField) -> bool:
        return self.inner.suits(field)

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        size = h / self.count
        return repeated(lambda s: self.inner.step(field, s, size), t, size, self.count, field)


def finer(method: Integrator) -> Integrator:
    """`SUBSTEPS` steps in place of one; for an adaptive method tolerances times `TIGHTER`."""
    if isinstance(method, Dopri5):
        return Dopri5(TIGHTER * method.rtol, TIGHTER * method.atol)
    return Substeps(method)


def with_reference_solver(network: Net) -> Net | None:
    """A copy of a network whose flow is solved more finely, with the weights of the moment; None for one without a
    `Flow`, or whose layers are not the steps of an ODE."""
    flow = getattr(network, "flow", None)
    if not isinstance(flow, Flow) or not flow.solves_an_ode:
        return None
    found = copy.deepcopy(network)
    found.flow.integrator = finer(flow.method)  # type: ignore[union-attr]
    return found

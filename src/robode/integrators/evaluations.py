"""How often a flow evaluates its fields: what a solver costs, whatever the machine."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.integrators.adjoint import AdjointStep
from robode.integrators.integrator import SolverStep
from robode.ode.bounds import Scalar
from robode.ode.field import EulerStep, VectorField
from robode.ode.flow import Flow
from robode.ode.layer import Layer
from robode.ode.step import Chain, Step


class Counted(VectorField):
    """A field that counts its evaluations in `calls`; its Jacobians are not counted."""

    autonomous = False  # a field that is takes no notice of the time that it is given

    def __init__(self, field: VectorField):
        self.field, self.calls = field, 0

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        self.calls += 1
        return self.field(t, y)

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        return self.field.jacobian(t, y)


@torch.no_grad()
def count_calls(flow: Flow, y: Tensor, context: Tensor | None = None) -> int:
    """Evaluations of its fields in one forward pass from the first states y, (B, n) or (B, n, H, W); one evaluation is
    of all states at once. Counted as they are made: the steps of dopri5 and the iterations of implicit_midpoint (whose
    Jacobians come on top) depend on the states. A layer that is written out, of euler, etd or imex, is one, and
    symplectic_euler makes two. What leads into another stage evaluates no field.

    Raises:
        BadInput: layers that are no steps of an ODE, or steps that do not say which field they evaluate.
    """
    if not flow.solves_an_ode:
        raise BadInput(f"expected a model whose layers solve an ODE, got {type(flow).__name__}")
    z, total = flow.enter(y), 0
    for step in flow.steps(context):
        z, calls = counted(step, z)
        total += calls
    return total


def counted(step: Step, z: Tensor) -> tuple[Tensor, int]:
    """The state after a step, and how many evaluations of a field it took; see `count_calls`."""
    if isinstance(step, AdjointStep):
        return counted(step.inner, z)
    if isinstance(step, Chain):
        total = 0
        for each in step.steps:
            z, calls = counted(each, z)
            total += calls
        return z, total
    if isinstance(step, Layer) or step.between_stages:
        return step(z), int(not step.between_stages)
    if isinstance(step, SolverStep | EulerStep):
        field = Counted(step.field)
        return replace(step, field=field)(z), field.calls
    raise BadInput(f"expected a step that evaluates a field, got {type(step).__name__}")

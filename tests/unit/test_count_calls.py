"""How often a flow evaluates its fields."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from robode.errors import BadInput
from robode.families.gradient_flow import GradientFlow
from robode.families.hdnn import HDNN
from robode.families.node import MLPField, Node
from robode.integrators.adaptive import Dopri5
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.evaluations import Counted, count_calls
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4, RK38, Midpoint
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.ode.bounds import Scalar

DEPTH = 3


@dataclass(frozen=True)
class Noted(MLPField):
    """Counts on its own, in a list of the class."""

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        NOTED.append(1)
        return super().__call__(t, y)


NOTED: list[int] = []


class NotedNode(Node):
    def fields(self, context: Tensor | None = None) -> list[MLPField]:
        field = super().fields(context)[0]
        assert isinstance(field, MLPField)
        return [Noted(field.weights, field.biases, field.activation)] * self.depth


def noted(integrator: Integrator) -> NotedNode:
    torch.manual_seed(0)
    return NotedNode(2, DEPTH, integrator, step=0.5, hidden=[8])


@pytest.mark.parametrize(
    ("integrator", "each"),
    [(Euler(), 1), (Euler(5), 5), (Midpoint(), 2), (RK4(), 4), (RK38(), 4), (RK4("adjoint"), 4), (RK4().refined(), 16)],
    ids=lambda which: getattr(which, "name", str(which)),
)
def test_fixed_methods_make_as_many_as_they_have_stages(integrator: Integrator, each: int) -> None:
    flow, y = noted(integrator), torch.randn(7, 2)
    NOTED.clear()
    assert count_calls(flow, y) == len(NOTED) == DEPTH * each


@pytest.mark.parametrize("method", [Dopri5(), Dopri5(gradient="adjoint"), ImplicitMidpoint()], ids=lambda m: m.name)
def test_others_are_counted_as_they_run(method: Integrator) -> None:
    flow, y = noted(method), torch.randn(7, 2)
    NOTED.clear()
    flow(y)
    made = len(NOTED)
    assert count_calls(flow, y) == made
    assert made > DEPTH
    assert count_calls(noted(method.refined()), y) > made


def test_layers_that_are_written_out_are_one_evaluation_each() -> None:
    torch.manual_seed(0)
    y = torch.randn(5, 4, 2, 2)
    for integrator, each in ((Euler(), 1), (Euler(4), 4), (ETD(), 1), (SymplecticEuler(), 2)):
        assert count_calls(HDNN(4, DEPTH, integrator, separable=True), y) == DEPTH * each


def test_counting_changes_no_state() -> None:
    flow, y = noted(RK4()), torch.randn(2, 7)
    field = flow.fields()[0]
    step = RK4().step(field, 0.0, 0.5)
    assert torch.equal(replace(step, field=Counted(field))(y), step(y))


def test_layers_of_no_ode_are_refused() -> None:
    flow = GradientFlow(4, DEPTH, Euler())
    with pytest.raises(BadInput, match="expected a model whose layers solve an ODE, got GradientFlow"):
        count_calls(flow, torch.randn(5, 4))

"""The Jacobian penalty: its value and its gradient by finite differences in float64, and its random directions."""

import pytest
import torch
from small_runs import composed

from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.integrators.runge_kutta import RK4
from robode.network import build_network
from robode.objectives.jacobian_penalty import JacobianPenalty
from robode.tasks.classification import Classification

GREY = DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c")))
POINTS = DatasetInfo((2,), (0.1, -0.2), (1.0, 2.0), None, Classification(("a", "b", "c")))
FAMILIES = [
    ("chnode", "etd"),
    ("chnode", "imex"),
    ("chnode", "rk4"),
    ("hdnn", "euler"),
    ("resnet", "euler"),
    ("node", "rk4"),
    ("node", "dopri5"),
]
CASES = [(*each, info) for each in FAMILIES for info in (GREY, POINTS) if each[1] != "dopri5" or info is POINTS]


def double_network(model, integrator, info):
    words = [f"model={model}", f"integrator={integrator}", "depth=2", "model.width=4", "step=0.3"]
    words += ["integrator.rtol=1e-9", "integrator.atol=1e-9"] if integrator == "dopri5" else []
    torch.manual_seed(0)
    network = build_network(composed(*words), info).double()
    for parameter in network.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return network


def slope_of(value, network, along, step=1e-5):
    """The central difference of value() along a direction of the weights."""
    start, ends = [parameter.detach().clone() for parameter in network.parameters()], []
    for sign in (1, -1):
        for parameter, begin, direction in zip(network.parameters(), start, along, strict=True):
            parameter.data = begin + sign * step * direction
        ends.append(value().item())
    for parameter, begin in zip(network.parameters(), start, strict=True):
        parameter.data = begin
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize(("model", "integrator", "info"), CASES)
def test_the_jacobian_penalty_and_its_gradient_are_those_of_finite_differences(model, integrator, info):
    network, total = double_network(model, integrator, info), 0.0
    x = torch.rand(4, *info.shape, dtype=torch.float64)

    def penalty(projections):
        torch.manual_seed(3)  # the same directions each time
        return JacobianPenalty(0.7, projections)(network, x, torch.zeros(4))["jacobian_penalty"]

    for change in 1e-5 * torch.eye(x[0].numel(), dtype=torch.float64).view(-1, *info.shape):
        with torch.no_grad():
            total += float((network(x + change) - network(x - change)).div(2e-5).square().sum())
    assert penalty(3).item() == pytest.approx(0.7 * total / 4, rel=1e-6)  # exact for as many projections as outputs
    for projections in (1, 3):
        along = [torch.randn_like(parameter) for parameter in network.parameters()]
        found = torch.autograd.grad(penalty(projections), list(network.parameters()), materialize_grads=True)
        slope = sum(float((gradient * part).sum()) for gradient, part in zip(found, along, strict=True))
        assert slope == pytest.approx(slope_of(lambda k=projections: penalty(k), network, along), rel=1e-5)


@pytest.mark.parametrize("projections", [1, 2])
def test_few_projections_are_right_on_average(projections):
    network, copies = double_network("chnode", "etd", POINTS), 4000
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(copies, 2)
    torch.manual_seed(0)
    exact, found = (JacobianPenalty(1.0, k)(network, x, x)["jacobian_penalty"].item() for k in (3, projections))
    # ||J||_F^2 estimated with k directions is at most outputs/k ||J||_F^2: four standard errors of the mean.
    assert abs(found - exact) < 4 * exact * (3 / projections - 1) ** 0.5 / copies**0.5 and found != exact


def test_what_cannot_be_penalised_is_refused():
    with pytest.raises(BadInput, match="projections: expected at most the 3 outputs, got 4"):
        JacobianPenalty(0.1, 4).check(double_network("chnode", "etd", POINTS))
    adjoint = double_network("chnode", "rk4", POINTS)
    adjoint.flow.integrator = RK4("adjoint")
    for once in (adjoint, double_network("chnode", "implicit_midpoint", POINTS)):
        with pytest.raises(BadInput, match=r"neither implicit_midpoint nor integrator.gradient=adjoint"):
            JacobianPenalty().check(once)


@pytest.mark.parametrize(
    ("key", "value"), [("weight", -1), ("weight", "much"), ("projections", 0.5), ("projections", 0)]
)
def test_settings_that_make_no_sense(key, value):
    with pytest.raises(BadInput, match=f"objective.jacobian_penalty.{key}"):
        JacobianPenalty(**{key: value})

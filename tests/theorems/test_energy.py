"""dH/dt = -gamma ||grad H||^2 <= 0 inside a layer: the damping dissipates, J moves along level sets."""

from functools import partial

import pytest
import torch
from problems import eye, randn, rk4, tanh_energy, tanh_gradient
from torch import Tensor

from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.integrator import SpectralIntegrator
from robode.ode.field import GradientField


def velocity(field: GradientField, y: Tensor) -> Tensor:
    F = field.skew.J - float(field.gamma) * eye(len(y))
    return F @ tanh_gradient(field, y)


@pytest.mark.parametrize("J", ["canonical", "j2"])
def test_energy_decreases_along_solutions_of_a_chnode_layer(J: str) -> None:
    torch.manual_seed(1)
    flow = CHNode(4, 2, ETD(), J=J, trainable_L=True).double()
    for field in flow.exact().bind()[0]:
        y = 2 * randn(4, 50, seed=2)
        before = tanh_energy(field, y)
        for _ in range(20):
            y = rk4(partial(velocity, field), y, 0.02, 20)
            after = tanh_energy(field, y)
            assert bool((after < before).all())
            before = after


@pytest.mark.parametrize("flow_class", [CHNode, HDNN])
def test_the_field_dissipates_at_exactly_gamma_times_the_squared_gradient(flow_class: type) -> None:
    torch.manual_seed(2)
    flow = flow_class(4, 1, ETD(), trainable_L=True).double()
    field = flow.exact().bind()[0][0]
    y = randn(4, 30, seed=3).requires_grad_()
    (slope,) = torch.autograd.grad(tanh_energy(field, y).sum(), y)  # the energy written here, not robode's gradient
    rate = (slope * field(0.0, y.detach())).sum(0)
    torch.testing.assert_close(rate, -float(field.gamma) * slope.square().sum(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("integrator", [ETD(), IMEX(), Euler()])
def test_the_steps_at_their_defaults_lower_the_energy_too(integrator: SpectralIntegrator) -> None:
    torch.manual_seed(3)
    flow = CHNode(4, 1, integrator).double()
    field, h = flow.exact().bind()[0][0], float(flow.h)
    y = 2 * randn(4, 200, seed=4)
    assert bool((tanh_energy(field, integrator.step(field, 0.0, h)(y)) < tanh_energy(field, y)).all())

"""A data-controlled flow: the encoder gives the context, fields are bound to it, and no argument travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robode.certificates.branch_and_bound import Judge
from robode.certificates.radius import constants
from robode.data.info import DatasetInfo
from robode.encoders import Augment
from robode.errors import BadInput
from robode.integrators.adaptive import Dopri5
from robode.integrators.euler import Euler
from robode.integrators.reference import with_reference_solver
from robode.integrators.runge_kutta import RK4
from robode.network import Network, states_of
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.sensitivity import bsm_norms
from robode.tasks.classification import Classification

INFO = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b")))


@dataclass(frozen=True)
class ControlledField(VectorField):
    """f(t, y; x) = tanh(K y + U x) (1 + t). K: (n, n), U: (n, d), x: (d, M)."""

    K: Tensor
    U: Tensor
    x: Tensor
    autonomous = False

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return torch.tanh(self.K @ y + self.U @ self.x) * (1 + t)

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        D = 1 - torch.tanh(self.K @ y + self.U @ self.x).square()
        return D.mT[..., None] * self.K * (1 + t)


class ControlledFlow(Flow):
    controlled = True
    default_step = 0.2

    def __init__(self, width: int, depth: int, integrator, step="auto", horizon=None):
        super().__init__(width, depth, integrator, step, horizon)
        self.K, self.U = nn.Parameter(torch.randn(width, width)), nn.Parameter(torch.randn(width, 2))

    def fields(self, context: Tensor | None = None) -> Sequence[VectorField]:
        assert context is not None
        return [ControlledField(self.K, self.U, context.mT)] * self.depth


class WithData(Augment):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x


def network(integrator) -> Network:
    torch.manual_seed(1)
    flow = ControlledFlow(3, 4, integrator)
    return Network(INFO, flow, WithData((2,), states_of(flow))).double()


@pytest.mark.parametrize("integrator", [Euler(), Euler(3), RK4(), Dopri5(1e-9, 1e-9)], ids=lambda i: i.name)
def test_forward_states_and_jacobians_see_the_data(integrator) -> None:
    net, x = network(integrator), torch.randn(5, 2, dtype=torch.float64)
    y, context = net.encode(x)
    assert context is not None and torch.equal(context, x)
    states = net.flow.states(y, context)
    torch.testing.assert_close(net.head(states[-1]), net(x))
    alone = torch.cat([net(row[None]) for row in x])
    torch.testing.assert_close(alone, net(x), rtol=1e-6, atol=1e-8)  # each sample flows by its own data
    bsm = bsm_norms(net.flow, y, context)
    J = torch.autograd.functional.jacobian(lambda z: net.flow(z, x).sum(0), y).permute(1, 0, 2)
    torch.testing.assert_close(bsm.norms[0], torch.linalg.matrix_norm(J, 2), rtol=1e-4, atol=1e-6)


def test_time_reaches_fields_that_depend_on_it() -> None:
    """Twice as fine a solver follows f(t, y): the step is made anew for each interval."""
    net, x = network(RK4()), torch.randn(4, 2, dtype=torch.float64)
    reference, exact = with_reference_solver(net), network(Dopri5(1e-11, 1e-11))
    assert reference is not None
    errors = [float((each(x) - exact(x)).detach().abs().max()) for each in (net, reference)]
    assert errors[1] < errors[0] / 50 and errors[0] < 1e-3


def test_nothing_is_certified_and_what_needs_the_fields_alone_says_so() -> None:
    net = network(Euler())
    assert constants(net, (2,)).end_to_end == float("inf")
    assert net.flow.certificate() == {"flow_ode": float("inf"), "flow_discrete": float("inf")}
    with pytest.raises(BadInput, match="eps_r: expected a model whose fields do not depend on the data"):
        Judge(net)


@pytest.mark.parametrize("way", ["backprop", "adjoint"])
def test_the_adjoint_reaches_the_data_and_the_weights(way: str) -> None:
    """An attack needs the former, a training the latter; against finite differences of the network that runs."""
    net, x = network(RK4(way)), torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    net.flow.h.fill_(0.02)
    leaves = [x, *net.parameters()]
    found = torch.autograd.grad(net(x).square().sum(), leaves)
    for leaf, gradient in zip(leaves, found, strict=True):
        direction, ends = torch.randn_like(leaf), []
        for sign in (1, -2, 1):
            with torch.no_grad():
                leaf.add_(sign * 1e-6 * direction)
                ends.append(float(net(x).square().sum()))
        assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-6)

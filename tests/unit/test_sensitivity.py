"""Backward sensitivity matrices against autograd, on vectors and on small images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.integrators.adaptive import Dopri5
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.runge_kutta import RK4
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.ode.flow import Flow, from_columns, to_columns
from robode.ode.sensitivity import bsm_norms

FLOWS = {
    "chnode etd": lambda: CHNode(4, 3, ETD()),
    "chnode differentiable": lambda: CHNode(4, 3, ETD(), gamma="differentiable"),
    "chnode shared": lambda: CHNode(4, 3, ETD(), shared=True),
    "chnode implicit": lambda: CHNode(4, 2, ImplicitMidpoint(tolerance=1e-12)),
    "hdnn symplectic": lambda: HDNN(4, 3, SymplecticEuler(), separable=True),
    "hdnn euler": lambda: HDNN(4, 3, Euler()),
    "resnet": lambda: ResNet(4, 3, Euler()),
    "node rk4": lambda: Node(4, 3, RK4(), hidden=[8], step=0.3),
    "node euler": lambda: Node(4, 3, Euler(), hidden=[8], step=0.3),
    "node dopri5": lambda: Node(4, 2, Dopri5(rtol=1e-9, atol=1e-9), hidden=[8], step=0.3),
}


def tail(flow: Flow, start: int, y: Tensor) -> Tensor:
    """Layers start+1 .. N."""
    fields, h = flow.bind()
    z = to_columns(y)
    for j in range(start, flow.depth):
        z = flow.integrator.step(fields[j], j * float(flow.h), h)(z)
    return from_columns(z, y.shape)


def autograd_bsms(flow: Flow, y: Tensor) -> list[Tensor]:
    """d y_N / d y_j for j = 0 .. N-1 of each sample as full matrices: N tensors (B, n*, n*)."""
    size = y[0].numel()
    states = [s.detach() for s in flow.states(y)[:-1]]
    return [
        torch.stack([
            torch.autograd.functional.jacobian(lambda x, j=j: tail(flow, j, x), s[i : i + 1]).reshape(size, size)
            for i in range(len(y))
        ])
        for j, s in enumerate(states)
    ]  # fmt: skip


@pytest.mark.parametrize("name", FLOWS)
def test_norms_are_those_of_autograds_jacobians_on_vectors(name: str) -> None:
    torch.manual_seed(1)
    flow = FLOWS[name]().double()
    y = torch.randn(4, 4, dtype=torch.float64)
    y[3] = y[1]  # equal columns are treated once
    bsm = bsm_norms(flow, y)
    assert bsm.norms.shape == bsm.step_norms.shape == (flow.depth, 4)
    for j, expected in enumerate(autograd_bsms(flow, y)):
        torch.testing.assert_close(bsm.norms[j], torch.linalg.svdvals(expected)[:, 0], rtol=1e-6, atol=1e-9)
        mean = torch.linalg.svdvals(expected.mean(0))[0]
        torch.testing.assert_close(bsm.norm_of_mean[j], mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(bsm.norms[-1], bsm.step_norms[-1])


@pytest.mark.parametrize("background", [False, True])
def test_image_norms_are_those_of_the_full_block_diagonal_jacobian(background: bool) -> None:
    torch.manual_seed(2)
    flow = CHNode(4, 2, ETD()).double()
    y = torch.randn(3, 4, 2, 3, dtype=torch.float64)
    if background:
        y[:, :, 0] = 0.25  # a constant background: many equal columns
    bsm = bsm_norms(flow, y)
    for j, full in enumerate(autograd_bsms(flow, y)):
        blocks = full.reshape(3, 4, 6, 4, 6)
        for a in range(6):
            for b in range(6):
                assert a == b or float(blocks[:, :, a, :, b].abs().max()) == 0  # pixels do not mix
        torch.testing.assert_close(bsm.norms[j], torch.linalg.svdvals(full)[:, 0], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(bsm.norm_of_mean[j], torch.linalg.svdvals(full.mean(0))[0], rtol=1e-8, atol=1e-10)


def test_step_norms_are_those_of_single_layers() -> None:
    torch.manual_seed(3)
    flow = HDNN(4, 3, SymplecticEuler(), separable=True).double()
    y = torch.randn(5, 4, dtype=torch.float64)
    states, bsm, (fields, h) = flow.states(y), bsm_norms(flow, y), flow.bind()
    for j in range(3):
        for i in range(5):
            step = torch.autograd.functional.jacobian(
                lambda x, j=j: flow.integrator.step(fields[j], 0.0, h)(x.T).T, states[j][i : i + 1].detach()
            ).reshape(4, 4)
            assert float(bsm.step_norms[j, i]) == pytest.approx(float(torch.linalg.matrix_norm(step, 2)), rel=1e-9)


def test_the_mean_hides_what_single_samples_do() -> None:
    torch.manual_seed(4)
    flow = HDNN(8, 6, Euler(), step=0.5).double()
    bsm = bsm_norms(flow, 3 * torch.randn(200, 8, dtype=torch.float64))
    assert bool((bsm.norm_of_mean <= bsm.norms.mean(1) * (1 + 1e-12)).all())
    assert float(bsm.norms[0].max()) > 2 * float(bsm.norm_of_mean[0])


def test_norms_do_not_depend_on_the_order_or_company_of_samples() -> None:
    torch.manual_seed(5)
    flow, y = ResNet(4, 3, Euler()).double(), torch.randn(6, 4, 2, 2, dtype=torch.float64)
    together, order = bsm_norms(flow, y), torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(bsm_norms(flow, y[order]).norms, together.norms[:, order], rtol=1e-10, atol=0)
    torch.testing.assert_close(bsm_norms(flow, y[:1]).norms, together.norms[:, :1], rtol=1e-10, atol=0)


def test_a_network_whose_states_overflow_is_measured_without_a_crash() -> None:
    """The published settings can blow up; the log then shows inf or nan, the run does not end there."""
    torch.manual_seed(6)
    flow = CHNode(4, 3, Euler(), kappa=1.0, step=1e30)
    norms = bsm_norms(flow, torch.randn(3, 4)).norms
    assert not bool(norms.isfinite().all())

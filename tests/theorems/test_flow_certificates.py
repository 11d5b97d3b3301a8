"""flow_discrete bounds every Jacobian of the network that runs: attacked by gradient ascent over inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4, Midpoint
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.ode import field
from robode.ode.flow import Flow
from robode.ode.lognorm_upper import upper_bound

FLOWS: dict[str, Callable[[], Flow]] = {
    "chnode etd": lambda: CHNode(4, 3, ETD()),
    "chnode etd, published kappa": lambda: CHNode(4, 2, ETD(), kappa=4e-4, init_std=1.0, step=0.5),
    "chnode etd j2": lambda: CHNode(5, 2, ETD(), J="j2", trainable_L=True),
    "chnode etd, wide": lambda: CHNode(12, 2, ETD(), init_std=0.3),
    "chnode etd, stale gamma": lambda: CHNode(4, 2, ETD(), gamma_start="zero", step=0.5),
    "chnode imex relu": lambda: CHNode(4, 3, IMEX(), activation="relu"),
    "chnode euler auto": lambda: CHNode(4, 3, Euler()),
    "chnode euler, far beyond h*": lambda: CHNode(4, 2, Euler(), step=0.5),
    "chnode rk4 auto": lambda: CHNode(4, 2, RK4()),
    "chnode rk4, long steps": lambda: CHNode(4, 2, RK4(), step=0.3),
    "chnode midpoint": lambda: CHNode(4, 2, Midpoint()),
    "chnode implicit midpoint": lambda: CHNode(4, 2, ImplicitMidpoint(tolerance=1e-10)),
    "chnode shared": lambda: CHNode(4, 3, ETD(), shared=True, gamma="differentiable"),
    "hdnn euler": lambda: HDNN(4, 2, Euler(), step=0.3),
    "hdnn etd": lambda: HDNN(4, 2, ETD(), step=0.3, J="j2"),
    "hdnn symplectic": lambda: HDNN(4, 2, SymplecticEuler(), separable=True),
    "hdnn implicit midpoint": lambda: HDNN(4, 2, ImplicitMidpoint(tolerance=1e-10), step=0.1),
    "resnet euler": lambda: ResNet(4, 2, Euler(), step=0.5),
    "resnet leaky": lambda: ResNet(4, 2, Euler(), activation="leaky_relu"),
    "resnet softplus rk4": lambda: ResNet(4, 2, RK4(), step=0.2, activation="softplus"),
    "node rk4": lambda: Node(4, 3, RK4(), hidden=[16]),
    "node euler": lambda: Node(4, 3, Euler(), hidden=[16, 16], step=0.5),
    "node one layer": lambda: Node(4, 3, Euler(), hidden=[], step=0.5),
}


def flow_jacobian(flow: Flow, y: Tensor) -> Tensor:
    product = torch.eye(y.shape[1], dtype=y.dtype)
    for step in flow.step_jacobians(y):
        product = step @ product
    return product


def largest_jacobian(flow: Flow, seed: int = 0, iterations: int = 15) -> float:
    """The largest ||d Phi / d y|| that random inputs of several scales and then gradient ascent find."""
    n = flow.width
    draws = torch.randn(600, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scales = torch.logspace(-1.5, 1.5, 600, dtype=torch.float64)[:, None]
    with torch.no_grad():
        norms = torch.linalg.matrix_norm(flow_jacobian(flow, draws * scales), 2)
    y = (draws * scales)[norms.topk(16).indices].requires_grad_()
    best = float(norms.max())
    adam = torch.optim.Adam([y], lr=0.05)
    for _ in range(iterations):
        values = torch.linalg.matrix_norm(flow_jacobian(flow, y), 2)
        best = max(best, float(values.detach().max()))
        if not values.requires_grad:  # implicit midpoint: its Jacobian is not differentiated again
            break
        gradient = torch.autograd.grad(-values.sum(), y, allow_unused=True)[0]
        if gradient is None:  # piecewise linear: the Jacobian does not vary locally
            break
        y.grad = gradient
        adam.step()
    return best


@pytest.mark.parametrize("name", FLOWS)
def test_no_input_exceeds_the_certificate(name: str) -> None:
    torch.manual_seed(7)
    flow = FLOWS[name]().double()
    bound, found = flow.certificate()["flow_discrete"], largest_jacobian(flow)
    assert found <= bound * (1 + 1e-6)
    assert bound <= 1 or not name.endswith("auto")


@pytest.mark.parametrize("name", ["chnode etd", "chnode imex relu", "chnode euler auto"])
def test_the_certificate_is_within_a_small_factor_of_what_is_found(name: str) -> None:
    torch.manual_seed(7)
    flow = FLOWS[name]().double()
    assert flow.certificate()["flow_discrete"] <= 5 * largest_jacobian(flow)


def random_training(flow: Flow, steps: int, seed: int, after_step: Callable[[], None]) -> None:
    """Optimiser steps on a random loss, violent enough to change ||K|| by large factors."""
    torch.manual_seed(seed)
    adam = torch.optim.Adam(flow.parameters(), lr=0.3)
    for _ in range(steps):
        y, target = torch.randn(32, flow.width), 5 * torch.randn(32, flow.width)
        adam.zero_grad()
        (flow(y) - target).square().mean().backward()
        adam.step()
        after_step()


@pytest.mark.parametrize("integrator", [ETD(), IMEX(), Euler()])
@pytest.mark.parametrize("trainable_L", [False, True])
def test_projection_restores_the_guarantee_after_any_training(integrator: Integrator, trainable_L: bool) -> None:
    torch.manual_seed(1)
    flow = CHNode(6, 3, integrator, trainable_L=trainable_L)
    for seed in range(3):
        random_training(flow, 8, seed, lambda: None)
        flow.project_()
        certificate = flow.certificate()
        assert certificate["flow_discrete"] <= 1 and certificate["flow_ode"] <= 1
    assert largest_jacobian(flow.double(), iterations=5) <= certificate["flow_discrete"] * (1 + 1e-6)


@pytest.mark.parametrize("integrator", [ETD(), IMEX(), Euler()])
@pytest.mark.parametrize("trainable_L", [False, True])
def test_differentiable_gamma_guarantees_every_iterate(integrator: Integrator, trainable_L: bool) -> None:
    """Without project_: gamma, c and h are functions of the weights inside the forward pass."""
    torch.manual_seed(1)
    flow = CHNode(6, 2, integrator, gamma="differentiable", trainable_L=trainable_L)

    def check() -> None:
        certificate = flow.certificate()
        assert certificate["flow_discrete"] <= 1 and certificate["flow_ode"] <= 1

    random_training(flow, 12, 2, check)
    assert largest_jacobian(flow.double(), iterations=5) <= flow.certificate()["flow_discrete"] * (1 + 1e-6)


def test_the_published_settings_contract_as_an_ode_and_not_as_a_network() -> None:
    torch.manual_seed(1)
    flow = CHNode(8, 4, Euler(), kappa=4e-4, init_std=1.0, step=0.5, gamma="script_mnist")
    certificate = flow.certificate()
    assert certificate["flow_ode"] <= 1 < 1e6 < certificate["flow_discrete"]
    assert largest_jacobian(flow.double(), iterations=0) > 1e4


def test_wide_etd_keeps_its_guarantee_from_the_class_bound() -> None:
    torch.manual_seed(1)
    assert CHNode(32, 4, ETD()).certificate()["flow_discrete"] <= 1


@pytest.mark.parametrize("name", FLOWS)
def test_certificates_are_of_the_exact_weights_whatever_the_precision(name: str) -> None:
    """Weights that have moved, a kappa that float32 rounds: a float32 module and its float64 copy agree, before and
    after everything that the certificate needs has been computed."""
    torch.manual_seed(5)
    flow = FLOWS[name]()
    with torch.no_grad():
        for p in flow.parameters():
            p.mul_(1.3)
    copied = copy.deepcopy(flow).double()
    for (ode, discrete), expected in zip(flow.step_bounds(), copied.step_bounds(), strict=True):
        assert (ode, discrete) == pytest.approx(expected, rel=1e-13, nan_ok=True)
    if isinstance(flow, CHNode) and flow.L is None:
        eye = torch.eye(flow.width, dtype=torch.float64)
        assert torch.equal(flow.exact().fields()[0].Q, flow.kappa * eye)  # the number of the state dict, not rounded


@pytest.mark.parametrize("shared", [True, False])
def test_the_log_norm_of_a_wide_field_is_worked_out_once(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of the ODE and that of an Euler step ask the same field."""
    asked: list[int] = []
    monkeypatch.setattr(field, "upper_bound", lambda J, **k: asked.append(len(J)) or upper_bound(J, **k))
    flow = ResNet(12, 3, Euler(), step=0.1, shared=shared)
    bounds = flow.certificate()
    assert len(asked) == (1 if shared else 3)
    logs = [0.1 * each.lognorm() for each in flow.exact().fields()]
    assert bounds["flow_ode"] == pytest.approx(math.exp(sum(logs)), rel=1e-12)


EXTREMES: dict[str, Callable[[], Flow]] = {
    "imex": lambda: CHNode(4, 1, IMEX(), step=1e160),
    "euler": lambda: CHNode(4, 1, Euler(), step=1e160),
    "rk4": lambda: CHNode(4, 1, RK4(), step=1e160),
    "implicit midpoint": lambda: HDNN(4, 1, ImplicitMidpoint(), step=1e160),
    "kappa": lambda: CHNode(4, 1, ETD(), kappa=1e100, step=0.1),
    "init_std": lambda: ResNet(4, 1, Euler(), init_std=1e20),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_values_are_certified_at_a_number_or_infinity(name: str) -> None:
    torch.manual_seed(1)
    found = EXTREMES[name]().certificate()
    assert all(bound >= 0 for bound in found.values())  # not nan, and no OverflowError

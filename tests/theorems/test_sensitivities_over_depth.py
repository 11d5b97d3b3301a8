"""Sensitivities over many layers and gradients of the parameters, from both sides (docs/theory.md, section 25)."""

import math
from collections.abc import Callable

import pytest
import torch
from problems import KINDS, eye, norm2, randn, skew_matrix
from torch import Tensor

from robode.families.hdnn import HDNN
from robode.families.residual import Plain, Residual
from robode.integrators.euler import Euler
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.ode.flow import Flow
from robode.ode.sensitivity import bsm_norms, parameter_gradients

FLOWS: dict[str, Callable[[], Flow]] = {
    "hdnn symplectic": lambda: HDNN(4, 5, SymplecticEuler(), step=0.5, separable=True),
    "hdnn euler": lambda: HDNN(4, 5, Euler(), step=0.5),
    "residual": lambda: Residual(4, 5, Euler(), hidden=3),
    "residual shared": lambda: Residual(4, 5, Euler(), step=0.3, shared=True),
    "plain": lambda: Plain(4, 5, Euler()),
}


def made(name: str, seed: int = 0) -> Flow:
    torch.manual_seed(seed)
    return FLOWS[name]().double()


def rotation(angle: float) -> Tensor:
    """exp(angle J) with the canonical J of R^2."""
    return math.cos(angle) * eye(2) + math.sin(angle) * skew_matrix("canonical", 2)


# ---- gradients of the parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_the_parts_of_the_layers_add_up_to_the_gradient_of_the_loss(name: str) -> None:
    """Where layers have parameters of their own, each norm is that of autograd's gradient by them."""
    flow, y, slope = made(name), randn(1, 4, seed=1), randn(4, seed=2)
    found = parameter_gradients(flow, y, slope)
    whole = torch.autograd.grad((flow(y)[0] * slope).sum(), list(flow.parameters()))
    if getattr(flow, "shared", False):
        assert float(found.norms.sum()) >= float(torch.cat([each.flatten() for each in whole]).norm())
        return
    by_layer = torch.stack([torch.cat([each[j].flatten() for each in whole]).norm() for j in range(flow.depth)])
    torch.testing.assert_close(found.norms, by_layer, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_no_gradient_exceeds_the_product_of_the_three_norms(name: str) -> None:
    for seed in range(5):
        found = parameter_gradients(made(name, seed), 2 * randn(1, 4, seed=seed), randn(4, seed=seed + 9))
        assert bool((found.norms <= found.bounds * (1 + 1e-9)).all())


def test_the_product_is_attained_where_a_state_is_one_number() -> None:
    torch.manual_seed(0)
    found = parameter_gradients(Residual(1, 6, Euler(), hidden=3).double(), randn(1, 1, seed=1), randn(1, seed=2))
    torch.testing.assert_close(found.norms, found.bounds, rtol=1e-10, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_symplectic_layers_keep_every_gradient_above_the_reciprocal_norm(seed: int) -> None:
    """||dL/d theta_j|| >= ||dL/dy_N|| sigma_min(d phi_j/d theta_j) / ||dy_N/dy_j||: singular values come in pairs
    s, 1/s. The smallest one of d phi_j/d theta_j is at least the step's share of the biases, worked out here."""
    flow, y, slope = made("hdnn symplectic", seed), randn(1, 4, seed=seed), randn(4, seed=seed + 5)
    found, bsm = parameter_gradients(flow, y, slope), bsm_norms(flow, y).norms[:, 0]
    behind = torch.cat([bsm[1:], torch.ones(1, dtype=torch.float64)])
    with torch.no_grad():
        states = flow.states(y)
    for j, (state, after) in enumerate(zip(states, states[1:], strict=False)):

        def of_biases(b: Tensor, j: int = j, state: Tensor = state) -> Tensor:
            return step_with_biases(flow, j, b, state)

        torch.testing.assert_close(of_biases(flow.b[j].detach()), after[0])
        by_bias = torch.autograd.functional.jacobian(of_biases, flow.b[j].detach()).reshape(4, 4)
        smallest = float(torch.linalg.svdvals(by_bias)[-1])
        assert smallest > 0
        assert float(found.norms[j]) >= float(slope.norm()) * smallest / float(behind[j]) * (1 - 1e-9)


def step_with_biases(flow: HDNN, j: int, b: Tensor, state: Tensor) -> Tensor:
    """Layer j of H2 with other biases, the formulas written here. state: (1, 4) -> (4,)"""
    K, h = flow.K[j].detach(), float(flow.h)
    q, p = state[0, :2, None], state[0, 2:, None]
    q = q + h * K[2:, 2:].T @ torch.tanh(K[2:, 2:] @ p + b[2:])
    p = p - h * K[:2, :2].T @ torch.tanh(K[:2, :2] @ q + b[:2])
    return torch.cat([q, p])[:, 0]


# ---- sensitivities: the mean hides them, Euler keeps them, and how far they may grow --------------------------------


def test_a_mean_of_symplectic_jacobians_can_vanish() -> None:
    """R(0) and R(pi) are symplectic with norm 1, and their mean is 0."""
    pair = torch.stack([rotation(0.0), rotation(math.pi)])
    J = skew_matrix("canonical", 2)
    assert float((pair.mT @ J @ pair - J).abs().max()) <= 1e-15 and norm2(pair) == pytest.approx(1)
    assert norm2(pair.mean(0)) <= 1e-15


def test_the_mean_of_a_symplectic_network_is_below_every_sample() -> None:
    """The norm of the batch's mean Jacobian, which is often what is plotted, says nothing of a single sample."""
    torch.manual_seed(1)
    flow = HDNN(4, 24, SymplecticEuler(), step=0.5, separable=True).double()
    bsm = bsm_norms(flow, 2 * randn(400, 4, seed=1))
    assert float(bsm.norms.min()) >= 1
    assert float(bsm.norm_of_mean[0]) < float(bsm.norms[0].min())
    assert float(bsm.norm_of_mean[0]) < 0.2 * float(bsm.norms[0].median())


@pytest.mark.parametrize("J", [*KINDS])
@pytest.mark.parametrize("h", [0.05, 0.5, 3.0])
def test_forward_euler_never_shrinks_volumes(J: str, h: float) -> None:
    """det(I + h J S) = prod (1 + h^2 mu_k^2) >= 1 for S >= 0, mu_k the frequencies of S^(1/2) J S^(1/2)."""
    for seed in range(20):
        A = randn(4, 3 if seed % 2 else 4, seed=seed)  # singular ones too
        S, skew = A @ A.T, skew_matrix(J, 4, seed)
        found = float(torch.linalg.det(eye(4) + h * skew @ S))
        root = torch.linalg.eigh(S)
        half = root.eigenvectors @ torch.diag(root.eigenvalues.clamp_min(0).sqrt()) @ root.eigenvectors.T
        mu = torch.linalg.eigvals(half @ skew @ half).imag
        expected = float((1 + (h * mu) ** 2).prod().sqrt())
        assert found == pytest.approx(expected, rel=1e-6) and found >= 1 - 1e-9


@pytest.mark.parametrize(("J", "step"), [("canonical", 0.5), ("j2", 0.1), ("canonical", 0.02)])
def test_forward_euler_keeps_every_sensitivity_at_least_one_too(J: str, step: float) -> None:
    torch.manual_seed(2)
    flow = HDNN(4, 64, Euler(), step=step, J=J).double()
    bsm = bsm_norms(flow, 2 * randn(100, 4, seed=3))
    assert float(bsm.norms.min()) >= 1 - 1e-9 and float(bsm.step_norms.min()) >= 1 - 1e-9
    for A in flow.step_jacobians(2 * randn(100, 4, seed=3)):
        assert float(torch.linalg.det(A.detach()).min()) >= 1 - 1e-9


def test_the_solution_grows_no_faster_than_half_the_spread_of_the_hessian() -> None:
    """||BSM|| <= exp(h sum ||J|| (M_j - m_j)/2) for the ODE; the two-dimensional shear of one pendulum comes near."""
    torch.manual_seed(4)
    flow = HDNN(4, 5, Euler(), step=0.2).double()
    m, M = flow.hessian_bounds()
    bound = math.exp(float((flow.h * flow.skew.norm * (M - m) / 2).sum()))
    fine = HDNN(4, 5 * 200, Euler(), step=0.001).double()
    fine.K.data, fine.b.data = (each.data.repeat_interleave(200, 0) for each in (flow.K, flow.b))
    found = float(bsm_norms(fine, randn(50, 4, seed=5)).norms[0].max())
    assert 1 < found <= bound * 1.01
    # attained to first order in the time: H = q^2 S/2 has the Jacobian J diag(S, 0), a shear of norm 1 + t S/2 + O(t^2)
    t, S = 1e-3, 2.0
    shear = eye(2) + t * skew_matrix("canonical", 2) @ torch.diag(torch.tensor([S, 0.0], dtype=torch.float64))
    assert math.exp(0.99 * t * S / 2) <= norm2(shear) <= math.exp(t * S / 2)

"""Theorem 1 of the CH-NODE paper: with gamma >= (11) the ODE contracts, and gamma_min is necessary."""

import math

import pytest
import torch
from problems import (
    KINDS,
    eye,
    field_with_hessian,
    norm2,
    randn,
    random_field,
    reflection,
    rk4,
    skew_matrix,
    smallest_gamma,
    tanh_gradient,
)
from torch import Tensor

from robode.families.chnode import CHNode
from robode.families.gamma import contraction, gamma_of
from robode.integrators.etd import ETD
from robode.ode import bounds

CLASSES = [(0.04, 1.3), (4e-4, 25.0), (0.5, 0.9)]


def lmi_19(J: Tensor, gamma: float, alpha_squared: float, epsilon: float) -> float:
    """Largest eigenvalue of the matrix in (19) with P = nu I, nu = gamma / (gamma^2 + ||J||^2)."""
    n = J.shape[0]
    PF = gamma / (gamma**2 + norm2(J) ** 2) * (J - gamma * eye(n))
    corner = PF + PF.T + (alpha_squared + epsilon) * eye(n)
    return float(torch.linalg.eigvalsh(torch.cat([torch.cat([corner, PF], 1), torch.cat([PF.T, -eye(n)], 1)]))[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c1", "c2"), CLASSES)
def test_lmi_19_holds_exactly_from_gamma_min_on(kind: str, c1: float, c2: float) -> None:
    J = skew_matrix(kind, 4, seed=3)
    alpha_squared = ((c2 - c1) / (c2 + c1)) ** 2
    gamma_min = bounds.gamma_min(c1, c2, norm2(J))
    assert gamma_min == pytest.approx(smallest_gamma(c1, c2, J), rel=1e-12)
    assert lmi_19(J, gamma_min, alpha_squared, 0.0) <= 1e-12
    assert lmi_19(J, 1.5 * gamma_min, alpha_squared, 0.0) <= 1e-12
    assert lmi_19(J, 0.99 * gamma_min, alpha_squared, 0.0) > 1e-7 * (1 - alpha_squared)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c1", "c2"), CLASSES)
def test_lmi_19_holds_at_the_rules_gamma_with_its_epsilon(kind: str, c1: float, c2: float) -> None:
    J = skew_matrix(kind, 4, seed=5)
    gamma = float(gamma_of("theorem1", c1, c2, norm2(J), eta=0.3))
    facts = contraction(c1, c2, gamma, norm2(J))
    assert facts["epsilon"] == pytest.approx(0.3 * (1 - facts["alpha"] ** 2), rel=1e-9)
    assert lmi_19(J, gamma, facts["alpha"] ** 2, facts["epsilon"]) <= 1e-12
    assert lmi_19(J, gamma, facts["alpha"] ** 2, 1.01 * facts["epsilon"]) > 0  # epsilon is the largest one possible


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c1", "c2"), CLASSES)
def test_the_logarithmic_norm_changes_sign_at_gamma_min(kind: str, c1: float, c2: float) -> None:
    omega = norm2(skew_matrix(kind, 4, seed=7))
    gamma_min = bounds.gamma_min(c1, c2, omega)
    at, above, below = (bounds.lognorm(c1, c2, s * gamma_min, omega) for s in (1.0, 1.001, 0.999))
    assert abs(at) <= 1e-12 * c2 * omega
    assert above < 0 < below


@pytest.mark.parametrize("seed", range(4))
def test_two_trajectories_approach_each_other_at_least_at_the_printed_rate(seed: int) -> None:
    torch.manual_seed(seed)
    flow = CHNode(4, 1, ETD(), eta=0.5, J=("canonical", "j2")[seed % 2]).double()
    field, facts = flow.bind()[0][0], flow.properties()
    y, T = 3 * randn(4, 40, seed=seed), 1.5
    F = field.skew.J - facts["gamma"] * eye(4)
    with torch.no_grad():
        z = rk4(lambda x: F @ tanh_gradient(field, x), y, T, 1000)
    ratio = ((z[:, :20] - z[:, 20:]).norm(dim=0) / (y[:, :20] - y[:, 20:]).norm(dim=0)).max()
    assert facts["rho"] > 0
    assert float(ratio) <= math.exp(-facts["rho"] / 2 * T) * (1 + 1e-9)
    assert float(ratio) <= math.exp(T * field.lognorm()) * (1 + 1e-9)
    assert field.lognorm() <= -facts["rho"] / 2 * (1 - 1e-9)  # robode's certificate is the better one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 4, 8])
def test_gamma_min_is_necessary(kind: str, n: int) -> None:
    """Below gamma_min some potential of the class, here of the tanh form, expands: two solutions separate."""
    c1, c2 = 0.2, 3.0
    J = skew_matrix(kind, n, seed=n)
    gamma, c, r = 0.95 * smallest_gamma(c1, c2, J), 0.5 * (c1 + c2), 0.5 * (c2 - c1)
    F = J - gamma * eye(n)
    d = torch.linalg.svd(J).Vh[0]  # in the plane of the largest frequency, where ||F^T d|| = ||F||
    w = F.T @ d / (F.T @ d).norm()
    field = field_with_hessian(c * eye(n) + r * reflection(d, w), c1, J, gamma, c)
    m, M = field.hessian_bounds()
    assert m >= c1 * (1 - 1e-9) and M <= c2 * (1 + 1e-9)
    start = 1e-4 * d[:, None]
    end = rk4(lambda x: F @ tanh_gradient(field, x), start, 1e-3, 10)
    assert float(end.norm()) > float(start.norm()) * (1 + 1e-6)
    predicted = bounds.lognorm(c1, c2, gamma, norm2(J))
    assert field.lognorm() == pytest.approx(predicted, rel=1e-6)
    assert math.log(float(end.norm() / start.norm())) / 1e-3 == pytest.approx(predicted, rel=0.05)


def test_early_stopping_leaves_a_contractive_ode_only_after_the_update() -> None:
    torch.manual_seed(0)
    flow = CHNode(4, 2, ETD())
    assert flow.certificate()["flow_ode"] < 1
    with torch.no_grad():
        flow.K.mul_(4)
    field = max(flow.exact().bind()[0], key=lambda f: f.lognorm())
    assert field.lognorm() > 0
    flow.project_()
    assert flow.certificate()["flow_ode"] < 1


def test_a_random_field_below_gamma_min_is_not_certified() -> None:
    field = random_field(4, seed=2, gamma=0.0, kappa=0.3)
    assert field.lognorm() > 0

"""h*: explicit Euler is nonexpansive for every potential of the class exactly up to this step
(docs/theory.md, section 7)."""

import math
from fractions import Fraction

import pytest
import torch
from problems import KINDS, eye, field_with_hessian, norm2, skew_matrix, smallest_gamma, worst_hessian

from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.ode import bounds

CLASSES = [(0.2, 2.0), (4e-4, 1.0)]


def class_constant(m: float, M: float, gamma: float, omega: float, h: float) -> float:
    """sqrt(1 - 2 h c gamma + h^2 c^2 rho^2) + h r rho, written out."""
    c, r, rho = 0.5 * (M + m), 0.5 * (M - m), math.hypot(gamma, omega)
    return math.sqrt(1 - 2 * h * c * gamma + (h * c * rho) ** 2) + h * r * rho


def printed_h_star(m: float, M: float, gamma: float, omega: float) -> float:
    rho = math.hypot(gamma, omega)
    return ((M + m) * gamma - (M - m) * rho) / (m * M * rho**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize(("m", "M"), CLASSES)
def test_euler_crosses_one_exactly_at_h_star(kind: str, n: int, m: float, M: float) -> None:
    J = skew_matrix(kind, n, seed=n)
    gamma, c = math.sqrt(3) * smallest_gamma(m, M, J), 0.5 * (m + M)
    h_star = bounds.h_star(m, M, gamma, norm2(J))
    assert h_star == pytest.approx(printed_h_star(m, M, gamma, norm2(J)), rel=1e-6)
    for factor in (0.5, 0.999, 1.001, 3.0):
        h = factor * h_star
        S = worst_hessian(m, M, h * (J - gamma * eye(n)))
        measured = norm2(eye(n) + h * (J - gamma * eye(n)) @ S)
        field = field_with_hessian(S, m, J, gamma, c)
        certified = Euler().step(field, 0.0, h).lipschitz()
        predicted = class_constant(m, M, gamma, norm2(J), h)
        assert measured == pytest.approx(predicted, rel=1e-6)  # the constant is attained: it is sharp
        assert certified == pytest.approx(measured, rel=1e-6)
        assert (measured > 1) == (certified > 1) == (factor > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_below_gamma_min_no_step_is_small_enough(kind: str) -> None:
    m, M = 0.2, 2.0
    J = skew_matrix(kind, 4, seed=1)
    gamma = 0.95 * smallest_gamma(m, M, J)
    assert bounds.h_star(m, M, gamma, norm2(J)) == 0
    for h in (1e-4, 1e-3, 1e-2, 0.1, 1.0):
        G = h * (J - gamma * eye(4))
        assert norm2(eye(4) + G @ worst_hessian(m, M, G)) > 1


def test_special_cases() -> None:
    assert bounds.h_star(0.5, 2.0, 3.0, 0.0) == pytest.approx(2 / (3 * 2))  # J = 0: gradient descent
    assert bounds.h_star(0.0, 2.0, 3.0, 0.0) == pytest.approx(2 / (3 * 2))
    assert bounds.h_star(2.0, 2.0, 3.0, 1.0) == pytest.approx(2 * 3 / (2 * 10))  # linear field
    assert bounds.h_star(0.0, 2.0, 3.0, 1.0) == 0.0  # kappa = 0 and J != 0: impossible
    assert bounds.h_star(0.2, 2.0, bounds.gamma_min(0.2, 2.0, 1.0), 1.0) == pytest.approx(0, abs=1e-12)
    gamma = bounds.gamma_min(4e-4, 1.0, 1.0) * math.sqrt(3)
    assert bounds.h_star(4e-4, 1.0, gamma, 1.0) == pytest.approx(0.031, rel=0.02)


def test_h_star_keeps_its_digits_where_the_printed_formula_cancels() -> None:
    """gamma just above gamma_min at M/m = 1e10: the printed numerator is a difference of nearly equal numbers."""
    m, M, s = Fraction(1, 10**8), Fraction(100), Fraction(10001, 10000)
    gamma_squared = s**2 * (M - m) ** 2 / (4 * m * M)  # omega = 1
    rho_squared = gamma_squared + 1
    # h* = 2 (c gamma - r rho) / (m M rho^2), with c gamma - r rho = (m M gamma^2 - r^2) / (c gamma + r rho)
    numerator = m * M * gamma_squared - ((M - m) / 2) ** 2
    gamma, rho = math.sqrt(gamma_squared), math.sqrt(rho_squared)
    nu = float(numerator) / (float(M + m) / 2 * gamma + float(M - m) / 2 * rho)
    exact = 2 * nu / float(m * M) / float(rho_squared)
    assert bounds.h_star(float(m), float(M), gamma, 1.0) == pytest.approx(exact, rel=1e-8)


def test_the_published_settings_are_far_beyond_h_star() -> None:
    """kappa = 4e-4, ||K|| = 1: h* = 1.8e-4 for the script's gamma, and h = 0.5 multiplies by 11.5 (section 7)."""
    m, M = 4e-4, 1 + 4e-4
    gamma = 1 / math.sqrt(1 - ((M - m) / (M + m)) ** 2 - 1e-6)
    assert bounds.h_star(m, M, gamma, 1.0) == pytest.approx(1.8e-4, rel=0.1)
    multipliers = [complex(-0.5 * gamma, 0.5)]
    assert bounds.one_step_lipschitz(m, M, multipliers) == pytest.approx(11.5, rel=0.02)


@pytest.mark.parametrize("J", ["canonical", "j2"])
def test_factor_sqrt_3_with_an_automatic_step_runs_just_inside_h_star(J: str) -> None:
    """model.gamma=factor model.factor=1.732 step=auto: T = N h*, after any change of the weights, from both sides."""
    torch.manual_seed(2)
    flow = CHNode(4, 3, Euler(), kappa=0.05, gamma="factor", factor=math.sqrt(3), J=J)
    for scale in (1.0, 2.5, 0.6):
        with torch.no_grad():
            flow.K.mul_(scale)
        flow.project_()
        p = flow.properties()
        assert p["gamma"] == pytest.approx(math.sqrt(3) * p["gamma_min"], rel=1e-6)
        assert 0.99 * p["h_star"] < p["h"] < p["h_star"] and flow.certificate()["flow_discrete"] <= 1
        F = flow.skew.J - p["gamma"] * eye(4)
        for h, expands in ((p["h"], False), (1.001 * p["h_star"], True)):
            S = worst_hessian(p["c1"], p["c2"], h * F)
            assert (norm2(eye(4) + h * F @ S) > 1) == expands


@pytest.mark.parametrize("ratio", [26, 1e3, 1e6])
def test_sqrt_3_gives_euler_its_longest_steps(ratio: float) -> None:
    """Within 1 % of the best factor for M/m >= 26; the published rules (just above gamma_min) give far shorter ones."""
    m, M, omega = 0.3, 0.3 * ratio, 1.7

    def longest(s: float) -> float:
        return float(bounds.h_star(m, M, s * bounds.gamma_min(m, M, omega), omega))

    best = max(longest(1 + 0.01 * k) for k in range(1, 500))
    assert longest(math.sqrt(3)) >= 0.99 * best
    assert max(longest(1.1), longest(6.0)) < 0.5 * best


@pytest.mark.parametrize("J", ["canonical", "j2"])
def test_factor_1_is_gamma_min_itself(J: str) -> None:
    """etd does not expand there, whatever rounding does to kappa; explicit methods have h* = 0, hence no auto step."""
    torch.manual_seed(0)
    for kappa in (4e-4, 0.1, 0.3):
        flow = CHNode(4, 3, ETD(), gamma="factor", factor=1, kappa=kappa, J=J, step=0.2)
        p = flow.properties()
        assert p["gamma"] == pytest.approx(p["gamma_min"], rel=2e-7) and p["gamma"] > p["gamma_min"]
        assert flow.certificate()["flow_discrete"] <= 1 and flow.certificate()["flow_ode"] <= 1
    for integrator in (Euler(), Euler("auto"), RK4()):
        with pytest.raises(BadInput, match="step: .*model.gamma=factor"):
            CHNode(4, 3, integrator, gamma="factor", factor=1, J=J)

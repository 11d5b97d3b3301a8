"""etd (centred exponential Euler) is nonexpansive, for any step, exactly when gamma >= gamma_min
(docs/theory.md, section 8)."""

import math
from dataclasses import replace

import pytest
import torch
from problems import eye, field_with_hessian, norm2, skew_matrix, smallest_gamma
from unconditional import RATIOS, problems

from robode.integrators.etd import ETD
from robode.linalg.skew import Skew


@pytest.mark.parametrize("ratio", RATIOS)
def test_it_is_nonexpansive_and_the_bound_holds_against_the_worst_potential(ratio: float) -> None:
    for problem in problems(ratio, count=45):
        bound, certified, measured = problem.attack(ETD())
        assert bound <= 1 + 1e-9, problem
        assert measured <= certified * (1 + 1e-9) <= bound * (1 + 1e-8), problem


def test_the_bound_is_attained() -> None:
    """Both sides: on every problem the adversary reaches the class bound."""
    for problem in problems(1.5, count=30):
        bound, _, measured = problem.attack(ETD())
        assert measured >= 0.9999 * bound, problem


def test_below_gamma_min_it_is_not_nonexpansive() -> None:
    found = [problem.attack(ETD()) for problem in problems(0.9, count=30)]
    assert max(measured for *_, measured in found) > 1 + 1e-4
    assert all(measured <= bound * (1 + 1e-9) for bound, _, measured in found)


def test_single_frequency_formula() -> None:
    """Lip = e^(-h c gamma) + alpha |e^(h c lambda) - 1| <= 1 - (1 - alpha rho/gamma)(1 - e^(-hc gamma))."""
    for problem in problems(1.5, count=20, kinds=("canonical",)):
        c, gamma, h = problem.c, problem.gamma, problem.h
        alpha, omega = (problem.M - problem.m) / (problem.M + problem.m), norm2(problem.J)
        z = h * c * complex(-gamma, omega)
        decay = math.exp(-h * c * gamma)
        e = complex(decay * math.cos(z.imag), decay * math.sin(z.imag))
        exact = decay + alpha * abs(e - 1)
        assert problem.attack(ETD())[0] == pytest.approx(exact, rel=1e-9)
        assert exact <= 1 - (1 - alpha * math.hypot(gamma, omega) / gamma) * (1 - decay) + 1e-12


@pytest.mark.parametrize(("kind", "n"), [("canonical", 4), ("j2", 3), ("j2", 6), ("random", 5), ("random", 8)])
@pytest.mark.parametrize("h", [1e-9, 1e-3, 0.3, 20.0])
def test_gains_are_the_matrix_exponential(kind: str, n: int, h: float) -> None:
    """(exp(h c F) - I)/c, by floats and by tensors that carry gradients."""
    J, m, M = skew_matrix(kind, n, seed=n), 0.2, 3.0
    gamma, c = 1.5 * smallest_gamma(m, M, J), 0.5 * (m + M)
    F = J - gamma * eye(n)
    expected = (torch.linalg.matrix_exp(h * c * F) - eye(n)) / c
    flat = field_with_hessian(c * eye(n), m, J, gamma, c)
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (gamma, c))
    for field in (flat, replace(flat, gamma=a, c=b)):
        G = Skew(J).function(ETD().multipliers(field, h), torch.float64)
        torch.testing.assert_close(G, expected, rtol=1e-9, atol=3e-11)  # matrix_exp's own error


def test_small_steps_lose_no_digits() -> None:
    J = skew_matrix("canonical", 2)
    field = field_with_hessian(eye(2), 0.5, J, 0.7, 1.0)
    (re, im), h = ETD().multipliers(field, 1e-12)[0], 1e-12
    assert re / h == pytest.approx(-0.7, rel=1e-9) and im / h == pytest.approx(1.0, rel=1e-9)


def test_an_overestimate_of_the_largest_curvature_is_safe() -> None:
    """The differentiable rule uses an upper bound of ||K||^2 in gamma and c; the true class is then a smaller one."""
    for problem in problems(1.0, count=20):
        smaller = replace(problem, M=0.5 * (problem.m + problem.M))
        bound, _, measured = smaller.attack(ETD())
        assert measured <= bound * (1 + 1e-9) and bound <= 1 + 1e-9, smaller

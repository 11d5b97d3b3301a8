"""imex (centred implicit-explicit Euler) is nonexpansive, for any step, exactly when gamma >= gamma_min
(docs/theory.md, section 8)."""

import math
from dataclasses import replace

import pytest
import torch
from problems import eye, field_with_hessian, norm2, skew_matrix, smallest_gamma
from unconditional import RATIOS, problems

from robode.integrators.imex import IMEX
from robode.linalg.skew import Skew


@pytest.mark.parametrize("ratio", RATIOS)
def test_it_is_nonexpansive_and_the_bound_holds_against_the_worst_potential(ratio: float) -> None:
    for problem in problems(ratio, count=45):
        bound, certified, measured = problem.attack(IMEX())
        assert bound <= 1 + 1e-9, problem
        assert measured <= certified * (1 + 1e-9) <= bound * (1 + 1e-8), problem


def test_the_bound_is_attained() -> None:
    for problem in problems(1.5, count=30):
        bound, _, measured = problem.attack(IMEX())
        assert measured >= 0.9999 * bound, problem


def test_below_gamma_min_it_is_not_nonexpansive() -> None:
    found = [problem.attack(IMEX()) for problem in problems(0.9, count=30)]
    assert max(measured for *_, measured in found) > 1 + 1e-4
    assert all(measured <= bound * (1 + 1e-9) for bound, _, measured in found)


def test_single_frequency_formula() -> None:
    """Lip = (1 + h r rho) / sqrt(1 + 2 h c gamma + h^2 c^2 rho^2)."""
    for problem in problems(1.5, count=20, kinds=("canonical",)):
        r, rho = 0.5 * (problem.M - problem.m), math.hypot(problem.gamma, norm2(problem.J))
        hc = problem.h * problem.c
        exact = (1 + problem.h * r * rho) / math.sqrt(1 + 2 * hc * problem.gamma + (hc * rho) ** 2)
        assert problem.attack(IMEX())[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("kind", "n"), [("canonical", 4), ("j2", 3), ("j2", 6), ("random", 5), ("random", 8)])
@pytest.mark.parametrize("h", [1e-9, 1e-3, 0.3, 1e4])
def test_gains_are_the_resolvent(kind: str, n: int, h: float) -> None:
    """h (I - h c F)^-1 F, by floats and by tensors that carry gradients."""
    J, m, M = skew_matrix(kind, n, seed=n), 0.2, 3.0
    gamma, c = 1.5 * smallest_gamma(m, M, J), 0.5 * (m + M)
    F = J - gamma * eye(n)
    expected = h * torch.linalg.solve(eye(n) - h * c * F, F)
    flat = field_with_hessian(c * eye(n), m, J, gamma, c)
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (gamma, c))
    for field in (flat, replace(flat, gamma=a, c=b)):
        G = Skew(J).function(IMEX().multipliers(field, h), torch.float64)
        torch.testing.assert_close(G, expected, rtol=1e-9, atol=1e-15)


def test_an_overestimate_of_the_largest_curvature_is_safe() -> None:
    for problem in problems(1.0, count=20):
        smaller = replace(problem, M=0.5 * (problem.m + problem.M))
        bound, _, measured = smaller.attack(IMEX())
        assert measured <= bound * (1 + 1e-9) and bound <= 1 + 1e-9, smaller

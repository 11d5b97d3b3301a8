"""The order of every integrator, against expm on a linear field and a fine reference on a nonlinear one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from problems import eye, norm2, randn, random_field, rk4, skew_matrix, smallest_gamma
from torch import Tensor
from torchdiffeq import odeint

from robode.errors import BadInput, JobFailed
from robode.families.node import MLPField
from robode.integrators.adaptive import Dopri5
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4, RK38, ExplicitRungeKutta, Midpoint
from robode.integrators.symplectic_euler import Shears, SymplecticEuler
from robode.integrators.verlet import Verlet
from robode.linalg.activations import named_activation
from robode.ode import bounds
from robode.ode.bounds import Scalar
from robode.ode.field import GradientField, OneLayerField, VectorField

EXACT_MIDPOINT = ImplicitMidpoint(tolerance=1e-13)
METHODS: list[tuple[Integrator, int]] = [
    (Euler(), 1), (ETD(), 1), (IMEX(), 1), (SymplecticEuler(), 1), (Verlet(), 2), (Midpoint(), 2), (EXACT_MIDPOINT, 2),
    (RK4(), 4), (RK38(), 4),
]  # fmt: skip
START = randn(4, 3, seed=4)
STEPS = {1: (200, 800), 2: (50, 200), 4: (25, 100)}  # fine enough for the leading error term, by order


def separable(linear: bool) -> GradientField:
    """A Hamiltonian field without damping whose potential splits into q and p."""
    field = random_field(4, seed=1, gamma=0.0, kappa=0.0, scale=0.0 if linear else 0.7)
    K = torch.block_diag(field.K[:2, :2], field.K[2:, 2:])
    Q = torch.block_diag(*(A @ A.T + 0.5 * eye(2) for A in (randn(2, 2, seed=2), randn(2, 2, seed=3))))
    return replace(field, K=K, Q=Q if linear else 0.0 * Q, partitioned=True)


def damped(linear: bool) -> GradientField:
    field = random_field(4, seed=1, J=skew_matrix("j2", 4), gamma=0.8, scale=0.0 if linear else 0.6)
    A = 0.5 * randn(4, 4, seed=2)
    return replace(field, Q=A @ A.T + 0.5 * eye(4), c=0.9)


@dataclass(frozen=True)
class Growing(VectorField):
    """(1 + t^2) times another field."""

    field: VectorField
    autonomous: ClassVar[bool] = False

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return (1 + t**2) * self.field(t, y)

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        return (1 + t**2) * self.field.jacobian(t, y)


@functools.cache
def finely_solved(which: Callable[[bool], GradientField]) -> Tensor:
    """The solution of the nonlinear field at t = 1 from `START`; 20 times finer than RK4's finest steps below."""
    field = which(False)
    return rk4(lambda x: field(0.0, x), START, 1.0, 2000)


def error_slope(method: Integrator, field: GradientField, exact: Tensor, y: Tensor) -> float:
    errors = []
    for steps in STEPS[method.order]:
        z = y
        for _ in range(steps):
            z = method.step(field, 0.0, 1.0 / steps)(z)
        errors.append(float((z - exact).norm()))
    return math.log(errors[0] / errors[1]) / math.log(4)


@pytest.mark.parametrize(("method", "order"), METHODS, ids=lambda x: getattr(x, "name", str(x)))
@pytest.mark.parametrize("linear", [True, False])
def test_order(method: Integrator, order: int, linear: bool) -> None:
    which = separable if isinstance(method, Shears) else damped
    field = which(linear)
    method.check(field)
    if linear:
        exact = torch.linalg.matrix_exp((field.skew.J - field.gamma * eye(4)) @ field.Q) @ START
    else:
        exact = finely_solved(which)
    assert method.order == order
    assert error_slope(method, field, exact, START) == pytest.approx(order, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("linear", [True, False])
def test_dopri5_follows_its_tolerance(linear: bool) -> None:
    field, y = damped(linear), START
    exact = rk4(lambda x: field(0.0, x), y, 1.0, 2000)
    errors = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        z = Dopri5(rtol=tolerance, atol=tolerance).step(field, 0.0, 1.0)(y)
        errors.append(float((z - exact).abs().max()))
        assert errors[-1] <= 20 * tolerance * float(y.abs().max())
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("h", [0.01, 1.0, 100.0])
def test_etd_is_exact_where_the_hessian_is_c(h: float) -> None:
    """For Hess V = c I the scheme is the exact solution, for any step."""
    field = replace(damped(True), Q=0.9 * eye(4))
    y = randn(4, 3, seed=4)
    exact = torch.linalg.matrix_exp(h * 0.9 * (field.skew.J - 0.8 * eye(4))) @ y
    torch.testing.assert_close(ETD().step(field, 0.0, h)(y), exact, rtol=1e-8, atol=1e-10)


ANY_FIELD = [Euler(), Midpoint(), RK4(), RK38(), EXACT_MIDPOINT, Dopri5(rtol=1e-8, atol=1e-8)]


@pytest.mark.parametrize("method", ANY_FIELD, ids=lambda m: m.name)
def test_jacobians_are_autograds_on_every_kind_of_field(method: Integrator) -> None:
    tanh = named_activation("tanh")
    one = OneLayerField(randn(3, 3, seed=1), randn(3, 1, seed=2), tanh)
    mlp = MLPField([randn(5, 3, seed=3), randn(3, 5, seed=4)], [randn(5, 1, seed=5), randn(3, 1, seed=6)], tanh)
    for field in (one, mlp, random_field(4, seed=7)):
        y = randn(4 if isinstance(field, GradientField) else 3, 2, seed=8)
        got = method.step(field, 0.0, 0.1).jacobian(y).detach()
        expected = torch.autograd.functional.jacobian(lambda x, f=field: method.step(f, 0.0, 0.1)(x), y)
        for m in range(2):
            torch.testing.assert_close(got[m], expected[:, m, :, m], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", [Midpoint(), RK4(), RK38(), ImplicitMidpoint(tolerance=1e-11)], ids=lambda m: m.name)
def test_runge_kutta_bounds_hold_on_random_fields(method: Integrator) -> None:
    tanh = named_activation("tanh")
    for seed in range(6):
        J = skew_matrix("random", 3, seed=seed)
        field = random_field(3, seed, J=J, gamma=(0.0, 1.0, 5.0)[seed % 3], scale=0.5)
        one = OneLayerField(randn(3, 3, seed=seed), randn(3, 1, seed=2), tanh)
        y = randn(3, 500, seed=seed) * torch.logspace(-1, 1, 500, dtype=torch.float64)
        for f in (field, one):
            for h in (0.01, 0.2):
                assert norm2(method.step(f, 0.0, h).jacobian(y)) <= method.step(f, 0.0, h).lipschitz() * (1 + 1e-7)


@pytest.mark.parametrize("method", [RK4(), RK38()], ids=lambda method: method.name)
@pytest.mark.parametrize("seed", range(4))
def test_rk4_and_rk38_are_nonexpansive_within_their_circles(method: ExplicitRungeKutta, seed: int) -> None:
    """Euler at h/circle nonexpansive implies the method nonexpansive: the bound is 1 there, and larger steps do
    expand."""
    K = 0.8 * randn(3, 3, seed=seed)
    J, kappa = skew_matrix("random", 3, seed=seed), 0.2
    gamma = 1.8 * smallest_gamma(kappa, kappa + norm2(K) ** 2, J)
    field = replace(random_field(3, seed, J=J, gamma=gamma, kappa=kappa), K=K)
    m, M = field.hessian_bounds()
    h = 0.999 * method.circle * bounds.h_star(m, M, gamma, field.skew.norm)
    assert method.step(field, 0.0, h).lipschitz() == 1.0
    y = randn(3, 2000, seed=seed) * torch.logspace(-1, 1, 2000, dtype=torch.float64)
    assert norm2(method.step(field, 0.0, h).jacobian(y)) <= 1
    assert method.step(field, 0.0, 1000 * h).lipschitz() > 1


def test_rk38_is_what_torchdiffeq_calls_rk4() -> None:
    field, y, h, steps = Growing(random_field(4, seed=1)), START, 0.25, 4
    times = torch.linspace(0, h * steps, steps + 1, dtype=torch.float64)
    expected = odeint(lambda t, z: field(t, z), y, times, method="rk4")
    for j in range(steps):
        y = RK38().step(field, j * h, h)(y)
        torch.testing.assert_close(y, expected[j + 1], rtol=1e-14, atol=1e-14)
    assert float((RK4().step(field, 0.0, h)(START) - expected[1]).abs().max()) > 1e-8, "another method"


def test_implicit_midpoint_is_nonexpansive_where_the_ode_does_not() -> None:
    field = random_field(4, seed=3, gamma=0.0, kappa=0.5)
    gamma = 1.01 * smallest_gamma(*field.hessian_bounds(), field.skew.J)
    field = replace(field, gamma=gamma)
    y = randn(4, 300, seed=5)
    for h in (0.01, 1.0, 30.0):
        bound = EXACT_MIDPOINT.step(field, 0.0, h).lipschitz()
        assert norm2(EXACT_MIDPOINT.step(field, 0.0, h).jacobian(y)) <= bound <= 1


def test_implicit_midpoint_solves_its_equation_and_says_when_it_cannot() -> None:
    field, y = random_field(4, seed=3, gamma=2.0), randn(4, 50, seed=5)
    z = EXACT_MIDPOINT.step(field, 0.0, 2.0)(y)
    torch.testing.assert_close(z, y + 2.0 * field(0.0, 0.5 * (y + z)), rtol=1e-9, atol=1e-9)
    with pytest.raises(JobFailed, match="implicit_midpoint"):
        EXACT_MIDPOINT.step(field, 0.0, 1.0)(torch.full_like(y, math.nan))


@pytest.mark.parametrize("rtol", [0.0, -1.0, math.nan])
def test_dopri5_refuses_tolerances_that_are_not_positive(rtol: float) -> None:
    with pytest.raises(BadInput, match="rtol"):
        Dopri5(rtol=rtol)


def test_gradient_methods_refuse_other_fields() -> None:
    field = OneLayerField(eye(2), torch.zeros(2, 1), named_activation("tanh"))
    for method in (ETD(), IMEX(), SymplecticEuler()):
        with pytest.raises(BadInput, match=f"integrator={method.name}"):
            method.check(field)

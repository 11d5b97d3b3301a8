"""Where explicit Euler with step R is nonexpansive, RK4 is for h <= R, the 3/8 rule for h <= (2 sqrt(3) - 3) R, and
neither need be beyond. The explicit midpoint rule need not be for any h (docs/theory.md, section 9)."""

import cmath
import math
import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import eye, norm2, randn
from torch import Tensor

from robode.integrators.runge_kutta import RK4, RK38, ExplicitRungeKutta, Midpoint
from robode.ode.bounds import Scalar, value
from robode.ode.field import VectorField


def propagated(method: ExplicitRungeKutta, h: float, maps: list[Tensor]) -> Tensor:
    """What a step makes of a difference where stage i multiplies differences by maps[i]."""
    unit, slopes = eye(len(maps[0])), list[Tensor]()
    for row, A in zip(method.a, maps, strict=True):
        slopes.append(A @ (unit + sum(h * a * K for a, K in zip(row, slopes, strict=True))))
    return unit + sum(h * w * K for w, K in zip(method.weights, slopes, strict=True))


def turn(z: complex) -> Tensor:
    """z as the map of the plane."""
    return torch.tensor([[z.real, -z.imag], [z.imag, z.real]], dtype=torch.float64)


def on_the_circle(angle: float, R: float) -> complex:
    """z with |1 + R z| = 1: Euler with step R is just nonexpansive."""
    return (cmath.exp(1j * angle) - 1) / R


@pytest.mark.parametrize(("method", "circle"), [(RK4(), 1.0), (RK38(), 2 * math.sqrt(3) - 3)], ids=["rk4", "rk38"])
def test_the_circle_is_the_largest_for_which_the_matrix_is_semidefinite(
    method: ExplicitRungeKutta, circle: float
) -> None:
    """-1/theta is the smallest eigenvalue of B^(-1/2) (B A + A^T B - b b^T) B^(-1/2)."""
    A = torch.tensor([[*row, *[0.0] * (4 - len(row))] for row in method.a], dtype=torch.float64)
    b = torch.tensor(method.weights, dtype=torch.float64)
    M = b[:, None] * A + (b[:, None] * A).T - torch.outer(b, b)
    smallest = float(torch.linalg.eigvalsh(M / (b[:, None] * b).sqrt())[0])
    assert -1 / smallest == pytest.approx(circle, rel=1e-12)
    assert circle * (1 - 1e-4) <= method.circle <= circle


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    method=st.sampled_from([RK4(), RK38()]),
    seed=st.integers(0, 10**6),
    n=st.integers(1, 4),
    share=st.floats(0.01, 1),
    R=st.floats(0.01, 100),
)
def test_rk4_and_rk38_are_nonexpansive_within_their_circles(
    method: ExplicitRungeKutta, seed: int, n: int, share: float, R: float
) -> None:
    """Each stage has a Jacobian of its own, |I + R A_i| <= 1, as stages of a nonlinear field have."""
    maps = []
    for i in range(4):
        U = torch.linalg.qr(randn(n, n, seed=seed + i)).Q if seed % 2 else randn(n, n, seed=seed + i)
        maps.append((U / max(norm2(U), 1) - eye(n)) / R)
    assert norm2(propagated(method, share * method.circle * R, maps)) <= 1 + 1e-9


@pytest.mark.parametrize("method", [RK4(), RK38()], ids=lambda method: method.name)
def test_rk4_and_rk38_need_not_be_nonexpansive_beyond_their_circles(method: ExplicitRungeKutta) -> None:
    """1.1 times the circle is too long for some stages on its edge; the circle is not, however long one looks."""
    draw = random.Random(0)
    found = {1.0: 0.0, 1.1: 0.0}
    best = [0.0] * 4
    for share in (1.1, 1.0):
        for attempt in range(4000):
            wide = 1.0 if attempt < 1000 else 0.05
            angles = [a + draw.gauss(0, wide) for a in best]
            maps = [turn(on_the_circle(a, 1.0)) for a in angles]
            size = norm2(propagated(method, share * method.circle, maps))
            if size > found[share]:
                found[share] = size
                best = angles if share == 1.1 else best
    assert found[1.1] > 1 + 1e-6 and found[1.0] <= 1 + 1e-9


@dataclass(frozen=True)
class Switching(VectorField):
    """f(t, y) = A y before time 0 and at it, B y after it."""

    A: Tensor
    B: Tensor
    autonomous: ClassVar[bool] = False

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return (self.B if value(t) > 0 else self.A) @ y

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        return (self.B if value(t) > 0 else self.A).expand(y.shape[1], -1, -1)

    def lipschitz(self) -> float:
        return max(norm2(self.A), norm2(self.B))

    def euler_lipschitz(self, h: float) -> float:
        return max(norm2(eye(2) + h * self.A), norm2(eye(2) + h * self.B))


@pytest.mark.parametrize("h", [0.01, 0.1, 0.5, 1.0])
def test_the_midpoint_rule_is_nonexpansive_at_no_step_although_euler_is(h: float) -> None:
    first = on_the_circle(math.pi / 2, 1.0)
    tilt = cmath.phase(1 + 0.5 * h * first)
    field = Switching(turn(first), turn(on_the_circle(-tilt, 1.0)))
    assert field.euler_lipschitz(1.0) <= 1 + 1e-12
    y = eye(2)
    grown = norm2(Midpoint().step(field, 0.0, h)(y))
    assert grown > 1 + 1e-3 * h**3
    assert grown <= Midpoint().step(field, 0.0, h).lipschitz()
    assert norm2(RK4().step(field, 0.0, h)(y)) <= 1 + 1e-12


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), h=st.floats(0.01, 3))
def test_the_bound_of_the_stages_holds_for_any_field(seed: int, h: float) -> None:
    field = Switching(randn(2, 2, seed=seed), randn(2, 2, seed=seed + 1))
    for method in (Midpoint(), RK4(), RK38()):
        assert norm2(method.step(field, 0.0, h)(eye(2))) <= method.step(field, 0.0, h).lipschitz() * (1 + 1e-9)

"""Explicit Runge-Kutta methods of fixed step: a method is a tableau, a name and an order.

Tableaus: Hairer, Norsett and Wanner, Solving ordinary differential equations I, II.1, Tables 1.1 and 1.2; circles of
contractivity: Dahlquist and Jeltsch, Generalized disks of contractivity for explicit and implicit Runge-Kutta methods,
1979.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robode.integrators.adjoint import WithAdjoint
from robode.integrators.integrator import SolverStep
from robode.ode.bounds import Scalar, value
from robode.ode.enclosure import Enclosure
from robode.ode.field import VectorField
from robode.ode.step import identity_like

Coefficients = tuple[float, ...]


class ExplicitRungeKutta(WithAdjoint):
    """Explicit Runge-Kutta by its tableau: a (rows below the diagonal), weights, and nodes (the row sums of a)."""

    a: tuple[Coefficients, ...]
    weights: Coefficients

    def solver_step(self, field: VectorField, t: Scalar, h: Scalar) -> RungeKuttaStep:
        return RungeKuttaStep(field, t, h, self.a, self.weights, self.circle)


@dataclass(frozen=True)
class RungeKuttaStep(SolverStep):
    """y + h sum_i w_i k_i, k_i = f(t + h sum_j a_ij, y + h sum_j a_ij k_j)."""

    a: tuple[Coefficients, ...]
    weights: Coefficients
    circle: float

    def __call__(self, y: Tensor) -> Tensor:
        h = self.h
        slopes: list[Tensor] = []
        for row in self.a:
            stage = y + sum(h * a * k for a, k in zip(row, slopes, strict=True) if a) if row else y
            slopes.append(self.field(self._at(row), stage))
        return y + sum(h * w * k for w, k in zip(self.weights, slopes, strict=True) if w)

    def _at(self, row: Coefficients) -> Scalar:
        return self.t if self.field.autonomous else self.t + self.h * sum(row)

    def jacobian(self, y: Tensor) -> Tensor:
        """The chain rule through the stages: K_i = A_i (I + h sum_j a_ij K_j), A_i = df/dy at stage i."""
        h, eye = self.h, identity_like(y)
        slopes: list[Tensor] = []
        products: list[Tensor] = []
        for row in self.a:
            stage, inner, at = y, eye, self._at(row)
            for a, k, K in zip(row, slopes, products, strict=True):
                stage, inner = (stage + h * a * k, inner + h * a * K) if a else (stage, inner)
            slopes.append(self.field(at, stage))
            products.append(self.field.jacobian(at, stage) @ inner)
        return eye + sum(h * w * K for w, K in zip(self.weights, products, strict=True) if w)

    def lipschitz(self) -> float:
        """1 inside the circle of contractivity; elsewhere the bound of the stages, vacuous but certified."""
        h = value(self.h)
        if self.circle > 0 and self.field.euler_lipschitz(h / self.circle) <= 1:
            return 1.0
        L = h * self.field.lipschitz()
        stages: list[float] = []
        for row in self.a:
            stages.append(L * (1 + sum(abs(a) * k for a, k in zip(row, stages, strict=True))))
        return 1 + sum(abs(w) * k for w, k in zip(self.weights, stages, strict=True))

    def enclose(self, z: Enclosure) -> Enclosure:
        h = value(self.h)
        slopes: list[Enclosure] = []
        for row in self.a:
            stage = z
            for a, slope in zip(row, slopes, strict=True):
                stage = stage + slope.scaled(h * a) if a else stage
            slopes.append(self.field.enclose(stage))
        for weight, slope in zip(self.weights, slopes, strict=True):
            z = z + slope.scaled(h * weight) if weight else z
        return z.absorbed()


class Midpoint(ExplicitRungeKutta):
    """Explicit midpoint rule, order 2. Its first weight is zero, so it has no circle of contractivity."""

    name, order, circle = "midpoint", 2, 0.0
    a, weights = ((), (0.5,)), (0.0, 1.0)


class RK4(ExplicitRungeKutta):
    """The classical Runge-Kutta method, order 4, circle of contractivity 1."""

    name, order, circle, contracts = "rk4", 4, 1.0, True
    a, weights = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class RK38(ExplicitRungeKutta):
    """Kutta's 3/8 rule, order 4, circle of contractivity 2 sqrt(3) - 3 (docs/theory.md, section 9). What torchdiffeq
    calls rk4."""

    name, order, circle, contracts = "rk38", 4, 0.4641, True  # rounded down
    a, weights = ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)

"""Runge-Kutta methods of higher order: explicit midpoint, rk4, and the adaptive dopri5 of torchdiffeq."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from robode.errors import BadInput
from robode.integrators.one_step import Integrator
from robode.ode.bounds import Scalar, value
from robode.ode.enclosure import Enclosure
from robode.ode.field import VectorField
from robode.ode.step import Step, identity_like

Row = tuple[float, ...]


class ExplicitRungeKutta(Integrator):
    """Explicit Runge-Kutta by its tableau: a (rows below the diagonal), weights, and nodes (the row sums of a)."""

    a: tuple[Row, ...]
    weights: Row

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        return RungeKuttaStep(field, t, h, self.a, self.weights, self.circle)


@dataclass(frozen=True)
class RungeKuttaStep(Step):
    """y + h sum_i w_i k_i, k_i = f(t + h sum_j a_ij, y + h sum_j a_ij k_j)."""

    field: VectorField
    t: Scalar
    h: Scalar
    a: tuple[Row, ...]
    weights: Row
    circle: float

    def __call__(self, y: Tensor) -> Tensor:
        h = self.h
        slopes: list[Tensor] = []
        for row in self.a:
            stage = y + sum(h * a * k for a, k in zip(row, slopes, strict=True) if a) if row else y
            slopes.append(self.field(self._at(row), stage))
        return y + sum(h * w * k for w, k in zip(self.weights, slopes, strict=True) if w)

    def _at(self, row: Row) -> Scalar:
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

    name, order, circle = "rk4", 4, 1.0
    a, weights = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class Dopri5(Integrator):
    """Adaptive Dormand-Prince 5(4) of torchdiffeq over each layer's interval. rtol, atol: its tolerances.

    The steps depend on the batch, so there is no certificate for the network that runs.
    """

    name, order = "dopri5", 5

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-6):
        if not (rtol > 0 and atol > 0):
            raise BadInput(f"integrator.rtol, integrator.atol: expected positive tolerances, got {rtol} and {atol}")
        self.rtol, self.atol = rtol, atol

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        return AdaptiveStep(field, t, h, self.rtol, self.atol)


@dataclass(frozen=True)
class AdaptiveStep(Step):
    """The solution at t + h to within tolerances."""

    field: VectorField
    t: Scalar
    h: Scalar
    rtol: float
    atol: float

    def __call__(self, y: Tensor) -> Tensor:
        # h multiplies the field, so that its gradient flows where it has one
        times = torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        return odeint(lambda s, z: self.h * self.field(self._at(s), z), y, times, method="dopri5", **tolerances)[-1]

    def _at(self, share: Tensor) -> Scalar:
        return self.t if self.field.autonomous else self.t + share * self.h

    def jacobian(self, y: Tensor) -> Tensor:
        """By n reverse-mode products (the adaptive loop has no forward mode)."""
        with torch.enable_grad():
            z = y.detach().requires_grad_()
            out = self(z)
            rows = [torch.autograd.grad(out[i].sum(), z, retain_graph=True)[0].T for i in range(y.shape[0])]
        return torch.stack(rows, dim=1)

"""Runge-Kutta methods of higher order: explicit midpoint, rk4, and the adaptive dopri5 of torchdiffeq."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchdiffeq import odeint

from robode.errors import BadInput
from robode.ode import bounds
from robode.ode.bounds import Scalar
from robode.ode.integrators import Integrator
from robode.ode.vector_field import VectorField


class ExplicitRungeKutta(Integrator):
    """Explicit Runge-Kutta by its tableau; `circle` is its radius of circle contractivity.

    If Euler with step R is nonexpansive, so is the method for h <= circle * R; otherwise the bound is the one of the
    stages, 1 + sum of |products| <= sum_k (hL)^k / k! type polynomials, vacuous but certified.
    """

    a: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    circle: float

    def step_limit(self, m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
        return 0.999 * self.circle * bounds.h_star(m, M, gamma, omega) if self.circle > 0 else math.inf

    def step(self, field: VectorField, t: float, h: Scalar, y: Tensor, u: Tensor | None = None) -> Tensor:
        stages: list[Tensor] = []
        for row in self.a:
            stage = y + sum(h * a * k for a, k in zip(row, stages, strict=True) if a) if row else y
            stages.append(field(t, stage, u))
        return y + sum(h * w * k for w, k in zip(self.weights, stages, strict=True) if w)

    def jacobian(self, field: VectorField, t: float, h: Scalar, y: Tensor) -> Tensor:
        """The chain rule through the stages: K_i = A_i (I + h sum_j a_ij K_j), A_i = df/dy at stage i."""
        eye = torch.eye(y.shape[-2], dtype=y.dtype, device=y.device)
        slopes: list[Tensor] = []
        products: list[Tensor] = []
        for row in self.a:
            stage, inner = y, eye
            for a, k, K in zip(row, slopes, products, strict=True):
                stage, inner = (stage + h * a * k, inner + h * a * K) if a else (stage, inner)
            slopes.append(field(t, stage))
            products.append(field.jacobian(t, stage) @ inner)
        return eye + sum(h * w * K for w, K in zip(self.weights, products, strict=True) if w)

    def lipschitz(self, field: VectorField, h: float) -> float:
        if self.circle > 0 and field.euler_lipschitz(h / self.circle) <= 1:
            return 1.0
        L = h * field.lipschitz()
        stages: list[float] = []
        for row in self.a:
            stages.append(L * (1 + sum(abs(a) * k for a, k in zip(row, stages, strict=True))))
        return 1 + sum(abs(w) * k for w, k in zip(self.weights, stages, strict=True))


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

    def step(self, field: VectorField, t: float, h: Scalar, y: Tensor, u: Tensor | None = None) -> Tensor:
        # h multiplies the field, so that its gradient flows where it has one
        times = torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        return odeint(lambda s, z: h * field(t, z, u), y, times, method="dopri5", **tolerances)[-1]

    def jacobian(self, field: VectorField, t: float, h: Scalar, y: Tensor) -> Tensor:
        """By n reverse-mode products (the adaptive loop has no forward mode)."""
        with torch.enable_grad():
            z = y.detach().requires_grad_()
            out = self.step(field, t, h, z)
            rows = [torch.autograd.grad(out[i].sum(), z, retain_graph=True)[0].T for i in range(y.shape[0])]
        return torch.stack(rows, dim=1)

    def lipschitz(self, field: VectorField, h: float) -> float:
        return math.inf

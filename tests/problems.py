"""Random problems, adversaries and reference integrations for the mathematical tests, written independently of robode.

A problem is x' = F grad V(x) with F = J - gamma I and m I <= Hess V <= M I. Everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robode.linalg.activations import named_activation
from robode.linalg.skew import Skew, canonical, j2
from robode.ode.field import GradientField

TANH = named_activation("tanh")
KINDS = ("canonical", "j2", "random")


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def norm2(A: Tensor) -> float:
    """Largest 2-norm of a batch of matrices."""
    return float(torch.linalg.svdvals(A).max())


def skew_matrix(kind: str, n: int, seed: int = 0) -> Tensor:
    if kind == "random":
        A = randn(n, n, seed=seed)
        return A - A.T
    return canonical(n) if kind == "canonical" else j2(n)


def smallest_gamma(m: float, M: float, J: Tensor) -> float:
    """||J|| (c2 - c1) / (2 sqrt(c1 c2)): Eq. (11) of the CH-NODE paper with epsilon -> 0."""
    return norm2(J) * (M - m) / (2 * math.sqrt(m * M))


def random_field(n: int, seed: int, *, J: Tensor | None = None, gamma: float = 1.0, kappa: float = 0.3,
                 scale: float = 1.0, activation: str = "tanh") -> GradientField:  # fmt: skip
    """K, b ~ scale N(0, 1), L = 0; c is the centre of the Hessian's range."""
    K, b = scale * randn(n, n, seed=seed), scale * randn(n, 1, seed=seed + 1)
    act = named_activation(activation)
    c = kappa + 0.5 * act.slope_bound * norm2(K) ** 2
    J = skew_matrix("canonical", n) if J is None else J
    return GradientField(Skew(J), gamma, K, b, kappa * eye(n), act, c)


def field_with_hessian(S: Tensor, m: float, J: Tensor, gamma: float, c: float) -> GradientField:
    """A tanh potential of the class whose Hessian at 0 is the symmetric S >= m I: K = (S - m I)^(1/2), b = 0."""
    n = S.shape[0]
    values, U = torch.linalg.eigh(S - m * eye(n))
    K = U @ torch.diag(values.clamp_min(0).sqrt()) @ U.T
    return GradientField(Skew(J), gamma, K, torch.zeros(n, 1, dtype=torch.float64), m * eye(n), TANH, c)


def reflection(d: Tensor, w: Tensor) -> Tensor:
    """A symmetric orthogonal W with W d = w, for unit vectors (Householder)."""
    v = d - w
    return eye(len(d)) if v.norm() < 1e-12 else eye(len(d)) - 2 * torch.outer(v, v) / (v @ v)


def worst_hessian(m: float, M: float, G: Tensor, iterations: int = 300) -> Tensor:
    """A symmetric S, m I <= S <= M I, that makes ||I + G S|| as large as alternating maximisation can.

    Over S = c I + r W with W d = w, ||(I + cG) d + r G w|| is maximised over unit d and w in turn, from many starts.
    """
    n = G.shape[0]
    c, r = 0.5 * (M + m), 0.5 * (M - m)
    P, Q = eye(n) + c * G, r * G
    # u is the direction of the result: d = P^T u and w = Q^T u are the best answers to it.
    u = torch.cat([torch.linalg.svd(P).U.T, torch.linalg.svd(Q).U.T, randn(6, n, seed=n)])
    for _ in range(iterations):
        d, w = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-300) for x in (u @ P, u @ Q))
        u = d @ P.T + w @ Q.T
        gains = u.norm(dim=1, keepdim=True)
        u = u / gains
    best = int(gains.argmax())
    return c * eye(n) + r * reflection(d[best], w[best])


def rk4(f: Callable[[Tensor], Tensor], y: Tensor, T: float, steps: int) -> Tensor:
    """Classical Runge-Kutta with fixed steps on y' = f(y): the reference solution."""
    h = T / steps
    for _ in range(steps):
        k1 = f(y)
        k2 = f(y + 0.5 * h * k1)
        k3 = f(y + 0.5 * h * k2)
        k4 = f(y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def tanh_gradient(field: GradientField, y: Tensor) -> Tensor:
    """grad V for tanh, spelled out."""
    return field.K.T @ torch.tanh(field.K @ y + field.b) + field.Q @ y


def tanh_hessian(field: GradientField, y: Tensor) -> Tensor:
    """Hess V for tanh at each column of y (n, M): (M, n, n)."""
    D = (1 - torch.tanh(field.K @ y + field.b).square()).T
    return field.K.T @ torch.diag_embed(D) @ field.K + field.Q


def tanh_energy(field: GradientField, y: Tensor) -> Tensor:
    """V(y) = 1^T log cosh(K y + b) + y^T Q y / 2 at each column of y (n, M)."""
    z = field.K @ y + field.b
    log_cosh = z.abs() + torch.log1p(torch.exp(-2 * z.abs())) - math.log(2)
    return log_cosh.sum(0) + 0.5 * (y * (field.Q @ y)).sum(0)


def fine_flow_jacobian(field: GradientField, y: Tensor, T: float, steps: int) -> tuple[Tensor, Tensor]:
    """(y(T), d y(T) / d y(0)) of the ODE by the variational equation, rk4. y: (n, M) -> (n, M), (M, n, n)."""
    n, M = y.shape
    F = field.skew.J - float(field.gamma) * eye(n)

    def right_hand_side(z: Tensor) -> Tensor:  # (M, n, 1 + n): the state beside its sensitivity
        x = z[:, :, 0].T
        return F @ torch.cat([tanh_gradient(field, x).T[:, :, None], tanh_hessian(field, x) @ z[:, :, 1:]], dim=2)

    z = rk4(right_hand_side, torch.cat([y.T[:, :, None], eye(n).expand(M, n, n)], dim=2), T, steps)
    return z[:, :, 0].T, z[:, :, 1:]

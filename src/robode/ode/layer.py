"""One explicit step of a one-hidden-layer field: the network layer that really runs.

Explicit Euler, centred exponential Euler and centred IMEX all turn such a field into y -> A y + B sigma(K y + b).
The same four tensors serve the forward pass (two products and one activation), the exact Jacobian
A + B D K with D = diag(sigma'), and the exact worst case over all slopes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.activations import Activation
from robode.linalg.norms import ROUNDING, spectral_norms
from robode.ode.enclosure import Enclosure
from robode.ode.step import Step

# 2^width matrices are factorised: 1 024 small ones at most. Above it, the class bounds of bounds.py take over.
VERTEX_WIDTH = 10


def affine(b: Tensor, K: Tensor, y: Tensor) -> Tensor:
    """K y + b. K: (k, n), b: (k, 1), y: (n, M)."""
    return torch.addmm(b, K, y)


@dataclass(frozen=True)
class Layer(Step):
    """y -> A y + B sigma(K y + b) on columns. A: (n, n), B: (n, k), K: (k, n), b: (k, 1)."""

    A: Tensor
    B: Tensor
    K: Tensor
    b: Tensor
    activation: Activation

    def __call__(self, y: Tensor) -> Tensor:
        """y: (n, M) -> (n, M). B sigma(z) = p B s(a z) + q B 1; the kernel's constants cost nothing per state."""
        k = self.activation.kernel
        s = k.s(affine(k.a * self.b, k.a * self.K, y))
        return affine(k.q * self.B.sum(-1, keepdim=True), self.A, y).addmm_(k.p * self.B, s)

    def jacobian(self, y: Tensor) -> Tensor:
        """Exact Jacobian of the step at each column. y: (n, M) -> (M, n, n)."""
        D = self.activation.derivative(affine(self.b, self.K, y))
        return self.A + weighted_products(self.B, D, self.K)

    def lipschitz(self) -> float:
        """Certified Lipschitz constant of the layer over all y (2-norm), worked out in float64.

        Up to `VERTEX_WIDTH` neurons k the largest ||A + B D K|| over every matrix D of slopes of the activation: the
        norm is convex in D, so its maximum over the box sits at one of the 2^k vertices (docs/theory.md, section 11).
        Wider layers get ||A|| + S ||B|| ||K||.
        """
        A, B, K = (t.detach().double() for t in (self.A, self.B, self.K))
        if K.shape[-2] > VERTEX_WIDTH:
            a, b, k = (float(spectral_norms(t)) for t in (A, B, K))
            return (a + self.activation.slope_bound * b * k) * ROUNDING
        slopes = vertices(K.shape[-2], self.activation.slopes, K.device)[:, None, :]
        return float(spectral_norms(A + B * slopes @ K).amax()) * ROUNDING

    def enclose(self, z: Enclosure) -> Enclosure:
        A, B, K, b = (t.double() for t in (self.A, self.B, self.K, self.b))
        return (z.linear(A) + z.linear(K, b).activated(self.activation).linear(B)).absorbed()


def weighted_products(B: Tensor, D: Tensor, K: Tensor) -> Tensor:
    """B diag(D[:, m]) K for every m: sums of the outer products B_j K_j as one matrix product.

    B: (n, k), D: (k, M), K: (k, n) -> (M, n, n).
    """
    outer = (B.T[:, :, None] * K[:, None, :]).flatten(1)
    return (D.T @ outer).unflatten(-1, (len(B), K.shape[-1]))  # type: ignore[no-untyped-call]


def vertices(n: int, slopes: tuple[float, float], device: torch.device | None = None) -> Tensor:
    """All corners of the cube [lo, hi]^n of slopes, (2^n, n) float64."""
    return torch.cartesian_prod(*[torch.tensor(slopes, dtype=torch.float64, device=device)] * n).reshape(-1, n)

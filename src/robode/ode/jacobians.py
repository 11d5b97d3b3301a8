"""The Jacobians of a field with one hidden layer: all C + B D K with slopes D = diag(D_1, ..., D_k), lo <= D <= hi.

sigma(A y + b) has B = I, K = A; F (K^T sigma(K y + b) + Q y) has C = F Q, B = F K^T. Everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from robode.errors import BadInput


@dataclass(frozen=True)
class JacobianSet:
    """One set a layer. C: (L, n, n), B: (L, n, k), K: (L, k, n); lo, hi: (L, k), finite, lo <= hi.

    Raises `BadInput` for anything else; `jacobian_set` converts and gives layers their dimension.
    """

    C: Tensor
    B: Tensor
    K: Tensor
    lo: Tensor
    hi: Tensor

    def __len__(self) -> int:
        return len(self.C)

    @property
    def centre(self) -> Tensor:
        """c, (L, k): slopes are c + r e with |e| <= 1."""
        return 0.5 * (self.lo + self.hi)

    @property
    def radius(self) -> Tensor:
        """r, (L, k), rounded up, so that [c - r, c + r] holds [lo, hi] for the rounded c; 0 where lo = hi."""
        c = self.centre
        return torch.maximum(self.hi - c, c - self.lo) * (1 + 4 * torch.finfo(torch.float64).eps)

    def symmetric(self, D: Tensor) -> Tensor:
        """sym(C + B D K) for slopes D (L, k), or of the only layer for many, (P, k) -> (L or P, n, n)."""
        J = self.C + self.B * D[:, None, :] @ self.K
        return 0.5 * (J + J.mT)

    def products(self, x: Tensor) -> Tensor:
        """(B^T x)_i (K x)_i: by how much slope i changes x^T (C + B D K) x. x: (L or P, n) -> (., k)."""
        return (x[:, None, :] @ self.B)[:, 0] * (self.K @ x[..., None])[..., 0]

    def steepest(self, x: Tensor) -> Tensor:
        """The slopes that are worst for x: hi where the product is above 0, else lo."""
        return torch.where(self.products(x) > 0, self.hi, self.lo)

    def __getitem__(self, which: Tensor | slice) -> Self:
        return type(self)(self.C[which], self.B[which], self.K[which], self.lo[which], self.hi[which])

    def on(self, lo: Tensor, hi: Tensor) -> Self:
        """The same matrices with other slopes. Of the only layer many boxes can be taken: lo, hi (P, k)."""
        C, B, K = (M.expand(len(lo), -1, -1) for M in (self.C, self.B, self.K))
        return type(self)(C, B, K, lo, hi)


def jacobian_set(C: Tensor, B: Tensor, K: Tensor, lo: Tensor | float, hi: Tensor | float) -> JacobianSet:
    """C: (..., n, n), B: (..., n, k), K: (..., k, n) of any float type, with at most one batch dimension, the layers;
    lo, hi: numbers or (..., k). Raises `BadInput` for weights or slopes that are not finite, or lo > hi."""
    C, B, K = (M.detach().to(torch.float64).cpu() for M in (C, B, K))
    layers = max(len(M) if M.dim() == 3 else 1 for M in (C, B, K))
    C, B, K = (M.expand(layers, *M.shape[-2:]) for M in (C, B, K))
    finite = bool(C.isfinite().all() and B.isfinite().all() and K.isfinite().all())
    if not finite:
        raise BadInput("expected finite weights, got nan or inf among them")
    low, high = (torch.as_tensor(s, dtype=torch.float64).expand(layers, K.shape[-2]) for s in (lo, hi))
    if not bool((low.isfinite() & high.isfinite() & (low <= high)).all()):
        raise BadInput("expected finite slopes lo <= hi")
    return JacobianSet(C, B, K, low.clone(), high.clone())


def scaled_rows(A: Tensor, alpha: float) -> JacobianSet:
    """All D A with alpha <= D <= 1: the Jacobians of sigma(A y + b), slopes in [alpha, 1]. A: (d, d) or (L, d, d).
    Raises `BadInput` unless 0 < alpha <= 1 and A is square and finite."""
    if not 0 < alpha <= 1:
        raise BadInput(f"alpha: expected the smallest slope, 0 < alpha <= 1, got {alpha}")
    if A.dim() not in (2, 3) or A.shape[-1] != A.shape[-2]:
        raise BadInput(f"expected square weights (d, d) or (layers, d, d), got {tuple(A.shape)}")
    d = A.shape[-1]
    eye = torch.eye(d, dtype=torch.float64)
    return jacobian_set(torch.zeros(d, d), eye, A, alpha, 1.0)

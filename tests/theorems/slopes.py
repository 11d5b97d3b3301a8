"""Sets of Jacobians C + B D K that are small enough to look at every vertex, and structured weights."""

import itertools

import torch
from problems import randn
from torch import Tensor

KINDS = ("gaussian", "skew", "negative definite", "orthogonal", "rank one", "skew, damped", "zero")


def weights(kind: str, d: int, seed: int) -> Tensor:
    """(d, d), about 1 in norm."""
    A = randn(d, d, seed=seed) / d**0.5
    if kind in ("skew", "skew, damped"):
        A = A - A.T - (0.5 if kind == "skew, damped" else 0.0) * torch.eye(d, dtype=A.dtype)
    elif kind == "negative definite":
        A = -(A @ A.T)
    elif kind == "orthogonal":
        A = torch.linalg.qr(A).Q
    elif kind == "rank one":
        A = torch.outer(A[0], A[:, 0])
    return A if kind != "zero" else torch.zeros_like(A)


def vertices(lo: Tensor, hi: Tensor) -> Tensor:
    """All slopes with each entry at an end of its range. lo, hi: (k,) -> (2^k, k)."""
    return torch.stack([torch.stack(choice) for choice in itertools.product(*zip(lo, hi, strict=True))])


def largest(C: Tensor, B: Tensor, K: Tensor, D: Tensor) -> Tensor:
    """lambda_max(sym(C + B D K)) for each D (P, k). Matrices, no batch. (P,)"""
    J = C + B * D[:, None, :] @ K
    return torch.linalg.eigvalsh(0.5 * (J + J.mT))[:, -1]


def delta(A: Tensor, alpha: float) -> float:
    """max over all vertices of [alpha, 1]^d of mu_2(D A)."""
    A = A.detach().double()
    one = torch.ones(len(A), dtype=A.dtype)
    zero = torch.zeros_like(A)
    return float(largest(zero, torch.eye(len(A), dtype=A.dtype), A, vertices(alpha * one, one)).max())

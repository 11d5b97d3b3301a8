"""Upper bounds of the largest eigenvalue of symmetric and Hermitian matrices that hold in spite of rounding.

A factor R of g I - M proves lambda_max(M) <= g + ||g I - M - R R^T||, whatever computed it, because R R^T is
semidefinite. The residual is bounded by its row sums with what rounding may hide in them (docs/theory.md, section 20).
"""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = torch.finfo(torch.float64).eps / 2  # the unit roundoff u
ATTEMPTS = 40  # at a factorisation, each with a margin four times as large


def accumulated(terms: int) -> float:
    """A bound of gamma_m = m u/(1 - m u), the relative error of m roundings, for m < 10^13, with 1 % for the roundings
    in which it is used itself. Matrix products are assumed to add up products, in any order, with or without fma."""
    return 1.01 * terms * UNIT


def row_sum(M: Tensor) -> Tensor:
    """The largest absolute row sum, at least the 2-norm if M is symmetric or Hermitian. (..., n, n) -> (...)"""
    return M.abs().sum(-1).amax(-1)


def eigenvalue_above(M: Tensor, error: Tensor | float = 0.0) -> Tensor:
    """An upper bound of lambda_max of every symmetric or Hermitian matrix within `error` (2-norm) of M; inf where none
    is found.

    M: (L, n, n) float64 or complex128, exactly symmetric or Hermitian; error: (L,) -> (L,).
    """
    n = M.shape[-1]
    finite = M.isfinite().flatten(1).all(1)
    M = torch.where(finite[:, None, None], M, 0.0)
    guess = torch.linalg.eigvalsh(M)[:, -1]
    margin = 4 * accumulated(n + 10) * row_sum(M) + 1e-300
    found = torch.full_like(guess, torch.inf)
    for _ in range(ATTEMPTS):
        bound = _bound(M, guess + margin)
        found = torch.minimum(found, bound)
        if bool(found.isfinite().all()):
            break
        margin = 4 * margin
    total = found + error
    return torch.where(finite, total + 8 * UNIT * (found.abs() + error), torch.inf)


def _bound(M: Tensor, g: Tensor) -> Tensor:
    """g + a bound of ||g I - M - R R*|| for the Cholesky factor R of g I - M; inf where there is none. g: (L,)."""
    n = M.shape[-1]
    terms = 3 * n if M.is_complex() else n  # both parts of a product are sums of 2 n, and 2 sqrt 2 < 3
    A = g[:, None, None] * torch.eye(n, dtype=M.dtype, device=M.device) - M
    R, info = torch.linalg.cholesky_ex(A)
    # entries of the residual: what is seen, what rounding hides in R R^T and in both subtractions
    seen = (A - R @ R.mH).abs()
    hidden = accumulated(terms + 4) * (R.abs() @ R.mT.abs() + A.abs()) + 1e-300
    radius = row_sum(seen + hidden) * (1 + 4 * (n + 4) * UNIT)
    bound = g + radius + 4 * UNIT * (g.abs() + radius)
    return torch.where((info == 0) & bound.isfinite(), bound, torch.inf)


def norm_above(K: Tensor) -> Tensor:
    """An upper bound of ||K||. K: (L, m, n) float64 -> (L,); inf where K is not finite or its square overflows."""
    K = K if K.shape[-2] >= K.shape[-1] else K.mT
    G = K.mT @ K
    G = 0.5 * (G + G.mT)
    error = row_sum(K.abs().mT @ K.abs()) * accumulated(K.shape[-2] + 4) + 1e-290
    return eigenvalue_above(G, error).clamp_min(0).sqrt() * (1 + 4 * UNIT)

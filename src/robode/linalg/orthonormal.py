"""Matrices with orthonormal rows, at the price of one Cholesky factorisation.

They are the weights that make a layer y - 2 W^T relu(W y + b) non-expansive without costing it gradients: its Jacobian
I - 2 W^T D W, D = diag(0 or 1), is then orthogonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robode.linalg.norms import host_may_look

# A Gram matrix squares the condition number and with it the rounding errors. By the smallest pivot over the largest:
ONCE = 0.7  # above, one factorisation does (where an optimiser's step leads); below, another one removes its errors
NEVER = 0.03  # below, a QR factorisation comes first


def orthonormal(W: Tensor) -> Tensor:
    """Each matrix with its rows made orthonormal, or its columns where it has more rows than columns.

    W: (..., k, n), float32 or float64 -> the same, spanning what W spans (a Gram-Schmidt step: the first row keeps its
    direction). Norms end below 1 by about what rounding could add, see `slack`. Matrices that are as orthonormal as
    this function makes them come back bit by bit; such that are not finite become nan.
    """
    if W.shape[-2] > W.shape[-1]:
        return orthonormal(W.mT).mT.contiguous()
    gram = W @ W.mT
    errors = torch.linalg.matrix_norm(gram - (1 - 0.5 * slack(W)) ** 2 * identity(W))
    done = errors.max() <= (W.shape[-2] + 8) * torch.finfo(W.dtype).eps
    if not host_may_look(W):
        return torch.where(done, W, _by_pivots(W, gram))
    return W if bool(done) else _by_pivots(W, gram)


def _by_pivots(W: Tensor, gram: Tensor) -> Tensor:
    """One Cholesky factorisation, two or a QR factorisation, by how far the pivots spread."""
    size = 1 - 0.5 * slack(W)
    L, failed = torch.linalg.cholesky_ex(gram)
    pivots = L.diagonal(dim1=-2, dim2=-1)
    spread = torch.where((failed > 0).any(), 0.0, pivots.amin() / pivots.amax())
    if not host_may_look(W):  # nothing is decided on the host: the way that is right for all
        return size * _by_qr(W.double()).to(W.dtype)
    if not bool(spread > NEVER):
        return orthonormal(size * _by_qr(W.double()).to(W.dtype)) if bool(W.isfinite().all()) else W * torch.nan
    Q = size * torch.linalg.solve_triangular(L, W, upper=False)
    return Q if bool(spread > ONCE) else orthonormal(Q)


def identity(W: Tensor) -> Tensor:
    """The unit matrix (k, k) for W (..., k, n)."""
    return torch.eye(W.shape[-2], dtype=W.dtype, device=W.device)


def slack(W: Tensor) -> float:
    """Twice how far below 1 the norms end: 1.5e-5 for a thousand columns in float32."""
    return 4 * max(max(W.shape[-2:]) ** 0.5, 8.0) * torch.finfo(W.dtype).eps


def _by_qr(W: Tensor) -> Tensor:
    """The same from W^T = Q R, R with a positive diagonal. Rows that depend on others get a direction of their own."""
    Q, R = torch.linalg.qr(W.mT)
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(W.dtype)
    return (Q * signs[..., None, :]).mT


def random_orthonormal(*shape: int) -> Tensor:
    """(..., k, n) float32 with orthonormal rows (columns if k > n), uniformly distributed, from torch's generator."""
    return orthonormal(torch.randn(*shape))

"""Certified bounds of matrix norms, in float64.

Power iteration gives lower bounds and is therefore absent: a guarantee built on a lower bound of ||K|| is none.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Covers the rounding of a float64 eigenvalue solver on the small matrices used here, with room to spare.
ROUNDING = 1 + 1e-10


def largest_eigenvalue(K: Tensor) -> Tensor:
    """lambda_max(K^T K) = ||K||^2 for each matrix of a batch.

    K: (..., n, m), any float type. Returns (...) float64, exact to rounding and never below the true value; nan for a
    matrix that is not finite.
    """
    K, finite = _finite(K.detach().double())
    gram = K @ K.mT if K.shape[-2] <= K.shape[-1] else K.mT @ K
    found = torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0) * ROUNDING
    return torch.where(finite, found, torch.nan)


def smallest_eigenvalue(L: Tensor) -> Tensor:
    """lambda_min(L^T L) for each matrix of a batch, never above the true value. L: (..., n, n) -> (...) float64.

    From the singular values of L, because forming L^T L squares the condition number; nan where L is not finite.
    """
    L, finite = _finite(L.detach().double())
    return torch.where(finite, torch.linalg.svdvals(L)[..., -1].square() / ROUNDING, torch.nan)


def _finite(K: Tensor) -> tuple[Tensor, Tensor]:
    """K with 0 in place of matrices that are not finite (LAPACK raises), and which ones are (...)."""
    finite = K.isfinite().flatten(-2).all(-1)
    return torch.where(finite[..., None, None], K, 0.0), finite


def host_may_look(K: Tensor) -> bool:
    """Whether a look at values costs nothing: on a CPU, unless a compiler is tracing the code."""
    return K.device.type == "cpu" and not torch.compiler.is_compiling()


def gram_norm_squared(K: Tensor, iterations: int = 8) -> Tensor:
    """Differentiable upper bound of ||K||^2 by Gram iteration. K: (..., n, n) -> (...) float64.

    G <- (G/||G||_F)^2 from G = K K^T; after t iterations the Frobenius norm to the power 1/2^t is the Schatten
    norm of order 2^(t+1) of the Gram matrix, which lies in [||K||^2, n^(1/2^(t+1)) ||K||^2] (factor 1.004 at t=8, n=8).
    The gradient exists everywhere but at K = 0, also where the largest singular value is multiple.
    """
    G = K.double() @ K.double().mT
    log_scale = torch.zeros(G.shape[:-2], dtype=torch.float64, device=G.device)
    for t in range(iterations):
        norm = torch.linalg.matrix_norm(G).clamp_min(1e-300)
        log_scale = log_scale + norm.log() / 2**t
        G = G / norm[..., None, None]
        G = G @ G
    log_norm = torch.linalg.matrix_norm(G).clamp_min(1e-300).log() / 2**iterations
    return (log_scale + log_norm).exp() * ROUNDING


def clipped(K: Tensor, bound: float) -> Tensor:
    """Each matrix with ||K|| > bound replaced by the nearest one (Frobenius) with ||K|| <= bound: its singular values
    are clipped. K: (..., n, n), any float type -> the same; the others come back bit by bit.

    Clips a little below the bound, so that rounding to K's precision cannot lift `largest_eigenvalue` above bound^2;
    a second call therefore changes nothing. Matrices that are not finite come back as they are.
    """
    outside = largest_eigenvalue(K) > bound**2
    if host_may_look(K) and not bool(outside.any()):
        return K  # the decomposition is left out where nothing needs it
    U, s, Vh = torch.linalg.svd(_finite(K.detach().double())[0], full_matrices=False)
    # rounding each entry moves K by at most eps ||K||_F / 2 <= eps sqrt(n) bound / 2
    reach = bound * (1 - K.shape[-1] ** 0.5 * torch.finfo(K.dtype).eps - (ROUNDING - 1))
    nearest = (U * s.clamp_max(reach)[..., None, :] @ Vh).to(K.dtype)
    return torch.where(outside[..., None, None], nearest, K.detach())


def spectral_norms(A: Tensor) -> Tensor:
    """Exact 2-norms of a batch of matrices, nan for those that are not finite. A: (..., n, m) -> (...), in its
    precision."""
    A, finite = _finite(A)
    return torch.where(finite, torch.linalg.svdvals(A)[..., 0], torch.nan)

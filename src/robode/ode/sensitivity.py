"""Backward sensitivity matrices (BSMs) d y_N / d y_(j-1), per sample and exact.

The published figure shows the norm of the batch-MEAN Jacobian; per-sample norms can be far larger, so both are given.
Vector states have one small matrix each. A 1x1 image flow is block-diagonal over pixels, so its BSM norm is the largest
norm over pixels. Only flows with wider stencils would need power iteration, whose result is a lower estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.ode.flow import Flow, to_columns
from robode.ode.norms import spectral_norms


@dataclass(frozen=True)
class BSM:
    """norms, step_norms: (N, B), the largest over pixels; row j is layer j+1. norm_of_mean: (N,)."""

    norms: Tensor
    norm_of_mean: Tensor
    step_norms: Tensor


@torch.no_grad()
def bsm_norms(flow: Flow, y: Tensor) -> BSM:
    """Norms of d y_N / d y_(j-1) and of d y_j / d y_(j-1) for every layer and sample. y: (B, n) or (B, n, H, W).

    Columns that start equal stay equal (an image's background, mostly), so each distinct column is treated once.
    """
    distinct, where = torch.unique(to_columns(y), dim=1, return_inverse=True)
    jacobians = flow.step_jacobians(distinct.T)

    def largest(A: Tensor) -> Tensor:
        return norms_or_inf(A)[where].reshape(y.shape[0], -1).amax(1)

    norms, means = [], []
    product = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    for step in reversed(jacobians):
        product = product @ step
        norms.append(largest(product))
        mean = product[where].reshape(y.shape[0], -1, *step.shape[1:]).mean(0)
        means.append(norms_or_inf(mean).max())
    return BSM(torch.stack(norms[::-1]), torch.stack(means[::-1]), torch.stack([largest(step) for step in jacobians]))


def norms_or_inf(A: Tensor) -> Tensor:
    """2-norms of a batch of matrices (M, n, n) -> (M,); inf where states have overflowed."""
    finite = A.isfinite().all(-1).all(-1)
    norms = A.new_full(A.shape[:1], torch.inf)
    norms[finite] = spectral_norms(A[finite])
    return norms

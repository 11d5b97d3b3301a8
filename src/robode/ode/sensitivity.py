"""Backward sensitivity matrices (BSMs) d y_N / d y_(j-1), per sample and exact.

The published figure shows the norm of the batch-MEAN Jacobian; per-sample norms can be far larger, so both are given.
Vector states have one small matrix each. A 1x1 image flow is block-diagonal over pixels, so its BSM norm is the largest
norm over pixels. Only flows with wider stencils would need power iteration, whose result is a lower estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.norms import spectral_norms
from robode.ode.flow import Flow, to_columns


@dataclass(frozen=True)
class BSM:
    """norms, step_norms: (N, B), the largest over pixels; row j is layer j+1. norm_of_mean: (N,)."""

    norms: Tensor
    norm_of_mean: Tensor
    step_norms: Tensor


@torch.no_grad()
def bsm_norms(flow: Flow, y: Tensor, context: Tensor | None = None) -> BSM:
    """Norms of d y_N / d y_(j-1) and of d y_j / d y_(j-1) for every layer and sample. y: (B, n) or (B, n, H, W).

    Columns that start equal stay equal (an image's background, mostly), so each distinct column is treated once; not
    where the context tells samples apart. Norms are inf where states have overflowed.
    """
    where = None
    if context is None:
        distinct, where = torch.unique(to_columns(y), dim=1, return_inverse=True)
        steps = flow.step_jacobians(distinct.T)
    else:
        steps = flow.step_jacobians(y, context)
    products = [steps[-1]]
    for step in reversed(steps[:-1]):
        products.append(products[-1] @ step)
    factors, matrices = torch.stack(steps), torch.stack(products[::-1])  # (N, M, n, n)
    norms, step_norms = norms_or_inf(matrices), norms_or_inf(factors)
    if where is not None:
        norms, step_norms, matrices = norms[:, where], step_norms[:, where], matrices[:, where]
    shape = len(steps), len(y), -1
    means = norms_or_inf(matrices.view(*shape, *matrices.shape[2:]).mean(1))
    return BSM(norms.view(shape).amax(-1), means.amax(-1), step_norms.view(shape).amax(-1))


def norms_or_inf(A: Tensor) -> Tensor:
    """2-norms of matrices (..., n, n) -> (...); inf for those that are not finite."""
    return spectral_norms(A).nan_to_num(nan=torch.inf)

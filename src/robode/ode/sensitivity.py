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
from robode.ode.singular import largest_singular_values


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
    return bsm_of_steps(torch.stack(flow.step_jacobians(distinct.T)), y.shape[0], where)


@torch.no_grad()
def bsm_of_steps(steps: Tensor, samples: int, where: Tensor | None = None) -> BSM:
    """The norms from the Jacobians of all steps, (N, ..., M, n, n); leading dimensions of networks come after N.

    where: which of the M columns the samples consist of; by default they are the columns.
    """
    products = torch.empty_like(steps)
    products[-1] = steps[-1]
    for j in reversed(range(len(steps) - 1)):
        torch.matmul(products[j + 1], steps[j], out=products[j])
    norms, step_norms = norms_or_inf(products), norms_or_inf(steps)
    if where is not None:
        norms, step_norms, products = norms[..., where], step_norms[..., where], products[..., where, :, :]
    shape = *steps.shape[:-3], samples, -1
    means = norms_or_inf(products.view(*shape, *steps.shape[-2:]).mean(-4))
    return BSM(norms.view(shape).amax(-1), means.amax(-1), step_norms.view(shape).amax(-1))


def norms_or_inf(A: Tensor) -> Tensor:
    """2-norms of a batch of matrices (..., n, n) -> (...); inf where states have overflowed."""
    norms = largest_singular_values(A)
    return torch.where(norms.isfinite(), norms, torch.inf)

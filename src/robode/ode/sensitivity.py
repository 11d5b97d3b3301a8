"""Backward sensitivity matrices (BSMs) d y_N / d y_(j-1), per sample and exact.

The published figure shows the norm of the batch-MEAN Jacobian; per-sample norms can be far larger, so both are given.
Vector states have one small matrix each. A 1x1 image flow is block-diagonal over pixels, so its BSM norm is the largest
norm over pixels. Only flows with wider stencils would need power iteration, whose result is a lower estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.singular import largest_singular_values
from robode.ode.flow import Flow, to_columns
from robode.ode.layer import SMALL


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
    where the context tells samples apart.
    """
    if context is not None:
        return bsm_of_steps(flow.step_jacobians(y, context), y.shape[0])
    distinct, where = torch.unique(to_columns(y), dim=1, return_inverse=True)
    return bsm_of_steps(flow.step_jacobians(distinct.T), y.shape[0], where)


@torch.no_grad()
def bsm_of_steps(steps: Sequence[Tensor], samples: int, where: Tensor | None = None) -> BSM:
    """The norms from the Jacobians of the N steps, (..., M, n, n) each; dimensions of networks side by side come first
    and follow the N layers in the result.

    where: which of the M columns the samples consist of; by default they are the columns.
    """
    if steps[0].shape[-1] <= SMALL:
        factors = torch.stack([step.movedim(-3, -1) for step in steps])  # entry by entry: (N, ..., n, n, M)
        products = _products_of_entries(factors)
    else:
        matrices = torch.stack(list(steps))
        factors, products = matrices.movedim(-3, -1), _products(matrices).movedim(-3, -1)
    norms, step_norms = norms_or_inf(products), norms_or_inf(factors)
    if where is not None:
        norms, step_norms, products = norms[..., where], step_norms[..., where], products[..., where]
    parts = samples, -1
    means = norms_or_inf(products.unflatten(-1, parts).mean(-2))  # type: ignore[no-untyped-call]
    largest = [each.unflatten(-1, parts).amax(-1) for each in (norms, step_norms)]  # type: ignore[no-untyped-call]
    return BSM(largest[0], means.amax(-1), largest[1])


def _products(steps: Tensor) -> Tensor:
    """steps[-1] @ ... @ steps[j] for every j. steps: (N, ..., n, n)."""
    products = [steps[-1]]
    for step in reversed(steps[:-1].unbind()):
        products.append(products[-1] @ step)
    return torch.stack(products[::-1])


def _products_of_entries(steps: Tensor) -> Tensor:
    """The same for matrices along the last dimension. steps: (N, ..., n, n, M)."""
    products = torch.empty_like(steps)
    products[-1] = steps[-1]
    for j in reversed(range(len(steps) - 1)):
        columns, rows = products[j + 1].unbind(-2), steps[j].unbind(-3)
        torch.mul(columns[0].unsqueeze(-2), rows[0].unsqueeze(-3), out=products[j])
        for column, row in zip(columns[1:], rows[1:], strict=True):
            products[j].addcmul_(column.unsqueeze(-2), row.unsqueeze(-3))
    return products


def norms_or_inf(A: Tensor) -> Tensor:
    """2-norms of matrices along the last dimension, (..., n, n, M) -> (..., M); inf where states have overflowed."""
    norms = largest_singular_values(A)
    return torch.where(norms.isfinite(), norms, torch.inf)

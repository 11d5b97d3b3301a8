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
    (bsm,) = bsm_of_steps(torch.stack(flow.step_jacobians(distinct.T)), where[None], y.shape[0])
    return bsm


def bsm_of_steps(steps: Tensor, where: Tensor, samples: int) -> list[BSM]:
    """The norms for each of G networks from the Jacobians of their steps, (N, M, n, n) for all columns of all networks.

    where: (G, columns of one network) says which of the M belong to its samples, in their order.
    """
    chain = [steps[-1]]
    for step in reversed(steps[:-1].unbind()):
        chain.append(chain[-1] @ step)
    products = torch.stack(chain[::-1])
    shape = len(steps), len(where), samples, -1
    norms, step_norms = (norms_or_inf(A)[:, where].view(shape).amax(-1) for A in (products, steps))
    means = norms_or_inf(products[:, where].view(*shape, *steps.shape[2:]).mean(2)).amax(-1)
    return [BSM(norms[:, g], means[:, g], step_norms[:, g]) for g in range(len(where))]


def norms_or_inf(A: Tensor) -> Tensor:
    """2-norms of a batch of matrices (..., n, n) -> (...); inf where states have overflowed."""
    norms = largest_singular_values(A)
    return torch.where(norms.isfinite(), norms, torch.inf)

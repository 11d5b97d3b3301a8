"""Backward sensitivity matrices (BSMs) d y_N / d y_(j-1), per sample and exact.

The published figure shows the norm of the batch-MEAN Jacobian; per-sample norms can be far larger, so both are given.
Vector states have one small matrix each. A 1x1 image flow is block-diagonal over pixels, so its BSM norm is the largest
norm over pixels. Only flows with wider stencils would need power iteration, whose result is a lower estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
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


@dataclass(frozen=True)
class ParameterGradients:
    """Of one sample and each layer j, (N,) each: norms of dL/d theta_j, and the product that bounds them from above,
    ||dL/dy_N|| ||dy_N/dy_j|| ||d phi_j/d theta_j|| (docs/theory.md, section 25)."""

    norms: Tensor
    bounds: Tensor


def parameter_gradients(flow: Flow, y: Tensor, slope: Tensor, context: Tensor | None = None) -> ParameterGradients:
    """The gradient of a loss L(y_N) by what each layer does with the flow's parameters; where layers share them, by the
    layer's own use of them.

    y: one first state (1, n), a vector; slope: dL/dy_N, (n,). Raises `BadInput` for images, and for flows whose steps
    give no Jacobians.
    """
    if y.dim() != 2 or len(y) != 1:
        raise BadInput(f"callbacks.bsm.point: expected states that are vectors, got one of shape {tuple(y.shape[1:])}")
    weights = [each for each in flow.parameters() if each.requires_grad]
    with torch.enable_grad():
        steps, z, outs, jacobians = flow.steps(context), flow.enter(y).detach(), [], []
        for step in steps:
            jacobians.append(step.jacobian(z).detach()[0])
            outs.append(step(z)[:, 0])
            z = outs[-1].detach()[:, None]
    behind, norms, bounds = torch.eye(len(slope), dtype=slope.dtype, device=slope.device), [], []
    for out, jacobian in zip(reversed(outs), reversed(jacobians), strict=True):
        by_weights = torch.autograd.grad(
            out, weights, torch.eye(len(out), dtype=out.dtype, device=out.device),
            is_grads_batched=True, retain_graph=True, allow_unused=True,
        )  # fmt: skip
        D = torch.cat([each.flatten(1) for each in by_weights if each is not None], dim=1)  # (n, parameters)
        norms.append((slope @ behind @ D).norm())
        bounds.append(slope.norm() * norms_or_inf(behind) * norms_or_inf(D))
        behind = behind @ jacobian
    return ParameterGradients(torch.stack(norms[::-1]), torch.stack(bounds[::-1]))


def norms_or_inf(A: Tensor) -> Tensor:
    """2-norms of matrices (..., n, n) -> (...); inf for those that are not finite."""
    return spectral_norms(A).nan_to_num(nan=torch.inf)

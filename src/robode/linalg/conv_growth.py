"""How the norm of a convolution grows with its kernel, and gradients from which that growth is taken out.

Where a constraint ||W|| <= r is kept by shortening W after each step, a step that lengthens one direction costs all the
others (docs/theory.md, section 26). The gradient of K -> loss(r K/||W||) knows this price: docs/theory.md, section 30.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from robode.linalg.convolution import ITERATIONS, TINY, gram_symbols


@torch.no_grad()
def growth(kernels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """||W|| of circular convolutions on the (height + p) x (width + q) torus, (L), and D = grad ||W||/||W|| by the
    kernel's entries, like kernels: <D, K> = 1. kernels: (L, c', c, 2p + 1, 2q + 1).

    The frequency is found by power iteration, in float32; norm and gradient there are exact. Where several frequencies
    attain the norm, D belongs to one of them.
    """
    k, m = kernels.shape[-2:]
    rows, columns = max(height + k // 2, k), max(width + m // 2, m)
    scale = kernels.flatten(1).norm(dim=1).clamp_min(TINY)[:, None, None, None, None]
    G = gram_symbols((kernels / scale).float(), height, width)
    v = G.sum(-1, keepdim=True)
    for _ in range(ITERATIONS):
        v = G @ v
        v = v / v.abs().square().sum((-2, -1), keepdim=True).sqrt().clamp_min(TINY)
    largest = (G @ v).abs().square().sum((-2, -1)).argmax(1)
    half = columns // 2 + 1
    down, along = 2 * math.pi / rows * (largest // half), 2 * math.pi / columns * (largest % half)
    taps = (torch.arange(each, device=kernels.device) for each in (k, m))
    a, b = (turn[:, None] * tap for turn, tap in zip((down, along), taps, strict=True))
    turns = (a[:, :, None] + b[:, None, :]).to(kernels.dtype)
    waves = torch.polar(torch.ones_like(turns), turns)
    symbol = torch.einsum("locab,lab->loc", kernels.to(waves.dtype), waves)
    u, s, vh = torch.linalg.svd(symbol, full_matrices=False)
    norms = s[:, 0].clamp_min(TINY)
    D = torch.einsum("lo,lc,lab->locab", u[:, :, 0].conj(), vh[:, 0].conj(), waves).real
    return norms, D / norms[:, None, None, None, None]


class _WithoutGrowth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Tensor, D: Tensor, there: Tensor) -> Tensor:
        ctx.save_for_backward(kernels, D, there)
        return kernels.view_as(kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        kernels, D, there = ctx.saved_tensors
        (g,) = gradients
        inward = (g * kernels).flatten(1).sum(1).clamp_max(0) * there
        return g - inward[:, None, None, None, None] * D, None, None


def without_growth(kernels: Tensor, D: Tensor, there: Tensor) -> Tensor:
    """The kernels as they are, with the gradient g - min(<g, K>, 0) D of those that are `there`, at the limit: of two
    kernels that differ in length alone descent prefers neither, unless it is the shorter one. D: `growth`; there: (L)
    bool."""
    found: Tensor = _WithoutGrowth.apply(kernels, D, there)
    return found

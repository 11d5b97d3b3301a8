"""Layers y -> A y + B tanh(K y + b) on a GPU, in Triton: a block of columns goes through all of them in registers.

For widths 4, 8 and 16. Where a gradient is wanted, the forward pass keeps the states before each layer, and the
backward pass reads them block by block; each program adds up the gradients of the weights of its blocks in memory of
its own, (programs, N, ...), which is summed at the end. With s = tanh(z), z = K y + b, g the gradient at the layer's image
and d = (1 - s^2) * B^T g:  dA = g y^T, dB = g s^T, dK = d y^T, db = sum d, and g becomes A^T g + K^T d.

Products are written as sums over a broadcast axis: `tl.dot` would round to tf32, and so does the compiler itself with
sums over 16 numbers, unless each is made of halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTHS = (4, 8, 16)
BLOCK = 64  # columns of a program at a time
PROGRAMS = 4  # for each multiprocessor, at most


@triton.jit
def _times(x, W, n: tl.constexpr):  # type: ignore[no-untyped-def]
    """x W^T of rows x (BLOCK, n), W (n, n), summed in halves for n = 16."""
    product = x[:, None, :] * W[None, :, :]
    if n == 16:
        halves = tl.reshape(product, (product.shape[0], n, 2, 8))
        return tl.sum(tl.sum(halves, 3), 2)
    return tl.sum(product, 2)


@triton.jit
def _tanh(z):  # type: ignore[no-untyped-def]
    """Odd and exact at 0; 1 - 2/(e^2z + 1) does without a branch, and its error is absolute, 1e-7."""
    return 1 - 2 / (tl.exp(2 * z) + 1)


@triton.jit
def _forwards(y, A, B, K, b, out, kept, M, N, keep: tl.constexpr, n: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """y, out: (n, M); A, B, K: (N, n, n), b: (N, n); kept: (N, n, M), the states before each layer."""
    unit = tl.arange(0, n)
    square = unit[:, None] * n + unit[None, :]
    for start in range(tl.program_id(0) * block, M, tl.num_programs(0) * block):
        column = start + tl.arange(0, block)
        place = unit[None, :] * M + column[:, None]
        inside = column[:, None] < M
        x = tl.load(y + place, mask=inside, other=0.0)
        for j in range(N):
            if keep:
                tl.store(kept + j * n * M + place, x, mask=inside)
            s = _tanh(_times(x, tl.load(K + j * n * n + square), n) + tl.load(b + j * n + unit)[None, :])
            x = _times(x, tl.load(A + j * n * n + square), n) + _times(s, tl.load(B + j * n * n + square), n)
        tl.store(out + place, x, mask=inside)


@triton.jit
def _backwards(kept, slope, A, B, K, b, back, dA, dB, dK, db, M, N, n: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """slope, back: (n, M), the gradients at the last state and at the first; dA, dB, dK: (programs, N, n, n) and
    db: (programs, N, n), zeros at first."""
    unit = tl.arange(0, n)
    square = unit[:, None] * n + unit[None, :]
    turned = unit[None, :] * n + unit[:, None]
    mine = tl.program_id(0) * N
    for start in range(tl.program_id(0) * block, M, tl.num_programs(0) * block):
        column = start + tl.arange(0, block)
        place = unit[None, :] * M + column[:, None]
        inside = column[:, None] < M
        g = tl.load(slope + place, mask=inside, other=0.0)
        for step in range(N):
            j = N - 1 - step
            x = tl.load(kept + j * n * M + place, mask=inside, other=0.0)
            s = _tanh(_times(x, tl.load(K + j * n * n + square), n) + tl.load(b + j * n + unit)[None, :])
            d = (1 - s * s) * _times(g, tl.load(B + j * n * n + turned), n)
            at = (mine + j) * n * n + square
            tl.atomic_add(dA + at, tl.sum(g[:, :, None] * x[:, None, :], 0), sem="relaxed")
            tl.atomic_add(dB + at, tl.sum(g[:, :, None] * s[:, None, :], 0), sem="relaxed")
            tl.atomic_add(dK + at, tl.sum(d[:, :, None] * x[:, None, :], 0), sem="relaxed")
            tl.atomic_add(db + (mine + j) * n + unit, tl.sum(d, 0), sem="relaxed")
            g = _times(g, tl.load(A + j * n * n + turned), n) + _times(d, tl.load(K + j * n * n + turned), n)
        tl.store(back + place, g, mask=inside)


# ---- from torch -----------------------------------------------------------------------------------------------------


def suits(y: Tensor, n: int, k: int) -> bool:
    """Columns y: (n, M) on a GPU, as many hidden units."""
    return y.device.type == "cuda" and n == k and n in WIDTHS


def forward(y: Tensor, weights: Sequence[Tensor], keep: bool = False) -> Any:
    """y: (n, M) -> (n, M); keep: with the states before each layer, (N, n, M)."""
    y, weights = y.contiguous(), [each.detach().contiguous() for each in weights]
    (n, M), N = y.shape, len(weights[0])
    out, kept = torch.empty_like(y), y.new_empty(N, n, M) if keep else y
    _forwards[(_programs(y),)](y, *weights, out, kept, M, N, keep, n, BLOCK)
    return (out, kept) if keep else out


def backward(y: Tensor, weights: Sequence[Tensor], slope: Tensor) -> tuple[Tensor, ...]:
    """The gradients at y, A, B, K and b from that at the last state. The states are computed again."""
    weights, slope, programs = [each.detach().contiguous() for each in weights], slope.contiguous(), _programs(y)
    _, kept = forward(y, weights, keep=True)
    (n, M), N = y.shape, len(weights[0])
    back, sums = torch.empty_like(slope), [y.new_zeros(programs, *each.shape) for each in weights]
    _backwards[(programs,)](kept, slope, *weights, back, *sums, M, N, n, BLOCK)
    return back, *(each.sum(0) for each in sums)


def _programs(y: Tensor) -> int:
    count = -(-y.shape[1] // BLOCK)
    if y.device.type != "cuda":
        return min(count, 3)  # Triton's interpreter, which runs them one after the other
    return min(count, PROGRAMS * torch.cuda.get_device_properties(y.device).multi_processor_count)

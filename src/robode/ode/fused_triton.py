"""Layers y -> A y + B tanh(K y + b) on a GPU, in Triton: a block of columns goes through all of them in registers.

For widths 4, 8 and 16. Where a gradient is wanted, the forward pass keeps the states before each layer, and the
backward pass reads them block by block; each program adds up the gradients of the weights of its blocks in memory of
its own, which is summed at the end. With s = tanh(z), z = K y + b, g the gradient at the layer's image
and d = (1 - s^2) * B^T g:  dA = g y^T, dB = g s^T, dK = d y^T, db = sum d, and g becomes A^T g + K^T d.

Products are written as sums over a broadcast axis: `tl.dot` would round to tf32, and so does the compiler itself with
sums over 16 numbers, unless each is made of halves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTHS = (4, 8, 16)
BLOCK = tl.constexpr(64)  # columns of a program at a time
PROGRAMS = 4  # for each multiprocessor, at most


@triton.jit  # type: ignore[untyped-decorator]
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


@triton.jit  # type: ignore[untyped-decorator]
def _forwards(y, W, out, kept, M, N, keep: tl.constexpr, n: tl.constexpr):  # type: ignore[no-untyped-def]
    """y, out: (n, M); W: (N, 3 n n + n), A, B, K and b of each layer; kept: (N, n, M), the states before each layer."""
    unit = tl.arange(0, n)
    square = unit[:, None] * n + unit[None, :]
    for start in range(tl.program_id(0) * BLOCK, M, tl.num_programs(0) * BLOCK):
        column = start + tl.arange(0, BLOCK)
        place = unit[None, :] * M + column[:, None]
        inside = column[:, None] < M
        x = tl.load(y + place, mask=inside, other=0.0)
        for j in range(N):
            A = W + j * (3 * n * n + n) + square
            if keep:
                tl.store(kept + j * n * M + place, x, mask=inside)
            b = tl.load(W + j * (3 * n * n + n) + 3 * n * n + unit)
            s = _tanh(_times(x, tl.load(A + 2 * n * n), n) + b[None, :])
            x = _times(x, tl.load(A), n) + _times(s, tl.load(A + n * n), n)
        tl.store(out + place, x, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backwards(kept, slope, W, back, sums, M, N, n: tl.constexpr):  # type: ignore[no-untyped-def]
    """slope, back: (n, M), the gradients at the last state and at the first; sums: (programs, N, 3 n n + n), zeros at
    first, to which each program alone adds; atomic, since more threads than one may hold an entry."""
    unit = tl.arange(0, n)
    square = unit[:, None] * n + unit[None, :]
    turned = unit[None, :] * n + unit[:, None]
    size = 3 * n * n + n
    for start in range(tl.program_id(0) * BLOCK, M, tl.num_programs(0) * BLOCK):
        column = start + tl.arange(0, BLOCK)
        place = unit[None, :] * M + column[:, None]
        inside = column[:, None] < M
        g = tl.load(slope + place, mask=inside, other=0.0)
        for step in range(N):
            j = N - 1 - step
            A = W + j * size
            x = tl.load(kept + j * n * M + place, mask=inside, other=0.0)
            b = tl.load(A + 3 * n * n + unit)
            s = _tanh(_times(x, tl.load(A + 2 * n * n + square), n) + b[None, :])
            d = (1 - s * s) * _times(g, tl.load(A + n * n + turned), n)
            dA = sums + (tl.program_id(0) * N + j) * size
            tl.atomic_add(dA + square, tl.sum(g[:, :, None] * x[:, None, :], 0), sem="relaxed")
            tl.atomic_add(dA + n * n + square, tl.sum(g[:, :, None] * s[:, None, :], 0), sem="relaxed")
            tl.atomic_add(dA + 2 * n * n + square, tl.sum(d[:, :, None] * x[:, None, :], 0), sem="relaxed")
            tl.atomic_add(dA + 3 * n * n + unit, tl.sum(d, 0), sem="relaxed")
            g = _times(g, tl.load(A + turned), n) + _times(d, tl.load(A + 2 * n * n + turned), n)
        tl.store(back + place, g, mask=inside)


# ---- from torch -----------------------------------------------------------------------------------------------------


def suits(y: Tensor, n: int, k: int) -> bool:
    """Columns y: (n, M) on a GPU, as many hidden units."""
    return y.device.type == "cuda" and n == k and n in WIDTHS


def forward(y: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """weights: A (N, n, n), B (N, n, n), K (N, n, n), b (N, n); y: (n, M) -> (n, M)."""
    return _through(y.contiguous(), _joined(weights), keep=False)[0]


def backward(y: Tensor, weights: Sequence[Tensor], slope: Tensor, _wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """The gradients at y, A, B, K and b from that at the last state. The states are computed again."""
    y, slope, W = y.contiguous(), slope.contiguous(), _joined(weights)
    _, kept = _through(y, W, keep=True)
    programs, back = _programs(y), torch.empty_like(slope)
    sums = y.new_zeros(programs, *W.shape)
    _backwards[(programs,)](kept, slope, W, back, sums, y.shape[1], len(W), len(y))
    parts = torch.split(sums.sum(0), [each[0].numel() for each in weights], dim=1)
    return back, *(part.reshape(each.shape) for part, each in zip(parts, weights, strict=True))


def _through(y: Tensor, W: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """The last states, and those before each layer (N, n, M)."""
    (n, M), N = y.shape, len(W)
    out, kept = torch.empty_like(y), y.new_empty(N, n, M) if keep else y
    _forwards[(_programs(y),)](y, W, out, kept, M, N, keep, n)
    return out, kept


def _joined(weights: Sequence[Tensor]) -> Tensor:
    """(N, 3 n n + n): A, B, K and b of each layer behind each other."""
    return torch.cat([each.detach().flatten(1) for each in weights], dim=1)


def _programs(y: Tensor) -> int:
    count = -(-y.shape[1] // BLOCK.value)
    if y.device.type != "cuda":
        return min(count, 3)  # Triton's interpreter, which runs them one after the other
    return min(count, PROGRAMS * torch.cuda.get_device_properties(y.device).multi_processor_count)

"""Layers y -> A y + B tanh(K y + b) on a CPU, compiled by numba: a tile of columns at a time goes through all of them,
so that states stay in the cache. For widths up to 8; matrices are padded to 8 x 8 with zeros, which change nothing.

Layer by layer torch reads and writes all states several times. The backward pass computes the states of a tile again
instead of keeping those of all. With s = tanh(z), z = K y + b, g the gradient at the layer's image and
d = (1 - s^2) * B^T g:  dA = g y^T, dB = g s^T, dK = d y^T, db = sum d, and g becomes A^T g + K^T d.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

WIDEST = 8
TILE = 256  # columns; the states of 16 layers of width 8 take 128 KiB
FOR_A_THREAD = 8 * TILE  # columns below which a second thread costs more than it does

# tanh(x) = x P(x^2)/Q(x^2) up to 5.7e-9 of itself for |x| <= 7.9 (scripts/fit_tanh.py), and exactly +-1 beyond, 2.7e-7
# away from it: saturated units have the slope 0
MOST = np.float32(7.9)
P0, P1, P2, P3, P4 = (np.float32(p) for p in (1.0, 0.13450626, 0.0035789974, 2.2023334e-05, 1.5428100e-08))
Q1, Q2, Q3, Q4 = (np.float32(q) for q in (0.46783954, 0.026192259, 0.00034236594, 8.5988313e-07))
# Sums in any order, products and sums at once; numbers that are none stay what they are.
FAST = {"reassoc", "contract", "arcp", "nsz"}
ONE, ZERO = np.float32(1), np.float32(0)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kept on disk: compiled once on a machine. Runs without Python's lock, so that threads run at the same time."""
    made: Callable[..., Any] = njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")(function)
    return made


@compiled
def _tanh(x):  # type: ignore[no-untyped-def]
    u = x * x
    above = P0 + u * (P1 + u * (P2 + u * (P3 + u * P4)))
    inside = x * above / (ONE + u * (Q1 + u * (Q2 + u * (Q3 + u * Q4))))
    return ONE if x > MOST else (-ONE if x < -MOST else inside)


@compiled
def _row(W, i):  # type: ignore[no-untyped-def]
    return W[i, 0], W[i, 1], W[i, 2], W[i, 3], W[i, 4], W[i, 5], W[i, 6], W[i, 7]


@compiled
def _column(y, t):  # type: ignore[no-untyped-def]
    return y[0, t], y[1, t], y[2, t], y[3, t], y[4, t], y[5, t], y[6, t], y[7, t]


@compiled
def _dot(a, b):  # type: ignore[no-untyped-def]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] + a[4] * b[4] + a[5] * b[5] + a[6] * b[6] + a[7] * b[7]


@compiled
def _product(W, y, out, rows):  # type: ignore[no-untyped-def]
    """out = W y, two rows at a time, whose 16 weights stay in registers."""
    for i in range(0, rows, 2):
        w0, w1 = _row(W, i), _row(W, i + 1)
        for t in range(TILE):
            x = _column(y, t)
            out[i, t] = _dot(w0, x)
            out[i + 1, t] = _dot(w1, x)


@compiled
def _add_product(W, y, out, rows):  # type: ignore[no-untyped-def]
    """out += W y."""
    for i in range(0, rows, 2):
        w0, w1 = _row(W, i), _row(W, i + 1)
        for t in range(TILE):
            x = _column(y, t)
            out[i, t] += _dot(w0, x)
            out[i + 1, t] += _dot(w1, x)


@compiled
def _sum_of_two(A, B, y, s, out, rows):  # type: ignore[no-untyped-def]
    """out = A y + B s."""
    _product(A, y, out, rows)
    _add_product(B, s, out, rows)


@compiled
def _hidden(K, b, y, s, rows):  # type: ignore[no-untyped-def]
    """s = tanh(K y + b)."""
    _product(K, y, s, rows)
    for i in range(rows):
        shift = b[i]
        for t in range(TILE):
            s[i, t] = _tanh(shift + s[i, t])


@compiled
def _before(BT, g, s, d, db, rows):  # type: ignore[no-untyped-def]
    """d = (1 - s^2) * B^T g, and db += its sums."""
    for i in range(0, rows, 2):
        w0, w1 = _row(BT, i), _row(BT, i + 1)
        sum0, sum1 = ZERO, ZERO
        for t in range(TILE):
            v = _column(g, t)
            d0 = (ONE - s[i, t] * s[i, t]) * _dot(w0, v)
            d1 = (ONE - s[i + 1, t] * s[i + 1, t]) * _dot(w1, v)
            d[i, t], d[i + 1, t] = d0, d1
            sum0, sum1 = sum0 + d0, sum1 + d1
        db[i] += sum0
        db[i + 1] += sum1


@compiled
def _products(g, y, out, rows, columns):  # type: ignore[no-untyped-def]
    """out += g y^T, in blocks of 4 x 4."""
    for i in range(0, rows, 4):
        for j in range(0, columns, 4):
            p00 = p01 = p02 = p03 = p10 = p11 = p12 = p13 = ZERO
            p20 = p21 = p22 = p23 = p30 = p31 = p32 = p33 = ZERO
            for t in range(TILE):
                y0, y1, y2, y3 = y[j, t], y[j + 1, t], y[j + 2, t], y[j + 3, t]
                v = g[i, t]
                p00, p01, p02, p03 = p00 + v * y0, p01 + v * y1, p02 + v * y2, p03 + v * y3
                v = g[i + 1, t]
                p10, p11, p12, p13 = p10 + v * y0, p11 + v * y1, p12 + v * y2, p13 + v * y3
                v = g[i + 2, t]
                p20, p21, p22, p23 = p20 + v * y0, p21 + v * y1, p22 + v * y2, p23 + v * y3
                v = g[i + 3, t]
                p30, p31, p32, p33 = p30 + v * y0, p31 + v * y1, p32 + v * y2, p33 + v * y3
            _add(out[i], j, p00, p01, p02, p03)
            _add(out[i + 1], j, p10, p11, p12, p13)
            _add(out[i + 2], j, p20, p21, p22, p23)
            _add(out[i + 3], j, p30, p31, p32, p33)


@compiled
def _add(row, j, p0, p1, p2, p3):  # type: ignore[no-untyped-def]
    row[j] += p0
    row[j + 1] += p1
    row[j + 2] += p2
    row[j + 3] += p3


@compiled
def _zeros(count):  # type: ignore[no-untyped-def]
    return np.zeros((count, WIDEST, TILE), np.float32)


@compiled
def forwards(weights, y, out, k, part):  # type: ignore[no-untyped-def]
    """The columns of a part (first, last) of y through all layers, into out. weights: A, B, K (N, 8, 8), b (N, 8);
    y, out: (n, M); k: hidden units."""
    A, B, K, b = weights
    n, z, after, s = len(y), _zeros(1)[0], _zeros(1)[0], _zeros(1)[0]
    for start in range(part[0], part[1], TILE):
        size = min(TILE, part[1] - start)
        z[:] = ZERO  # what an earlier tile left, inf or nan perhaps, times 0 would be nan
        for i in range(n):
            for t in range(size):
                z[i, t] = y[i, start + t]
        for j in range(len(A)):
            _hidden(K[j], b[j], z, s, k)
            _sum_of_two(A[j], B[j], z, s, after, n)
            z, after = after, z
        for i in range(n):
            for t in range(size):
                out[i, start + t] = z[i, t]


@compiled
def backwards(weights, turned, y, slope, back, learned, k, part):  # type: ignore[no-untyped-def]
    """back, the gradient at those columns of y, from slope, that at their images. learned: sums, to which it adds those
    at the weights, and which of them are wanted. turned: A^T, B^T, K^T."""
    A, B, K, b = weights
    AT, BT, KT = turned
    (dA, dB, dK, db), wanted = learned
    n, N = len(y), len(A)
    z, s, g, before, d = _zeros(N + 1), _zeros(N), _zeros(1)[0], _zeros(1)[0], _zeros(1)[0]
    for start in range(part[0], part[1], TILE):
        size = min(TILE, part[1] - start)
        z[0] = ZERO
        g[:] = ZERO
        for i in range(n):
            for t in range(size):
                z[0, i, t] = y[i, start + t]
                g[i, t] = slope[i, start + t]
        for j in range(N):
            _hidden(K[j], b[j], z[j], s[j], k)
            _sum_of_two(A[j], B[j], z[j], s[j], z[j + 1], n)
        for j in range(N - 1, -1, -1):
            if wanted[0]:
                _products(g, z[j], dA[j], n, n)
            if wanted[1]:
                _products(g, s[j], dB[j], n, k)
            _before(BT[j], g, s[j], d, db[j], k)
            if wanted[2]:
                _products(d, z[j], dK[j], k, n)
            _sum_of_two(AT[j], KT[j], g, d, before, n)
            g, before = before, g
        for i in range(n):
            for t in range(size):
                back[i, start + t] = g[i, t]


# ---- from torch -----------------------------------------------------------------------------------------------------


def suits(y: Tensor, n: int, k: int) -> bool:
    """Columns y: (n, M) on a CPU, k hidden units."""
    return y.device.type == "cpu" and max(n, k) <= WIDEST


def forward(y: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """weights: A (N, n, n), B (N, n, k), K (N, k, n), b (N, k); y: (n, M) -> (n, M)."""
    y, out, k = y.contiguous(), torch.empty_like(y, memory_format=torch.contiguous_format), weights[3].shape[1]
    packed = tuple(map(_padded, weights))
    _in_parts(y.shape[1], lambda part: forwards(packed, y.numpy(), out.numpy(), k, part))
    return out


def backward(y: Tensor, weights: Sequence[Tensor], slope: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """The gradients at y, A, B, K and b from that at the last state; zeros at weights where none is wanted."""
    y, slope, k = y.contiguous(), slope.contiguous(), weights[3].shape[1]
    back = torch.empty_like(y)
    packed = tuple(map(_padded, weights))
    turned = tuple(np.ascontiguousarray(each.swapaxes(1, 2)) for each in packed[:3])

    def run(part: tuple[int, int]) -> tuple[np.ndarray, ...]:
        sums = tuple(map(np.zeros_like, packed))
        backwards(packed, turned, y.numpy(), slope.numpy(), back.numpy(), (sums, tuple(wanted)), k, part)
        return sums

    parts = _in_parts(y.shape[1], run)
    total = (torch.from_numpy(np.sum(each, axis=0)) for each in zip(*parts, strict=True))
    return back, *(each[tuple(map(slice, like.shape))] for each, like in zip(total, weights, strict=True))


def _padded(weight: Tensor) -> np.ndarray:
    """(N, r, c) or (N, r) -> (N, 8, 8) or (N, 8), zeros behind."""
    missing = [(0, WIDEST - size) for size in reversed(weight.shape[1:])]
    return F.pad(weight.detach(), [side for pair in missing for side in pair]).numpy()


def _in_parts(columns: int, run: Callable[[tuple[int, int]], Any]) -> list[Any]:
    """run(first, last) on a thread each; where the parts end depends on the number of threads alone."""
    count = min(torch.get_num_threads(), -(-columns // FOR_A_THREAD))
    size = -(-columns // (max(count, 1) * TILE)) * TILE
    parts = [(first, min(first + size, columns)) for first in range(0, columns, max(size, 1))]
    return list(_threads(os.getpid()).map(run, parts)) if len(parts) > 1 else [run(part) for part in parts]


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Of this process: one that was forked from it has none of its threads."""
    return ThreadPoolExecutor(os.cpu_count())

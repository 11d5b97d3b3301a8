"""Largest singular values of many small matrices at once.

LAPACK takes them one by one, a microsecond each; for widths 2 and 4, which the toy sets have, there are closed forms,
and those are a few operations on all matrices together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robode.linalg.norms import spectral_norms

TINY = 1e-150
CHUNK = 2**13  # matrices whose intermediate results, vectors of this length, fit into a cache


def largest_singular_values(A: Tensor) -> Tensor:
    """2-norms, exact to rounding, of matrices along the last dimension. A: (..., n, n, M), float32 or float64 ->
    (..., M).

    In float32 the closed form of width 4 is evaluated in float64, where it is good to 1e-8; float64 goes to LAPACK.
    Of a matrix that is not finite the result is not finite either.
    """
    if A.shape[-2] == 2:
        return _width_2(A)
    if A.shape[-2] == 4 and A.dtype == torch.float32:
        rows = max(CHUNK // max(A.shape[-1], 1), 1)
        parts = torch.split(A.reshape(-1, 4, 4, A.shape[-1]), rows)
        return torch.cat([_width_4(part) for part in parts]).view(*A.shape[:-3], -1)
    A = A.movedim(-1, -3)
    finite = A.isfinite().flatten(-2).all(-1)
    if bool(finite.all()):
        return spectral_norms(A)
    return torch.where(finite, spectral_norms(torch.where(finite[..., None, None], A, 0)), torch.nan)  # LAPACK raises


def _width_2(A: Tensor) -> Tensor:
    """A = a rotation times p plus a reflection times q; the largest stretch is p + q."""
    (a, b), (c, d) = (row.unbind(-2) for row in A.unbind(-3))
    return 0.5 * (torch.hypot(a + d, c - b) + torch.hypot(a - d, b + c))


def _width_4(A: Tensor) -> Tensor:
    """A: (R, 4, 4, M), float32. From the largest eigenvalue of G = A^T A, which is tr G / 4 + s1 + s2 +- s3.

    Rotations of R^4 act on the traceless part of G as two rotations of R^3 act, from left and right, on a 3 x 3 matrix
    S; s1 >= s2 >= s3 are the singular values of S and the sign is that of det S (B. K. P. Horn, Closed-form solution of
    absolute orientation using unit quaternions, 1987, where G is his N). Below T = 2 S / tr G.
    """
    columns = [[A[:, i, j].double() for i in range(4)] for j in range(4)]
    G = {(i, j): _dot(columns[i], columns[j]) for i in range(4) for j in range(i, 4)}
    trace = G[0, 0] + G[1, 1] + G[2, 2] + G[3, 3]
    scale = 1 / trace.clamp_min(TINY)
    xx, yy, zz = ((G[0, 0] + G[i, i] - 0.5 * trace) * scale for i in (1, 2, 3))
    pairs = ((G[2, 3], G[0, 1]), (G[1, 3], G[0, 2]), (G[1, 2], G[0, 3]))
    (yz, zy), (zx, xz), (xy, yx) = (((p + q) * scale, (p - q) * scale) for p, q in pairs)
    signed_sum = _signed_sum((xx, xy, xz), (yx, yy, yz), (zx, zy, zz))
    return (trace * (0.25 + 0.5 * signed_sum)).clamp_min(0).sqrt().to(A.dtype)


def _signed_sum(x: Sequence[Tensor], y: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """s1 + s2 + sign(det) s3 of matrices with the rows x, y, z, from s1 alone:
    (s2 +- s3)^2 = |T|^2 - s1^2 + 2 det T / s1."""
    a, b, c = _dot(x, x), _dot(y, y), _dot(z, z)
    xy, xz, yz = _dot(x, y), _dot(x, z), _dot(y, z)
    mean = (a + b + c) / 3
    a, b, c = a - mean, b - mean, c - mean  # T T^T - mean I, with the eigenvalue 2 r cos(angle / 3) (O. K. Smith, 1961)
    xy2, xz2, yz2 = xy * xy, xz * xz, yz * yz
    r = ((_dot((a, b, c), (a, b, c)) + 2 * (xy2 + xz2 + yz2)) / 6).sqrt()
    determinant = a * (b * c - yz2) - c * xy2 - b * xz2 + 2 * xy * xz * yz
    angle = (determinant / (2 * r * r * r).clamp_min(TINY)).clamp(-1, 1).acos()
    s1 = (mean + 2 * r * (angle / 3).cos()).sqrt()
    cross = [y[1] * z[2] - y[2] * z[1], y[2] * z[0] - y[0] * z[2], y[0] * z[1] - y[1] * z[0]]
    return s1 + (3 * mean - s1 * s1 + 2 * _dot(x, cross) / s1.clamp_min(TINY)).clamp_min(0).sqrt()


def _dot(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total = total.addcmul_(a, b)
    return total

"""Largest singular values of many small matrices at once.

LAPACK takes them one by one, a microsecond each; for widths 2 and 4, which the toy sets have, there are closed forms,
and those are a few operations on all matrices together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robode.ode.norms import spectral_norms

TINY = 1e-150
CHUNK = 2**13  # matrices whose intermediate results fit into a cache


def largest_singular_values(A: Tensor) -> Tensor:
    """2-norms of a batch of matrices, exact to rounding. A: (..., n, n), float32 or float64 -> (...).

    In float32 the closed form of width 4 is evaluated in float64, where it is good to 1e-8; float64 goes to LAPACK.
    Of a matrix that is not finite the result is not finite either.
    """
    if A.shape[-1] == 2:
        return _width_2(A)
    if A.shape[-1] == 4 and A.dtype == torch.float32:
        parts = torch.split(A.reshape(-1, 4, 4), CHUNK)
        return torch.cat([_width_4(part) for part in parts]).view(A.shape[:-2])
    finite = A.isfinite().flatten(-2).all(-1)
    if bool(finite.all()):
        return spectral_norms(A)
    return torch.where(finite, spectral_norms(torch.where(finite[..., None, None], A, 0)), torch.nan)  # LAPACK raises


def _width_2(A: Tensor) -> Tensor:
    """A = a rotation times p plus a reflection times q; the largest stretch is p + q."""
    a, b, c, d = A.flatten(-2).unbind(-1)
    return 0.5 * (torch.hypot(a + d, c - b) + torch.hypot(a - d, b + c))


def _width_4(A: Tensor) -> Tensor:
    """From the largest eigenvalue of G = A^T A: tr G / 4 + s1 + s2 +- s3.

    Rotations of R^4 act on the traceless part of G as two rotations of R^3 act, from left and right, on a 3 x 3 matrix
    S; s1 >= s2 >= s3 are the singular values of S and the sign is that of det S (B. K. P. Horn, Closed-form solution of
    absolute orientation using unit quaternions, 1987, where G is his N).
    """
    a = A.flatten(-2).T.contiguous()  # entry by entry: (16, M)
    scale = a.abs().amax(0).clamp_min(torch.finfo(A.dtype).tiny)
    c0, c1, c2, c3 = (a / scale).view(4, 4, -1).unbind(1)  # columns
    g = torch.stack([(x * y).sum(0) for x, y in ((c0, c0), (c1, c1), (c2, c2), (c3, c3))]).double()
    f01, f23, f02, f13, f03, f12 = torch.stack(
        [(x * y).sum(0) for x, y in ((c0, c1), (c2, c3), (c0, c2), (c1, c3), (c0, c3), (c1, c2))]
    ).double()
    half = 0.5 * torch.stack([f23 + f01, f23 - f01, f02 + f13, f13 - f02, f03 + f12, f12 - f03])
    yz, zy, zx, xz, xy, yx = half
    trace = g.sum(0)
    xx, yy, zz = 0.5 * (g[0] + g[1:]) - 0.25 * trace
    S = torch.stack([torch.stack([xx, xy, xz]), torch.stack([yx, yy, yz]), torch.stack([zx, zy, zz])])
    return scale * (0.25 * trace + _signed_sum(S)).clamp_min(0).sqrt().to(A.dtype)


def _signed_sum(S: Tensor) -> Tensor:
    """s1 + s2 + sign(det S) s3 of matrices S (3, 3, M), from s1 alone: (s2 +- s3)^2 = |S|^2 - s1^2 + 2 det S / s1."""
    x, y, z = S
    squares = (S * S).sum(1)
    mean = squares.sum(0) / 3
    xy, xz, yz = (x * y).sum(0), (x * z).sum(0), (y * z).sum(0)
    a, b, c = squares - mean  # S S^T - mean I, whose largest eigenvalue is 2 r cos(angle / 3) (O. K. Smith, 1961)
    xy2, xz2, yz2 = xy * xy, xz * xz, yz * yz
    r = ((a * a + b * b + c * c + 2 * (xy2 + xz2 + yz2)) / 6).sqrt()
    determinant = a * (b * c - yz2) - c * xy2 - b * xz2 + 2 * xy * xz * yz
    angle = (determinant / (2 * r**3).clamp_min(TINY)).clamp(-1, 1).acos()
    s1 = (mean + 2 * r * (angle / 3).cos()).sqrt()
    of_S = (x * torch.linalg.cross(y, z, dim=0)).sum(0)
    return s1 + (3 * mean - s1 * s1 + 2 * of_S / s1.clamp_min(TINY)).clamp_min(0).sqrt()

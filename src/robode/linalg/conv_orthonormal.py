"""Convolutions with nearly orthonormal rows: kernels to start from, and a step that leads back to them.

W is the convolution, W W^T = I means orthonormal rows, and W^T W = I orthonormal columns where W has more output
channels than input channels. Kernels of a fixed size have no closed form for the nearest such W, as matrices have
(`linalg.orthonormal`); a Newton-Schulz step from nearby is enough after each step of an optimiser
(docs/theory.md, section 26).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robode.linalg.orthonormal import random_orthonormal

REACH = 2.0  # ||W||^2 from which a step leads towards 1: beyond 3 it changes the sign of what it should shorten


def random_orthonormal_kernels(count: int, rows: int, channels: int, size: int) -> Tensor:
    """(count, rows, channels, size, size) float32 whose middle tap is a random matrix with orthonormal rows (columns if
    rows > channels), all others zero: orthonormal on images of every size, at their edges too. size: odd."""
    kernels = torch.zeros(count, rows, channels, size, size)
    kernels[..., size // 2, size // 2] = random_orthonormal(count, rows, channels)
    return kernels


def newton_schulz(kernels: Tensor) -> Tensor:
    """W (3 I - W^T W) / 2, cut to the taps of the kernel. kernels: (L, c', c, k, l), ||W||^2 <= `REACH` -> the same.

    Each singular value s becomes s (3 - s^2) / 2 <= 1, apart from what is cut. With the cut it is still the step of
    length 1/2 down the gradient of ||W W^T - I||_F^2 / 4 per pixel, by the kernel's entries: (W W^T - I) W, cut.
    (Bjorck, Bowie, 1971, for matrices)
    """
    if kernels.shape[1] > kernels.shape[2]:  # the smaller of W W^T and W^T W
        return newton_schulz(kernels.transpose(1, 2)).transpose(1, 2)
    count, rows, channels, k, m = kernels.shape
    # W W^T has the kernel R[i, j](d) = <row i, row j shifted by d>, d up to k - 1; one group for each W
    R = F.conv2d(kernels.transpose(0, 1).flatten(1, 2), kernels.flatten(0, 1), padding=(k - 1, m - 1), groups=count)
    R = R.view(rows, count, rows, *R.shape[2:]).transpose(0, 1)  # (L, i, j, 2 k - 1, 2 m - 1)
    stacked = kernels.permute(2, 0, 1, 3, 4).flatten(1, 2)  # (c, L c', k, l)
    cubed = F.conv2d(stacked, R.flip(-2, -1).flatten(0, 1), padding=(k - 1, m - 1), groups=count)
    return 1.5 * kernels - 0.5 * cubed.view(channels, count, rows, k, m).permute(1, 2, 0, 3, 4)

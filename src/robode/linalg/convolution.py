"""Linear maps of images and their certified norms, in float64.

A convolution with zero padding reads the image as if zeros went on for ever. On a torus that is large enough for no two
positions it reads or writes to coincide, it is a compression of the circular convolution, whose norm is exactly the
largest ||K^(w)|| over the torus's frequencies w. Source: docs/theory.md, section 14.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.norms import ROUNDING

Padding = tuple[int, int]


def conv_norm(
    kernel: Tensor,
    height: int,
    width: int,
    *,
    padding: Padding | None = None,
    circular: bool = False,
    stride: tuple[int, int] = (1, 1),
) -> Tensor:
    """Certified 2-norm of a convolution on height x width images; exact for circular "same" convolutions of stride 1;
    0-d float64, nan for kernels that are not finite.

    kernel: (out, in, k, l), any sizes. padding: pixels on the larger side of each axis; None = "same", k // 2.
    circular: the padding repeats the image instead of adding zeros.

    Raises:
        BadInput: an image that is smaller than the kernel, even with its padding.
    """
    padding = padding or (kernel.shape[2] // 2, kernel.shape[3] // 2)
    if stride != (1, 1) and not circular:
        rows, columns = _outputs(kernel, (height, width), padding)
        return _strided_norm(kernel, stride, ((rows - 1) // stride[0] + 1, (columns - 1) // stride[1] + 1))
    torus, copies = _geometry(kernel, (height, width), padding, circular)  # a stride only leaves outputs out
    return _largest(_symbol(kernel, *torus)) * copies * ROUNDING


def dilated(kernel: Tensor, dilation: tuple[int, int]) -> Tensor:
    """The kernel (out, in, k, l) with the zeros written out that a dilation puts between its entries."""
    (k, m), (d, e) = kernel.shape[2:], dilation
    found = kernel.new_zeros(*kernel.shape[:2], d * (k - 1) + 1, e * (m - 1) + 1)
    found[:, :, ::d, ::e] = kernel
    return found


def _outputs(kernel: Tensor, size: tuple[int, int], padding: Padding) -> tuple[int, int]:
    """Height and width of what a stride-1 convolution gives."""
    found = tuple(n + 2 * p - k + 1 for n, p, k in zip(size, padding, kernel.shape[2:], strict=True))
    if min(found) < 1:
        shown = " x ".join(map(str, kernel.shape[2:]))
        raise BadInput(f"convolution: the kernel {shown} is larger than the image {size[0]} x {size[1]} with padding")
    return found[0], found[1]


def _geometry(kernel: Tensor, size: tuple[int, int], padding: Padding, circular: bool) -> tuple[tuple[int, int], float]:
    """The torus on which the convolution is a compression of a circular one, and a factor of its norm.

    Zero padding: outputs read the positions -p ... N + p - 1; on N + p points none of those outside the image is inside
    it. The torus of the image's own size would not do: its two edges overlap. Outputs that no pixel reaches (p >= k)
    are constant. Circular padding that is wider than "same" computes some outputs several times: the factor.
    """
    outputs = _outputs(kernel, size, padding)
    if circular:
        return size, math.sqrt(math.prod(math.ceil(out / n) for out, n in zip(outputs, size, strict=True)))
    rows, columns = (max(n + min(p, k - 1), k) for n, p, k in zip(size, padding, kernel.shape[2:], strict=True))
    return (rows, columns), 1.0


def _symbol(kernel: Tensor, height: int, width: int) -> Tensor:
    """K^(w) of the circular convolution on a height x width torus: (height, width // 2 + 1, out, in) complex128.

    The other half of the frequencies are complex conjugates. A kernel that is larger than the torus is wound around it.
    """
    k, m = kernel.shape[2:]
    if k > height or m > width:
        rows, columns = -(-k // height), -(-m // width)
        wide = torch.nn.functional.pad(kernel, (0, columns * width - m, 0, rows * height - k))
        kernel = wide.reshape(*kernel.shape[:2], rows, height, columns, width).sum((2, 4))
    return torch.fft.rfft2(kernel.double(), s=(height, width)).permute(2, 3, 0, 1)


def _largest(symbol: Tensor) -> Tensor:
    symbol = symbol.detach()
    finite = torch.view_as_real(symbol).isfinite().all()
    return torch.where(finite, torch.linalg.svdvals(torch.where(finite, symbol, 0.0))[..., 0].max(), torch.nan)


def _strided_norm(kernel: Tensor, stride: tuple[int, int], outputs: tuple[int, int]) -> Tensor:
    """A strided convolution is a stride-1 convolution of the padded image's space-to-depth form, an isometry.

    Output o reads padded position s o + k = s (o + a) + b at entry a of the kernel for phase b, without padding.
    """
    (k, m), (s, r) = kernel.shape[2:], stride
    a, b = -(-k // s), -(-m // r)
    wide = torch.nn.functional.pad(kernel, (0, b * r - m, 0, a * s - k))
    phases = wide.reshape(*kernel.shape[:2], a, s, b, r).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    return _largest(_symbol(phases, outputs[0] + a - 1, outputs[1] + b - 1)) * ROUNDING

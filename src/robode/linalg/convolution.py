"""Linear maps of images and upper bounds of their norms.

A convolution with zero padding reads the image as if zeros went on for ever. On a torus that is large enough for no two
positions it reads or writes to coincide, it is a compression of the circular convolution, whose norm is exactly the
largest ||K^(w)|| over the torus's frequencies w. Source: Sedghi, Gupta, Long, "The singular values of convolutional
layers", 2019; docs/theory.md, section 14.

`conv_norm`, in float64 by singular values, is the certificate; `norms_squared`, in float32, is for projections. Both
have a form for images of every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robode.errors import BadInput
from robode.linalg.definite import UNIT
from robode.linalg.norms import ROUNDING, host_may_look

PROOF = 5e-4  # by how much `norms_squared` may exceed the largest of the matrices: a thousand times float32's rounding
ITERATIONS, GUESSES = 10, 4
TINY = torch.finfo(torch.float32).tiny

GRID = 32  # points an axis, for norms on images of every size: 3x3 kernels lose 0.97 %, see `between_frequencies`

Padding = tuple[int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """W: images (B, c, H, W) -> (B, c', H, W), stride 1, zero padding. kernel: (c', c, 2p + 1, 2q + 1)."""

    kernel: Tensor

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels (up and down, left and right) with which the picture keeps its size."""
        return self.kernel.shape[2] // 2, self.kernel.shape[3] // 2

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """W x + b. x: (B, c, H, W); bias: (c')."""
        return F.conv2d(x, self.kernel, bias, padding=self.padding)

    def adjoint(self, z: Tensor) -> Tensor:
        """W^T z. z: (B, c', H, W) -> (B, c, H, W)."""
        return F.conv_transpose2d(z, self.kernel, padding=self.padding)

    def norm(self, height: int, width: int) -> float:
        """Certified upper bound of ||W|| on height x width images, in float64."""
        return float(conv_norm(self.kernel, height, width))

    def norm_of_every_size(self) -> float:
        """The same for images of any size."""
        return float(conv_norm_of_every_size(self.kernel, GRID))


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


def conv_norm_of_every_size(kernel: Tensor, grid: int = 64) -> Tensor:
    """Certified 2-norm of a convolution on images of any size, with zero padding of any width or circular "same"
    padding: 0-d float64, nan for kernels that are not finite.

    ||K^(w)|| at all real frequencies w is at most its largest value on a grid times `between_frequencies`. kernel:
    (out, in, k, l). grid: points an axis; 16 for each tap beside the middle one where that is more.
    """
    points = _points(kernel.shape[2:], grid)
    return _largest(_symbol(kernel, *points)) * between_frequencies(kernel.shape[2:], points) * ROUNDING


def norms_squared_of_every_size(kernels: Tensor) -> Tensor:
    """`norms_squared` for images of every size, on `GRID` points: at most 0.05 % above the square of
    `conv_norm_of_every_size` on that grid. (L, c', c, 2p + 1, 2q + 1) -> (L) float32."""
    taps = kernels.shape[3:]
    slack = between_frequencies(taps, _points(taps, GRID)) ** 2 * ROUNDING
    return norms_squared(kernels, *size_of_grid(taps)) * slack


def size_of_grid(taps: Sequence[int]) -> Size:
    """The image for which a torus has the points of `norms_squared_of_every_size`."""
    height, width = (n - k // 2 for n, k in zip(_points(taps, GRID), taps, strict=True))
    return height, width


def between_frequencies(taps: Sequence[int], points: Sequence[int]) -> float:
    """How much larger than on a grid the norm of a symbol can be anywhere: 1/cos(pi p/M) an axis, p = taps // 2, M
    points (Ehlich and Zeller, Math. Z. 86, 1964; docs/theory.md, section 29).

    Raises:
        BadInput: fewer than 2 p + 1 points, where the grid says nothing.
    """
    if any(2 * (k // 2) >= M for k, M in zip(taps, points, strict=True)):
        raise BadInput(f"convolution: expected more than {max(taps) // 2 * 2} points an axis, got {min(points)}")
    return 1 / math.prod(math.cos(math.pi * (k // 2) / M) for k, M in zip(taps, points, strict=True))


def _points(taps: Sequence[int], grid: int) -> Size:
    down, along = (max(grid, 16 * (k // 2)) for k in taps)
    return down, along


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
        wide = F.pad(kernel, (0, columns * width - m, 0, rows * height - k))
        kernel = wide.reshape(*kernel.shape[:2], rows, height, columns, width).sum((2, 4))
    return torch.fft.rfft2(kernel.double(), s=(height, width)).permute(2, 3, 0, 1)


@dataclass(frozen=True)
class Symbol:
    """From kernels (..., 2p + 1, 2q + 1) to their symbols on the torus of a zero-padded "same" convolution, at one
    frequency of each conjugate pair: sums of waves, so with an error that is proved, and differentiable.

    torus: its height and width; waves: (F, (2p + 1)(2q + 1)) complex128.
    """

    torus: tuple[int, int]
    waves: Tensor

    @classmethod
    def of(cls, taps: Sequence[int], size: tuple[int, int]) -> Symbol:
        """taps: (2p + 1, 2q + 1); size: (H, W) of the images."""
        reach = [k // 2 for k in taps]
        height, width = (max(n + p, k) for n, p, k in zip(size, reach, taps, strict=True))
        turns = _turns(height, width, reach[0] + 1, reach[1] + 1)
        return cls((height, width), torch.polar(torch.ones_like(turns), turns))

    def __call__(self, kernel: Tensor, which: Tensor | None = None) -> Tensor:
        """K^(f) of a kernel (c', c, 2p + 1, 2q + 1) float64, at all frequencies or some: (F, c', c) complex128."""
        waves = self.waves if which is None else self.waves[which]
        parts = torch.view_as_real(waves).permute(0, 2, 1) @ kernel.flatten(2).permute(2, 0, 1).flatten(1)
        return torch.complex(parts[:, 0], parts[:, 1]).view(-1, *kernel.shape[:2])

    def to(self, device: torch.device) -> Symbol:
        """The same on another device."""
        return Symbol(self.torus, self.waves.to(device))

    def error(self, kernel: Tensor) -> float:
        """By how much rounding changes the norm of K^(f), at most (docs/theory.md, section 20)."""
        sums = kernel.abs().sum((2, 3))
        taps, reach = self.waves.shape[1], sum(kernel.shape[2:])
        return 2 * UNIT * (taps + 32 * reach + 16) * float(torch.maximum(sums.sum(0).amax(), sums.sum(1).amax()))

    def phases(self, size: tuple[int, int]) -> Tensor:
        """2 pi f . x of the frequencies at the pixels x of an image: (F, H, W)."""
        height, width = self.torus
        down, along = (
            2 * math.pi / n * torch.arange(count, dtype=torch.float64)[:, None] * torch.arange(pixels)
            for n, count, pixels in ((height, height, size[0]), (width, width // 2 + 1, size[1]))
        )
        return (down[:, None, :, None] + along[None, :, None, :]).flatten(0, 1)


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
    wide = F.pad(kernel, (0, b * r - m, 0, a * s - k))
    phases = wide.reshape(*kernel.shape[:2], a, s, b, r).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    return _largest(_symbol(phases, outputs[0] + a - 1, outputs[1] + b - 1)) * ROUNDING


@torch.no_grad()
def norms_squared(kernels: Tensor, height: int, width: int) -> Tensor:
    """Upper bounds of ||W||^2 that are cheap enough for every optimiser step: in float32, at most 0.05 % above the
    largest of the squared norms of the symbol. kernels: (L, c', c, 2p + 1, 2q + 1) -> (L) float32.

    A guess by power iteration, a proof by Cholesky factorisation: where guess I - G(f) has none, and there alone, the
    largest eigenvalue of the Gram matrix G(f) is computed. A function of the weights alone; nan where a kernel, or a
    square of its norm, is not finite.
    """
    fine = kernels.flatten(1).isfinite().all(1)
    G = gram_symbols(torch.where(fine[:, None, None, None, None], kernels, 0.0).float(), height, width)
    frobenius = torch.view_as_real(G).square().sum((-3, -2, -1)).sqrt()
    scale = frobenius.amax(1).clamp_min(TINY)  # no power of G overflows, and the largest does not vanish
    G = G / scale[:, None, None, None]
    v = G.sum(-1, keepdim=True)
    for _ in range(ITERATIONS):
        v, before = G @ v, v
    growth = v.abs().square().sum((-2, -1)) / before.abs().square().sum((-2, -1)).clamp_min(TINY)
    likely = growth.topk(min(GUESSES, G.shape[1]), 1).indices
    guess = _largest_eigenvalues(torch.take_along_dim(G, likely[..., None, None], 1)).amax(1)
    difference = -G
    difference.diagonal(dim1=-2, dim2=-1).add_((1 + PROOF / 2) * guess[:, None, None])
    unproved = torch.linalg.cholesky_ex(difference).info > 0
    found = torch.zeros_like(unproved, dtype=guess.dtype)
    if not host_may_look(kernels):
        found = torch.where(unproved, _largest_eigenvalues(G), found)
    elif bool(unproved.any()):
        found[unproved] = _largest_eigenvalues(G[unproved])
    bound = torch.maximum(guess, found.amax(1)) * scale * (1 + PROOF)
    return torch.where(fine & bound.isfinite(), bound, torch.nan)


def gram_symbols(kernels: Tensor, height: int, width: int) -> Tensor:
    """W^(f)* W^(f), or W^(f) W^(f)* where that is smaller, of circular convolutions on the (height + p) x (width + q)
    torus at one frequency f of each conjugate pair: (L, c', c, k, l) -> (L, frequencies, n, n), n = min(c', c).

    W^T W is itself a convolution. Its kernel R is the correlation of W's kernel with itself, and as R(-d) = R(d)^T,
    half of it and real arithmetic give the Hermitian matrices. complex64.
    """
    K = kernels if kernels.shape[1] <= kernels.shape[2] else kernels.transpose(1, 2)
    k, m = K.shape[-2:]
    with torch.backends.cudnn.flags(enabled=False):  # which would round to TF32
        R = F.conv2d(K.transpose(0, 1).flatten(1, 2), K.flatten(0, 1), padding=(k - 1, m - 1), groups=len(K))
    R = R.flatten(2).permute(2, 1, 0).reshape(-1, *K.shape[:2], K.shape[1]).transpose(0, 1)  # (L, shifts, n, n)
    middle = R.shape[1] // 2
    later, zero = R[:, middle + 1 :], torch.zeros_like(R[:, : middle + 1])
    real = torch.cat([R[:, middle, None], later + later.mT, zero[:, 1:]], 1)
    imaginary = torch.cat([zero, later.mT - later], 1)
    turns = _turns(max(height + k // 2, k), max(width + m // 2, m), k, m)[:, middle:]
    waves = torch.cat([turns.cos(), turns[:, 1:].sin()], 1).to(R)
    parts = torch.stack([real, imaginary], -1).flatten(2)
    return torch.view_as_complex((waves @ parts).view(len(K), -1, *R.shape[-2:], 2))


def _turns(height: int, width: int, rows: int, columns: int) -> Tensor:
    """Phases of the shifts -(rows - 1) ... rows - 1 by -(columns - 1) ... columns - 1 of a height x width torus at the
    frequencies that `torch.fft.rfft2` keeps: (frequencies, shifts) float64."""
    down, along = (
        2 * math.pi / size * torch.arange(frequencies, dtype=torch.float64)[:, None] * torch.arange(1 - taps, taps)
        for size, frequencies, taps in ((height, height, rows), (width, width // 2 + 1, columns))
    )
    return (down[:, None, :, None] + along[None, :, None, :]).flatten(2).flatten(0, 1)


def _largest_eigenvalues(G: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(G)[..., -1].clamp_min(0)


# From c channels to c or 4 c, for even H and W, with the norm (Lipschitz constant) 1: (B, c, H, W) -> (B, ., H/2, W/2).
# Each output of the mean is the inner product with (1/2, 1/2, 1/2, 1/2); windows of the maximum do not overlap.
HALVINGS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "space_to_depth": (lambda x: F.pixel_unshuffle(x, 2), 4),
    "mean_pool": (lambda x: 2 * F.avg_pool2d(x, 2), 1),
    "max_pool": (lambda x: F.max_pool2d(x, 2), 1),
}

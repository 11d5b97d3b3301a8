"""Linear maps of images and their certified norms, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.ode.norms import ROUNDING


def conv_norm(kernel: Tensor, height: int, width: int) -> float:
    """Certified 2-norm of a stride-1 "same" convolution with zero padding on height x width images, odd kernel sizes.

    kernel: (out, in, 2p + 1, 2q + 1). The operator is a compression of the circular convolution on the
    (height + p) x (width + q) torus, whose norm is exactly the largest ||K^(w)|| over its discrete frequencies w.
    The torus of the image's own size would not do: there the two edges overlap. Source: specs, Lipschitz networks 3.3.
    """
    p, q = kernel.shape[2] // 2, kernel.shape[3] // 2
    symbol = torch.fft.rfft2(kernel.detach().double(), s=(height + p, width + q))
    return float(torch.linalg.svdvals(symbol.permute(2, 3, 0, 1))[..., 0].max()) * ROUNDING

"""Common corruptions of images: blur, rotation, translation and loss of contrast, each a fixed map of the pixels.

In data units under every protocol, without random numbers, and level 0 is the clean image. After the corruptions of
Hendrycks and Dietterich (2019), Benchmarking neural network robustness to common corruptions, and the small rotations
and translations of Engstrom et al. (2019), Exploring the landscape of spatial robustness.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from robode.config.levels import noise_levels
from robode.corruptions.perturbation import Batch, Bounds, Corruption, clip

TAILS = 4.0  # Standard deviations at which the kernel of the blur ends; beyond them lie 6e-5 of a Gaussian.


class ImageCorruption(Corruption):
    """One of the corruptions of this file: a map of images in data units, clipped to their bounds."""

    in_data_units = True

    def refusal(self, bounds: Bounds | None) -> str | None:
        return f"{self.name} is defined for images, and these data are vectors" if bounds is None else None

    def perturb(self, batch: Batch, severity: float) -> Tensor:
        assert batch.bounds is not None
        if severity == 0:
            return batch.x.clone()
        return clip(self.changed(batch.x, severity, batch.bounds[0]), batch.bounds)

    @abstractmethod
    def changed(self, x: Tensor, severity: float, black: float) -> Tensor:
        """A new tensor like x (B, C, H, W). black: the lower bound of the data, which lies around every image."""


class Blur(ImageCorruption):
    """A Gaussian blur, with the image's edge pixels repeated around it. sigma: one or more widths in pixels."""

    name = "blur"
    severity_unit = "sigma_px"

    def __init__(self, sigma: float | Sequence[float], suite: str = "corruptions") -> None:
        super().__init__(suite, noise_levels("suite.blur.sigma", sigma, 100.0))

    def changed(self, x: Tensor, severity: float, black: float) -> Tensor:
        rows, columns = (blur_matrix(size, severity).to(x) for size in x.shape[-2:])
        return rows @ x @ columns.mT


def blur_matrix(size: int, sigma: float) -> Tensor:
    """Row i holds the weights with which pixel i of a blurred line sums up the pixels of the line: (size, size)
    float64, each row a sampled Gaussian with sum 1. sigma > 0 in pixels."""
    radius = int(TAILS * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma).square())
    neighbours = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, neighbours, (weights / weights.sum()).expand(size, -1))


class Rotation(ImageCorruption):
    """A counter-clockwise rotation about the centre, bilinear. degrees: one or more angles in [0, 180]."""

    name = "rotation"
    severity_unit = "degrees"

    def __init__(self, degrees: float | Sequence[float], suite: str = "corruptions") -> None:
        super().__init__(suite, noise_levels("suite.rotation.degrees", degrees, 180.0))

    def changed(self, x: Tensor, severity: float, black: float) -> Tensor:
        # What comes in from outside is 0, hence the shift (none for images in [0, 1]).
        return rotate(x - black, severity, InterpolationMode.BILINEAR) + black


class Translation(ImageCorruption):
    """A shift to the right, linear between whole pixels. pixels: one or more distances; at the image's width and
    beyond nothing is left of it."""

    name = "translation"
    severity_unit = "pixels"

    def __init__(self, pixels: float | Sequence[float], suite: str = "corruptions") -> None:
        super().__init__(suite, noise_levels("suite.translation.pixels", pixels, float("inf")))

    def changed(self, x: Tensor, severity: float, black: float) -> Tensor:
        whole = int(severity)
        shifted = _to_the_right(x, whole, black)
        return shifted if whole == severity else shifted.lerp(_to_the_right(x, whole + 1, black), severity - whole)


def _to_the_right(x: Tensor, pixels: int, black: float) -> Tensor:
    shifted = torch.full_like(x, black)
    shifted[..., pixels:] = x[..., : max(x.shape[-1] - pixels, 0)]
    return shifted


class Contrast(ImageCorruption):
    """m + (1 - lost)(x - m) with m the mean of each image and channel. lost: one or more shares of the contrast in
    [0, 1]; 1 - lost is the factor that remains."""

    name = "contrast"
    severity_unit = "lost_share"

    def __init__(self, lost: float | Sequence[float], suite: str = "corruptions") -> None:
        super().__init__(suite, noise_levels("suite.contrast.lost", lost, 1.0))

    def changed(self, x: Tensor, severity: float, black: float) -> Tensor:
        return x.lerp(x.mean(dim=(-2, -1), keepdim=True), severity)

"""Training images turned, zoomed and shifted a little, anew in every step: what a 1-Lipschitz network overfits least.

As `augment=motion`, or inside a loss (`objective.margin_….rotation`): either way the data themselves, their digest and
everything measured on them stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robode.data.augment import Augmentation
from robode.data.batches import in_units
from robode.errors import BadInput


def number(key: str, found: object, above: bool) -> float:
    """A finite number >= 0, or > 0 if `above`. Raises `BadInput` naming the key."""
    real = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    if not real or not (found > 0 if above else found >= 0):  # type: ignore[operator]
        raise BadInput(f"{key}: expected a number {'>' if above else '>='} 0, got {found}")
    return float(found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Motion(Augmentation):
    """Random affine maps of images, with bilinear interpolation and black (0) outside.

    rotation: at most, in degrees; zoom: at most, as a share (0.1: sizes from 0.9 to 1.1); shift: at most, in pixels,
    along each axis. Uniform and independent for each image, from torch's global generator, which is in every
    checkpoint. All 0: nothing is drawn and nothing changes. key: where it stands in the configuration.

    Raises:
        BadInput: a value that is no number >= 0, a zoom >= 1, or (at the first step) data that are no images.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    key: str = "augment"

    def __post_init__(self) -> None:
        for name in ("rotation", "zoom", "shift"):
            number(f"{self.key}.{name}", getattr(self, name), above=False)
        if self.zoom >= 1:
            raise BadInput(f"{self.key}.zoom: expected a share below 1, got {self.zoom}")

    @property
    def still(self) -> bool:
        """Whether nothing is drawn and nothing changes."""
        return not (self.rotation or self.zoom or self.shift)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in data units, or uint8 standing for x/255 -> the same in data units."""
        if self.still:
            return x
        if x.dim() != 4:
            raise BadInput(f"{self.key}.rotation, zoom and shift: expected images, got samples {tuple(x.shape[1:])}")
        x = in_units(x) if x.dtype == torch.uint8 else x
        grid = functional.affine_grid(self._maps(x), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)

    def _maps(self, x: Tensor) -> Tensor:
        """(B, 2, 3): where each output pixel comes from, in coordinates of the half image."""
        height, width = x.shape[2:]
        turn, zoom, right, down = (2 * torch.rand(4, len(x)) - 1).to(x)
        angle, size = turn * math.radians(self.rotation), 1 / (1 + zoom * self.zoom)
        cos, sin = size * angle.cos(), size * angle.sin()
        across = torch.stack((cos, -sin * height / width, right * self.shift * 2 / width), dim=1)
        along = torch.stack((sin * width / height, cos, down * self.shift * 2 / height), dim=1)
        return torch.stack((across, along), dim=1)

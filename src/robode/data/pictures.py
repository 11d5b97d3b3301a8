"""Pictures with noise, and the same without: crops of parts of pictures that no two splits share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from robode.data.batches import in_units
from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.foreign import refused
from robode.tasks.denoising import Denoising

SEED = 0
"""Crops and noise are part of the data set: they do not move with the user's seed."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Region:
    """A part of a picture: its name, for messages, and its pixels (C, height, width), bytes standing for x/255."""

    name: str
    pixels: NDArray[np.uint8]


class Pictures(Source):
    """y = x + noise n, n standard normal, unclipped, and x as the target. A subclass says which parts of which
    pictures belong to a split.

    Training: `crops` squares of `size` pixels a side at random places, as many of each region, every other one
    mirrored. Validation and test: squares side by side, `tiles` of them at equal distances (None: all). channels: 3
    (red, green, blue) or 1 (grey). noise: the standard deviation, in units of the values, which are in [0, 1]. Sample i
    of a split has noise of its own, always the same.

    Raises:
        BadInput: pictures that are smaller than a crop.
    """

    own_validation = True

    def __init__(
        self, size: int = 64, channels: int = 3, noise: float = 0.15, crops: int = 800, tiles: int | None = None
    ):
        self.size, self.channels, self.noise, self.crops, self.tiles = size, channels, noise, crops, tiles

    @abstractmethod
    def regions(self, split: str) -> list[Region]:
        """Of "train", "validation" or "test". Raises `BadInput`, in one line, where files are missing or damaged."""

    @property
    def info(self) -> DatasetInfo:
        shape, nothing, one = (self.channels, self.size, self.size), (0.0,) * self.channels, (1.0,) * self.channels
        return DatasetInfo(shape, nothing, one, None, Denoising(self.channels * self.size**2, noise=self.noise))

    def load(self) -> tuple[Samples, Samples]:
        return self._noisy("train", self._crops()), self._noisy("test", self.squares("test", self.size, self.tiles))

    def load_validation(self) -> Samples:
        return self._noisy("validation", self.squares("validation", self.size, self.tiles))

    def squares(self, split: str, size: int, count: int | None = None) -> Tensor:
        """Clean squares of `size` pixels a side that lie side by side in the regions of a split, `count` of them at
        equal distances (None, or fewer: all): (n, C, size, size) uint8. Raises `BadInput` for regions that are smaller.
        """
        found = []
        for region in self._large_enough(split, size):
            _, height, width = region.pixels.shape
            corners = [(a * size, b * size) for a in range(height // size) for b in range(width // size)]
            found += [region.pixels[:, a : a + size, b : b + size] for a, b in corners]
        chosen = np.linspace(0, len(found) - 1, min(count or len(found), len(found))).round().astype(int)
        return torch.from_numpy(np.stack([found[each] for each in chosen]))

    def _crops(self) -> Tensor:
        """(crops, C, size, size) uint8."""
        regions, found = self._large_enough("train", self.size), []
        for number in range(self.crops):
            pixels = regions[number % len(regions)].pixels
            generator = np.random.default_rng([SEED, number])
            a, b = (int(generator.integers(side - self.size + 1)) for side in pixels.shape[1:])
            crop = pixels[:, a : a + self.size, b : b + self.size]
            found.append(crop[:, :, ::-1] if generator.random() < 0.5 else crop)
        return torch.from_numpy(np.stack(found))

    def _large_enough(self, split: str, size: int) -> list[Region]:
        regions = self.regions(split)
        for region in regions:
            height, width = region.pixels.shape[1:]
            if min(height, width) < size:
                raise BadInput(
                    f"data.size={self.size}: {region.name} has {height} x {width} pixels for {split}, expected at "
                    f"least {size} x {size}; choose smaller squares or larger pictures"
                )
        return regions

    def _noisy(self, split: str, clean: Tensor) -> Samples:
        """clean: (n, C, size, size) uint8."""
        x, place = in_units(clean), SPLITS.index(split)
        generators = (np.random.default_rng([SEED, place, number]) for number in range(len(x)))
        noise = np.stack([each.standard_normal(x.shape[1:], dtype=np.float32) for each in generators])
        return Samples(x + self.noise * torch.from_numpy(noise), x.flatten(1))


def read_picture(path: Path, channels: int, where: str) -> NDArray[np.uint8]:
    """(channels, height, width). where: what a complaint begins with. Raises `BadInput` for a file that is none."""
    with refused(f"{where}: cannot read {path}"), Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)

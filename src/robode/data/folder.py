"""Pictures in folders, one a class, as torchvision's ImageFolder has them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from robode.data.info import Samples
from robode.data.own import Content, Numbers, OwnFiles
from robode.errors import BadInput
from robode.foreign import refused
from robode.tasks.classification import Classification

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
TEST = ("test", "val")
"""Names of the folder beside train, the first that is there."""


class ImageFolder(OwnFiles):
    """root/train/CLASS/* and root/test/CLASS/* (or root/val), or root/CLASS/* alone; other files are not looked at, nor
    is what begins with a dot.

    A picture is turned as its camera says, scaled until it covers size x size pixels and cut around its middle;
    channels: 1 (grey) or 3 (red, green, blue). Classes are the folders of the training split, in the order of their
    names. test, mean, std: see `OwnFiles`.
    """

    def __init__(
        self, root: str, size: int = 64, channels: int = 3, test: float = 0.2, mean: Numbers = "auto",
        std: Numbers = "auto",
    ) -> None:  # fmt: skip
        super().__init__(test, mean, std)
        if channels not in (1, 3):
            raise BadInput(f"data.channels={channels}: choose one of: 1, 3")
        if size < 1:
            raise BadInput(f"data.size={size}: expected integer >= 1")
        self.where, self.root = f"data.root={root}", Path(root).expanduser()
        self.size, self.channels = size, channels

    def read(self) -> Content:
        if not self.root.is_dir():
            raise BadInput(f"{self.where}: expected the folder of the pictures, and there is none")
        train, test = self.root, None
        if _classes(self.root / "train"):
            train = self.root / "train"
            test = next((self.root / name for name in TEST if (self.root / name).is_dir()), None)
            if test is None:
                raise BadInput(f"{self.where}: has a folder train, expected one called test (or val) beside it")
        names = _classes(train)
        if len(names) < 2:
            found = f"found {names[0]} alone" if names else "found none"
            raise BadInput(f"{self.where}: expected a folder for each of at least two classes in {train}, {found}")
        for name in names:
            if not _pictures(train / name):
                raise BadInput(f"{self.where}: no picture in {train / name}, expected files {', '.join(SUFFIXES)}")
        if test is not None and (others := set(_classes(test)) - set(names)):
            raise BadInput(f"{self.where}: {test / min(others)} is no class of {train}, which has {', '.join(names)}")
        rest = None if test is None else self._samples(test, names)
        return Content(self._samples(train, names), rest, (0.0, 1.0), Classification(tuple(names)))

    def _samples(self, folder: Path, names: list[str]) -> Samples:
        found = [(path, label) for label, name in enumerate(names) for path in _pictures(folder / name)]
        if not found:
            raise BadInput(f"{self.where}: no picture in the folders of {folder}, expected files {', '.join(SUFFIXES)}")
        x = np.empty((len(found), self.channels, self.size, self.size), dtype=np.uint8)
        with ThreadPoolExecutor() as pool:  # decoding does not hold Python's lock
            for index, pixels in enumerate(pool.map(self._pixels, (path for path, _ in found))):
                x[index] = pixels
        return Samples(torch.from_numpy(x), torch.tensor([label for _, label in found]))

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        """(channels, size, size)."""
        with refused(f"{self.where}: cannot read {path}"), Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise BadInput(
                    f"{self.where}: {path} has more than 8 bits a colour, expected 8; convert it, or save all as "
                    "a .npz for data=arrays"
                )
            image = ImageOps.exif_transpose(file).convert("L" if self.channels == 1 else "RGB")
            pixels = np.asarray(ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR))
        return pixels.reshape(self.size, self.size, self.channels).transpose(2, 0, 1)


def _classes(folder: Path) -> list[str]:
    """Names of its folders; none where it is no folder."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(each.name for each in inside if each.is_dir() and not each.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    """Of a class, sorted by name; those in folders of this folder too."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(folder / name for name in names if not any(part.startswith(".") for part in name.parts))

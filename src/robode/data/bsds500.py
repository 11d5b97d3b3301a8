"""BSDS500 as it is published, 500 photographs in three folders: Arbelaez, Maire, Fowlkes, Malik, TPAMI 33, 2011."""

from __future__ import annotations

from pathlib import Path

from robode.data.pictures import Pictures, Region, read_picture
from robode.errors import BadInput

FOLDERS = {"train": "train", "validation": "val", "test": "test"}
PLACES = ("images", "data/images", "BSDS500/data/images", "BSR/BSDS500/data/images")
"""Where the three folders are below the root, as the archive has them and as people unpack it."""


class BSDS500(Pictures):
    """root/images/{train,val,test}/*.jpg, the published splits. Everything else: see `Pictures`.

    validation: how many pictures of images/val are the validation split, the first ones by name.

    Raises:
        BadInput: no such folders, or too few pictures.
    """

    def __init__(
        self, root: str | None, size: int = 64, channels: int = 3, noise: float = 0.15, crops: int = 6400,
        tiles: int | None = 400, validation: int = 100,
    ) -> None:  # fmt: skip
        super().__init__(size, channels, noise, crops, tiles)
        self.root, self.validation = root, validation

    def regions(self, split: str) -> list[Region]:
        files = sorted((self._images() / FOLDERS[split]).glob("*.jpg"))
        if split == "validation":
            if len(files) < self.validation:
                raise BadInput(f"data.validation={self.validation}: images/val has only {len(files)} pictures")
            files = files[: self.validation]
        if not files:
            raise BadInput(f"data.root={self.root}: no picture in images/{FOLDERS[split]}, expected files .jpg")
        return [Region(each.name, read_picture(each, self.channels, f"data.root={self.root}")) for each in files]

    def _images(self) -> Path:
        """The folder with train, val and test in it."""
        root = Path(str(self.root)).expanduser()
        for place in PLACES if self.root is not None else ():
            if all((root / place / each).is_dir() for each in FOLDERS.values()):
                return root / place
        raise BadInput(
            f"data.root={self.root}: expected the folder of BSDS500, with images/train, images/val and images/test; "
            "it is not downloaded"
        )

"""A few photographs that lie inside packages: nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from robode.data.pictures import Pictures, Region, read_picture
from robode.errors import BadInput

FILES = {
    "china": ("scikit-learn", "sklearn", "datasets/images/china.jpg"),
    "flower": ("scikit-learn", "sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("scikit-image", "skimage", "data/astronaut.png"),
    "chelsea": ("scikit-image", "skimage", "data/chelsea.png"),
    "coffee": ("scikit-image", "skimage", "data/coffee.png"),
    "motorcycle": ("scikit-image", "skimage", "data/motorcycle_left.png"),
    "rocket": ("scikit-image", "skimage", "data/rocket.jpg"),
}
"""Name of a photograph -> the package that it comes with, its module, the file there. mlxtend brings scikit-learn."""
ALWAYS = ("china", "flower", "grace_hopper")


class Photographs(Pictures):
    """Each photograph is cut in three along its longer side: the last share `test` of it, before that the share
    `validation`, and the rest for training.

    pictures: names from `FILES`; those of scikit-image need that package. Everything else: see `Pictures`.

    Raises:
        BadInput: a photograph that is not there, or shares that leave nothing for training.
    """

    def __init__(
        self, pictures: Sequence[str] = ALWAYS, size: int = 64, channels: int = 3, noise: float = 0.15,
        crops: int = 800, tiles: int | None = None, validation: float = 0.2, test: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__(size, channels, noise, crops, tiles)
        if not 0 <= validation < 1 or not 0 < test < 1 or validation + test >= 1:
            raise BadInput(
                f"data.validation={validation}: expected a share of each photograph that leaves some for training, "
                f"with data.test={test}"
            )
        if unknown := sorted(set(pictures) - set(FILES)):
            raise BadInput(f"data.pictures: no photograph '{unknown[0]}'; choose some of: {', '.join(FILES)}")
        if not pictures:
            raise BadInput(f"data.pictures: expected at least one of: {', '.join(FILES)}")
        self.pictures, self.validation, self.test = tuple(pictures), validation, test

    def regions(self, split: str) -> list[Region]:
        return [self._region(name, split) for name in self.pictures]

    def _region(self, name: str, split: str) -> Region:
        pixels = read_picture(where_is(name), self.channels, f"data.pictures={name}")
        along = 1 if pixels.shape[1] > pixels.shape[2] else 2
        n = pixels.shape[along]
        last = n - round(n * self.test)
        ends = {"train": (0, last - round(n * self.validation)), "test": (last, n)}
        ends["validation"] = (ends["train"][1], last)
        first, end = ends[split]
        return Region(name, pixels[:, first:end] if along == 1 else pixels[:, :, first:end])


def where_is(name: str) -> Path:
    """The file of a photograph. Its package is not imported. Raises `BadInput` where it is not there."""
    package, module, file = FILES[name]
    spec = find_spec(module)
    path = Path(spec.origin).parent / file if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise BadInput(
            f"data.pictures: {name} comes with {package}, which is not installed (or lacks it); install it, or "
            f"choose some of: {', '.join(ALWAYS)}"
        )
    return path

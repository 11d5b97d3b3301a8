"""Small files as a user may have them: pictures in folders, arrays, a table."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 12


def write_pictures(
    folder: Path, count: int = 20, classes: tuple[str, ...] = ("disc", "square"), mode: str = "RGB"
) -> Path:
    """folder/CLASS/0.png …, wider than high: noise, for each class brighter, with a black and a white spot."""
    rng = np.random.default_rng(len(folder.name))
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(60 * number, 60 * number + 120, (SIDE, SIDE + 5, 3), dtype=np.uint8)
            pixels[2:5, 5:9], pixels[7:10, 5:9] = 0, 255
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{index}.png")
    return folder


def write_bsds500(folder: Path, sizes: tuple[tuple[int, int], ...] = ((50, 30), (24, 60))) -> Path:
    """folder/images/{train,val,test}/0.jpg …, of those sizes (height, width) with smooth colours and some noise."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (folder / "images" / split).mkdir(parents=True)
        for index, (height, width) in enumerate(sizes):
            slope = np.linspace(0, 150, height)[:, None, None] + np.linspace(0, 80, width)[None, :, None]
            pixels = (slope + rng.integers(0, 20, (height, width, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.jpg")
    return folder


def points(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """x (n, 2) and labels 0 and 1 (n,), which a line tells apart; class 0 comes first."""
    x = np.random.default_rng(0).normal(size=(n, 2))
    x = x[np.argsort(x[:, 0] > 0, kind="stable")]
    return x, (x[:, 0] > 0).astype(int)


def write_arrays(path: Path) -> Path:
    """A .npz with `points`."""
    x, y = points()
    np.savez(path, x=x, y=y)
    return path


def write_table(path: Path, rows: str) -> Path:
    """A .csv, from rows with spaces between the cells."""
    path.write_text("".join(f"{','.join(row.split())}\n" for row in rows.strip().splitlines()))
    return path

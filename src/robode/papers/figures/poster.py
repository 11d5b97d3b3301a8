"""Fig. 1 of the CH-NODE poster: an image, what the attack adds, and the sum, for each family."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.report.layout import Picture
from robode.report.style import INK, VERMILLION, styled
from robode.report.values import Collected, read_arrays

FILE = "adversarial_samples.npz"
TILE = 1.25


class Adversarial:
    """A line for each row of the item: image + perturbation = adversarial image, with the answers below.

    Reads adversarial_samples.npz (suite=adversarial_samples). seed: whose networks; samples: which of the images.
    """

    def __init__(self, seed: int = 1, samples: tuple[int, ...] | list[int] = (0, 1)):
        self.seed, self.samples = seed, tuple(samples)

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        of_rows = [(run.name, read_arrays(run.folder / FILE)) for run in runs]
        lines = [(name, arrays) for name, arrays in of_rows if arrays]
        if not lines:
            return []
        samples = [each for each in self.samples if each < len(lines[0][1]["labels"])]
        eps = float(lines[0][1]["eps"])
        caption = (
            f"Fast gradient sign attack of size {eps:g} in pixels (infinity norm) on the network of each line, seed "
            f"{self.seed}; the perturbation is shown from −{eps:g} (black) to {eps:g} (white), images from 0 to 1. "
            "Below: the answer and its softmax; ✗ is a wrong one."
        )
        return [
            Picture("adversarial", _figure(lines, samples, eps), "An image, what the attack adds, and the sum", caption)
        ]


def _figure(lines: list[tuple[str, dict[str, np.ndarray]]], samples: list[int], eps: float) -> Figure:
    with styled():
        columns = 3 * len(samples)
        figure = Figure(figsize=(TILE * columns + 1.2, (TILE + 0.3) * len(lines) + 0.2), layout="constrained")
        axes = figure.subplots(len(lines), columns, squeeze=False)
        for tiles, (label, arrays) in zip(axes, lines, strict=True):
            tiles[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
            for place, k in enumerate(samples):
                _triple(tiles[3 * place : 3 * place + 3], arrays, k, eps)
        for ax, title in zip(axes[0], ("image", "+ perturbation", "= adversarial") * len(samples), strict=True):
            ax.set_title(title, fontsize=8, loc="center")
    return figure


def _triple(tiles: np.ndarray, arrays: dict[str, np.ndarray], k: int, eps: float) -> None:
    clean, attacked = arrays["clean"][k], arrays["attacked"][k]
    _tile(tiles[0], clean)
    _tile(tiles[1], (attacked - clean) / (2 * eps) + 0.5)
    _tile(tiles[2], attacked)
    for ax, which in ((tiles[0], ""), (tiles[2], "_attacked")):
        said, share = int(arrays[f"said{which}"][k]), float(arrays[f"share{which}"][k])
        right = said == int(arrays["labels"][k])
        text = f"{'' if right else '✗ '}{said} ({share:.0%})"
        ax.set_xlabel(text, fontsize=8, color=INK if right else VERMILLION)


def _tile(ax: Axes, image: np.ndarray) -> None:
    """image: (H, W, C) in [0, 1]."""
    grey = image.shape[-1] == 1
    ax.imshow(image[..., 0] if grey else np.clip(image, 0, 1), cmap="gray" if grey else None, vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)

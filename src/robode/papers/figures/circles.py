"""Fig. 4 of LyaNet: the softmax of planar networks near the data and far from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from robode.quantities.softmax_plane import FILE
from robode.report.layout import Picture
from robode.report.style import BLUE, INK, MARKERS, VERMILLION, styled
from robode.report.values import Collected, read_arrays

Arrays: TypeAlias = Mapping[str, np.ndarray]
SQUARES = ("near", "far")


class Softmax:
    """A column of panels for the data and one for each row of the item, of one seed; near above, far below.

    Reads softmax_plane.npz (suite=softmax_plane) in the run folders; rows without it are left out. seed: whose networks
    are drawn.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if any run was measured."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        found = [(run.label, arrays) for run in runs if (arrays := read_arrays(run.folder / FILE))]
        if not found:
            return []
        with styled():
            figure = Figure(figsize=(1.95 * (len(found) + 1) + 0.7, 4.1), layout="constrained")
            axes = figure.subplots(2, len(found) + 1)
            for name, line in zip(SQUARES, axes, strict=True):
                _points(line[0], found[0][1], name)
                meshes = [_softmax(ax, arrays, name) for ax, (_, arrays) in zip(line[1:], found, strict=True)]
                for ax in line[1:]:
                    ax.set_yticklabels([])
                line[0].set_ylabel("input 2")
            for ax, title in zip(axes[0], ["training data", *(label for label, _ in found)], strict=True):
                ax.set_title(title, fontsize=9)
            for ax in axes[1]:
                ax.set_xlabel("input 1")
            bar = figure.colorbar(meshes[-1], ax=axes[:, -1], fraction=0.08, aspect=30)
            bar.set_label("softmax of the outer circle's class")
        near, far = (float(found[0][1][f"x_{name}"][-1]) for name in SQUARES)
        caption = (
            f"Networks of seed {self.seed}. Above the square [−{near:g}, {near:g}]², below [−{far:g}, {far:g}]². Blue: "
            "the inner circle's class, red: the outer one's; the line is the decision boundary."
        )
        return [Picture("fig4_softmax", figure, "What each network says of the plane", caption)]


def _points(ax: Axes, arrays: Arrays, name: str) -> None:
    for label, color in ((0, BLUE), (1, VERMILLION)):
        ax.plot(*arrays["points"][arrays["labels"] == label].T, MARKERS[label], color=color, markersize=0.8)
    _window(ax, arrays, name)


def _softmax(ax: Axes, arrays: Arrays, name: str) -> QuadMesh:
    x, p = arrays[f"x_{name}"], arrays[f"p_{name}"]
    mesh = ax.pcolormesh(x, x, p, cmap="RdBu_r", vmin=0, vmax=1, shading="auto", rasterized=True, linewidth=0)
    if p.min() < 0.5 < p.max():
        ax.contour(x, x, p, levels=[0.5], colors=[INK], linewidths=0.8)
    _window(ax, arrays, name)
    return mesh


def _window(ax: Axes, arrays: Arrays, name: str) -> None:
    side = float(arrays[f"x_{name}"][-1])
    ax.set(xlim=(-side, side), ylim=(-side, side))
    ax.set_aspect("equal")
    ax.grid(False)

"""Points of the plane on their way through the layers of a network: an animation, and stills with the last plane."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

from robode.quantities.layer_states import FILE
from robode.report.layout import Animation, Picture
from robode.report.style import BLUE, INK, MUTED, VERMILLION, styled
from robode.report.values import Collected, read_arrays

CLASSES = (BLUE, VERMILLION)
ELEVATION, AZIMUTH = 24.0, -60.0  # of the eye, in degrees
HELD, TURNED = 3, 14  # frames of the last layer, and of a turn around it
TURN = 12.0  # degrees a frame
STILLS = 4


@dataclass(frozen=True)
class Cloud:
    """What layer_states.npz holds: states (N + 1, P, n), labels (P,), normal (n,), offset, and the name of the row."""

    group: str
    label: str
    states: np.ndarray
    labels: np.ndarray
    normal: np.ndarray
    offset: float

    def reach(self, layer: int) -> float:
        """Half the side of the cube around 0 that holds the states of a layer."""
        return 1.05 * float(abs(self.states[layer]).max())

    def draw(self, ax: Axes, layer: int, *, plane: bool, size: float = 4.0) -> None:
        """The states after a layer, in a cube (or square) that holds them, and the plane where the classes part."""
        ax.clear()
        points, reach = self.states[layer], self.reach(layer)
        limits = dict.fromkeys(("xlim", "ylim", "zlim")[: points.shape[1]], (-reach, reach))
        ax.set(**limits, title=f"layer {layer}")
        for name, colour in enumerate(CLASSES):
            mine = points[self.labels == name]
            ax.plot(*mine.T, ".", color=colour, markersize=size, markeredgewidth=0, alpha=0.8)
        if plane and points.shape[1] == 3:
            corners = section(self.normal, self.offset, reach)
            if len(corners):
                ax.add_collection3d(Poly3DCollection([corners], alpha=0.25, facecolor=MUTED, edgecolor=INK))  # type: ignore[attr-defined]
        elif plane:
            ends = section(self.normal, self.offset, reach)
            ax.plot(*ends.T, color=INK, linewidth=1.2)
        if points.shape[1] == 2:
            ax.set_aspect("equal")


class LayerAnimation:
    """A GIF of the states of one network a group, layer by layer, and then around its last plane.

    Reads layer_states.npz (suite=layer_states). label: of the rows that are shown, with states of three numbers; seed:
    whose networks.
    """

    def __init__(self, label: str, seed: int = 1):
        self.label, self.seed = label, seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        found = [
            each for each in clouds(collected, self.seed) if each.label == self.label and each.states.shape[2] == 3
        ]
        if not found:
            return []
        last = min(len(each.states) for each in found) - 1
        with styled():
            figure = Figure(figsize=(3.4 * len(found), 3.5))
            axes = [figure.add_subplot(1, len(found), place + 1, projection="3d") for place in range(len(found))]
            figure.subplots_adjust(left=0.02, right=0.96, bottom=0.02, top=0.86, wspace=0.08)

        def frame(number: int) -> None:
            layer, turn = min(number, last), TURN * max(number - last - HELD, 0)
            for ax, cloud in zip(axes, found, strict=True):
                cloud.draw(ax, layer, plane=number >= last)
                ax.set_title(f"{cloud.group}, layer {layer}")
                ax.view_init(elev=ELEVATION, azim=AZIMUTH + turn)

        caption = (
            f"{self.label}, seed {self.seed}: {found[0].states.shape[1]} test points after each layer, blue and "
            "vermilion the classes; then the plane where the head's two logits are equal, and a turn around it. "
            "The cube holds all points of its layer; its size is on the axes."
        )
        animation = Animation(figure, last + HELD + TURNED + 1, frame)
        return [Picture("layers_animated", animation, "Layer by layer", caption)]


class LayerStills:
    """A figure a group: for each row the states at `STILLS` layers, the last one with the plane (or line) that parts
    the classes. seed: whose networks; see `LayerAnimation`."""

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        groups: dict[str, list[Cloud]] = {}
        for cloud in clouds(collected, self.seed):
            groups.setdefault(cloud.group, []).append(cloud)
        return [self._of_group(group, found) for group, found in groups.items()]

    def _of_group(self, group: str, found: list[Cloud]) -> Picture:
        with styled():
            figure = Figure(figsize=(2.6 * STILLS, 2.6 * len(found) + 0.4), layout="constrained")
            for line, cloud in enumerate(found):
                layers = np.linspace(0, len(cloud.states) - 1, STILLS).round().astype(int)
                for place, layer in enumerate(layers.tolist()):
                    solid = "3d" if cloud.states.shape[2] == 3 else None
                    ax = figure.add_subplot(len(found), STILLS, line * STILLS + place + 1, projection=solid)
                    _still(ax, cloud, layer, cloud.label if place == 0 else "")
            handles = [Patch(facecolor=colour, label=f"class {name}") for name, colour in enumerate(CLASSES)]
            figure.legend(handles=handles, loc="outside lower center", ncols=2)
        caption = (
            f"Networks of seed {self.seed}, {found[0].states.shape[1]} test points. Grey: where the head's two logits "
            "are equal. Each cube or square holds all points of its layer."
        )
        stem = "layers_" + "_".join(group.lower().split())
        return Picture(stem, figure, f"{group.capitalize()} through the layers", caption)


def _still(ax: Axes, cloud: Cloud, layer: int, label: str) -> None:
    cloud.draw(ax, layer, plane=layer == len(cloud.states) - 1, size=2.5)
    if cloud.states.shape[2] == 3:
        ax.view_init(elev=ELEVATION, azim=AZIMUTH)  # type: ignore[attr-defined]
    ax.set_title(f"{label}, layer {layer}".removeprefix(", "), fontsize=8)
    ax.tick_params(labelsize=6, pad=-1)


def clouds(collected: Collected, seed: int) -> list[Cloud]:
    """Of every run of this seed that has the file, by row."""
    found = []
    for run in collected.folders():
        arrays = read_arrays(run.folder / FILE) if run.seed == seed else {}
        if arrays:
            group = run.name.removesuffix(run.label).strip()
            found.append(
                Cloud(group, run.label, arrays["states"], arrays["labels"], arrays["normal"], float(arrays["offset"]))
            )
    return found


def section(normal: np.ndarray, offset: float, reach: float) -> np.ndarray:
    """Where <normal, y> + offset = 0 meets the cube (or square) |y_i| <= reach: the corners (k, n) in their order
    around it, none where it does not."""
    n = len(normal)
    corners = np.array(list(itertools.product((-reach, reach), repeat=n)))
    values = corners @ normal + offset
    found = []
    for a, b in itertools.combinations(range(len(corners)), 2):
        along_an_edge = (corners[a] != corners[b]).sum() == 1
        if along_an_edge and values[a] * values[b] < 0:
            share = values[a] / (values[a] - values[b])
            found.append(corners[a] + share * (corners[b] - corners[a]))
    points = np.array(found).reshape(-1, n)
    if n == 2 or not found:
        return points
    away = points - points.mean(0)
    first = away[0] / np.linalg.norm(away[0])
    second = np.cross(normal / np.linalg.norm(normal), first)
    ordered: np.ndarray = points[np.argsort(np.arctan2(away @ second, away @ first))]
    return ordered

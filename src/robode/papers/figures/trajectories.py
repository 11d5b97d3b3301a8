"""Trajectories of learned flow maps in the plane, beside the exact solution; and what its neighbours share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from robode.quantities.trajectory import FILE
from robode.report.layout import Picture
from robode.report.style import INK, PALETTE, panels, styled
from robode.report.values import Collected, RunFolder, read_arrays

Arrays: TypeAlias = Mapping[str, np.ndarray]
AXES = {2: ("q", "p"), 4: ("q₁", "q₂")}
"""The two numbers of a state that are drawn, its first two, by how many it has."""
BEYOND = 1.3  # of what the exact solution reaches: how far the axes go


class Curve(NamedTuple):
    """What one run did. group, label: of its row."""

    group: str
    label: str
    seed: int
    arrays: Arrays


def curves(collected: Collected, seed: int | None = None) -> list[Curve]:
    """Of the runs that have trajectory.npz (suite=trajectory), of one seed or of all."""
    runs = [run for run in collected.folders() if seed in (None, run.seed)]
    found = ((run, read_arrays(run.folder / FILE)) for run in runs)
    return [Curve(_group(run), run.label, run.seed, arrays) for run, arrays in found if arrays]


def _group(run: RunFolder) -> str:
    return run.name.removesuffix(run.label).strip()


def groups(found: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves of each group, in the order of the table."""
    return {
        name: [each for each in found if each.group == name] for name in dict.fromkeys(each.group for each in found)
    }


def colours(found: Sequence[Curve]) -> dict[str, str]:
    """One for each label."""
    labels = dict.fromkeys(each.label for each in found)
    return {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)}


class Trajectories:
    """A panel for each row, of one seed: the network's states over the exact solution. seed: whose runs are drawn."""

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run was measured."""
        found = curves(collected, self.seed)
        if not found:
            return []
        with styled():
            figure = _drawn(found)
        last = found[0].arrays["time"]
        caption = (
            f"Seed {self.seed}: the states of {len(last) - 1} applications of each network, until t = {last[-1]:g}, "
            "from pale to dark, over those of the exact solution (black). What leaves the axes is not shown."
        )
        return [Picture("trajectories", figure, "Trajectories", caption)]


def _drawn(found: Sequence[Curve]) -> Figure:
    figure, axes = panels(len(found), columns=min(len(found), 4), width=2.6, height=2.7, fill=False)
    names = colours(found)
    for ax, curve in zip(axes, found, strict=True):
        _plane(ax, curve, names[curve.label])
        ax.set_title(f"{curve.group}\n{curve.label}".strip(), fontsize=8.5)
    return figure


def _plane(ax: Axes, curve: Curve, colour: str) -> None:
    exact, states = (curve.arrays[name][:, :2] for name in ("exact", "network"))
    ax.plot(*exact.T, ".", color=INK, markersize=2.5, markeredgewidth=0)  # no line: steps may be long
    shades = np.tile(to_rgba(colour), (len(states), 1))
    shades[:, 3] = np.linspace(0.15, 1.0, len(states))
    ax.scatter(states[:, 0], states[:, 1], s=4, c=shades, linewidth=0, zorder=3, rasterized=True)
    middle, reach = (exact.max(0) + exact.min(0)) / 2, BEYOND * max(np.ptp(exact, axis=0)) / 2
    x, y = AXES.get(curve.arrays["exact"].shape[1], ("1st number", "2nd number"))
    ax.set(xlim=middle[0] + np.array([-reach, reach]), ylim=middle[1] + np.array([-reach, reach]), xlabel=x, ylabel=y)
    ax.set_aspect("equal")

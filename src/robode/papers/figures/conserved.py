"""Learned flow maps applied again and again, with what they keep and without: a path, the error, the invariants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.errors import BadInput
from robode.quantities.conservation import FILE
from robode.report.layout import Picture
from robode.report.style import INK, PALETTE, styled
from robode.report.values import Collected, read_arrays

Path = np.ndarray
"""(K + 1, d): states of one trajectory."""
ROUNDED = 1e-17


class Conserved:
    """Panels, of one seed, a curve for each row: the first test state's path; the error; the defect of each invariant.

    Reads conservation.npz (suite=conservation). first: how the path is drawn: time = its first number over time,
    profile = its numbers at the end, side by side, plane = its first two numbers; title: of that panel. invariants:
    which, by name; they are drawn with a logarithmic axis, zeros at 1e-17. seed: whose networks. Raises `BadInput` for
    another `first`.
    """

    def __init__(self, invariants: Sequence[str], first: str = "time", title: str = "", seed: int = 1):
        if first not in VIEWS:
            raise BadInput(f"figures: Conserved.first: expected one of {', '.join(VIEWS)}, got {first}")
        self.invariants, self.first, self.title, self.seed = tuple(invariants), first, title, seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        found = {run.label: arrays for run in runs if (arrays := read_arrays(run.folder / FILE))}
        if not found:
            return []
        exact = next(iter(found.values()))
        with styled():
            figure = Figure(figsize=(3.3 * (2 + len(self.invariants)), 3.6), layout="constrained")
            path, error, *defects = figure.subplots(1, 2 + len(self.invariants))
            view = VIEWS[self.first]
            view(path, exact["time"], exact["exact"][:, 0], {"color": INK, "linewidth": 3, "alpha": 0.3})
            for (label, arrays), colour in zip(found.items(), PALETTE, strict=False):
                style = {"color": colour, "label": label, "linewidth": 1.1}
                view(path, arrays["time"], arrays["network"][:, 0], style)
                error.plot(arrays["time"][1:], np.maximum(arrays["error"][1:], ROUNDED), **style)
                for ax, name in zip(defects, self.invariants, strict=True):
                    ax.plot(arrays["time"][1:], np.maximum(arrays[name][1:], ROUNDED), **style)
            path.set_title(self.title or "first test state")
            error.set(title="error (RMS)", yscale="log", xlabel="time")
            for ax, name in zip(defects, self.invariants, strict=True):
                ax.set(title=f"{name}: largest defect", yscale="log", xlabel="time")
            figure.legend(*error.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        caption = (
            f"Seed {self.seed}, float64, the network applied {len(exact['time']) - 1} times. Left, grey: the exact "
            "solution from the first test state. Error and defects: over all states that are followed."
        )
        return [Picture("conserved", figure, "Applied again and again", caption)]


def _over_time(ax: Axes, time: np.ndarray, path: Path, style: dict[str, Any]) -> None:
    ax.plot(time, path[:, 0], **style)
    ax.set_xlabel("time")


def _profile(ax: Axes, time: np.ndarray, path: Path, style: dict[str, Any]) -> None:
    ax.plot(np.arange(path.shape[1]) / path.shape[1], path[-1], **style)
    ax.set_xlabel("x")


def _plane(ax: Axes, time: np.ndarray, path: Path, style: dict[str, Any]) -> None:
    ax.plot(path[:, 0], path[:, 1], **style)
    ax.set_aspect("equal")


VIEWS: dict[str, Callable[[Axes, np.ndarray, Path, dict[str, Any]], None]] = {
    "time": _over_time,
    "profile": _profile,
    "plane": _plane,
}

"""Figures of the lecture: a gradient flow and its Euler map in the plane, and a potential of Kantorovich."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp

from robode.report.layout import Picture
from robode.report.style import BLUE, GREEN, INK, MUTED, PURPLE, VERMILLION, styled
from robode.report.values import Collected, read_arrays

LECTURE_W = ((2**-0.5, -(2**-0.5)), (2**-0.5, 2**-0.5))
SHOWN = 2.2
LEVELS = 15


class GradientFlow2D:
    """x' = -W^T ReLU(W x) with the lecture's W, and its Euler map x - tau W^T ReLU(W x): computed here, no run is read.

    tau: step sizes; up to 2/||W||^2 the map is nonexpansive.
    """

    def __init__(self, W: Sequence[Sequence[float]] = LECTURE_W, tau: Sequence[float] = (0.5, 1.0, 2.0)):
        self.W, self.tau = np.array(W, dtype=float), tuple(map(float, tau))

    def draw(self, collected: Collected) -> list[Picture]:
        """The same picture always."""
        norm = np.linalg.norm(self.W, 2)
        with styled():
            figure = Figure(figsize=(3.1 * (len(self.tau) + 1), 3.5), layout="constrained")
            axes = figure.subplots(1, len(self.tau) + 1)
            self._flow(axes[0])
            for ax, tau in zip(axes[1:], self.tau, strict=True):
                self._map(ax, tau)
                ax.set_title(f"Euler map, τ = {tau:g}", fontsize=9)
        caption = (
            "Left: solutions over a time of 3 from the grey circle to the blue points. Right: the Euler map of the "
            f"circle and of a grid. ‖W‖ = {norm:.3g}, so τ up to 2/‖W‖² = {2 / norm**2:.3g} is 1-Lipschitz; at that "
            "end and where every neuron is active the map reflects."
        )
        return [Picture("gradient_flow_2d", figure, "The lecture's gradient flow and its Euler maps", caption)]

    def field(self, x: np.ndarray) -> np.ndarray:
        """-W^T ReLU(W x) at x (..., 2)."""
        return -np.maximum(x @ self.W.T, 0) @ self.W

    def _flow(self, ax: Axes) -> None:
        ticks = np.linspace(-SHOWN, SHOWN, 17)
        grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)
        field = self.field(grid)
        ax.quiver(*np.moveaxis(grid, -1, 0), *np.moveaxis(field, -1, 0), color="#C8C8C8", width=0.004)
        angle = np.linspace(0, 2 * np.pi, 33)[:-1]
        for start in 1.8 * np.stack([np.cos(angle), np.sin(angle)], axis=1):
            path = solve_ivp(lambda t, x: self.field(x), (0, 3), start, rtol=1e-8, atol=1e-10, max_step=0.05).y
            ax.plot(path[0], path[1], color=BLUE, linewidth=0.9)
            ax.plot(*path[:, -1], "o", color=BLUE, markersize=2.5)
            ax.plot(*start, "o", color=MUTED, markersize=2.0)
        _square(ax, "flow")

    def _map(self, ax: Axes, tau: float) -> None:
        line = np.linspace(-SHOWN, SHOWN, 201)
        for level in np.linspace(-1.8, 1.8, 10):
            for points in (
                np.stack([line, np.full_like(line, level)], 1),
                np.stack([np.full_like(line, level), line], 1),
            ):
                moved = points + tau * self.field(points)
                ax.plot(moved[:, 0], moved[:, 1], color="#D0D0D0", linewidth=0.7)
        angle = np.linspace(0, 2 * np.pi, 361)
        circle = 1.8 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        moved = circle + tau * self.field(circle)
        ax.plot(circle[:, 0], circle[:, 1], color=MUTED, linestyle="--")
        ax.plot(moved[:, 0], moved[:, 1], color=VERMILLION)
        _square(ax, "")


def _square(ax: Axes, title: str) -> None:
    ax.set(aspect="equal", xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), title=title)
    ax.title.set_fontsize(9)
    ax.grid(visible=False)


class Potential:
    """Kantorovich potentials of one seed, a panel for each row; reads wasserstein.npz (suite=wasserstein)."""

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        of_rows = [(run.label, read_arrays(run.folder / "wasserstein.npz")) for run in runs]
        found = [(label, arrays) for label, arrays in of_rows if arrays]
        if not found:
            return []
        with styled():
            figure = Figure(figsize=(3.6 * len(found), 3.7), layout="constrained")
            for ax, (label, arrays) in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
                _potential(ax, arrays)
                ax.set_title(label, fontsize=9)
        caption = (
            "Level lines of the 1-Lipschitz function with which the network proves its lower bound; at the optimum "
            "mass is moved at right angles to them. Grey: where the slope is below 1/2."
        )
        return [Picture("potential", figure, f"Kantorovich potentials, seed {self.seed}", caption)]


def _potential(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    x, y, f = arrays["x"], arrays["y"], arrays["potential"]
    slope = np.hypot(*np.gradient(f, y, x))
    ax.contourf(x, y, slope, levels=[0, 0.5], colors=["#E4E4E4"])
    ax.contour(x, y, f, levels=LEVELS, colors=INK, linewidths=0.6)
    for label, colour in ((0, GREEN), (1, PURPLE)):
        points = arrays["points"][arrays["labels"] == label]
        ax.plot(points[:, 0], points[:, 1], "o", color=colour, markersize=2.0, alpha=0.7)
    ax.set(aspect="equal")
    ax.grid(visible=False)

"""Figs. 1 and 2 of LyaNet: what trained fields do to states of two numbers, and where the loss falls fast enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robode.quantities.lyapunov_plane import FILE
from robode.report.layout import Picture
from robode.report.style import BLUE, GREEN, INK, MUTED, VERMILLION, styled
from robode.report.values import Collected, RunFolder, read_arrays

Arrays: TypeAlias = Mapping[str, np.ndarray]
LEVELS = (0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)  # of V
SMALLEST = 1e-6  # value of V that is drawn


class Dynamics:
    """A panel for each row, of one seed: the field, solutions from initial states around 0, and the classes.

    Reads lyapunov_plane.npz (suite=lyapunov_plane) in the run folders; rows without it are left out. seed: whose
    networks are drawn.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if any run was measured."""
        found = _found(collected, self.seed)
        if not found:
            return []
        with styled():
            figure = Figure(figsize=(3.6 * len(found), 4.2), layout="constrained")
            for ax, (run, arrays) in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
                _flow(ax, arrays)
                ax.set_title(f"{run.label}: {100 * _violated(arrays):.1f} % violated")
            figure.legend(
                handles=[
                    Patch(facecolor=VERMILLION, alpha=0.25, label="right class"),
                    Patch(facecolor=BLUE, alpha=0.25, label="wrong class"),
                    Line2D([], [], color=INK, marker=".", markersize=2, linewidth=0, label="solutions, step by step"),
                    Line2D([], [], color=GREEN, marker="o", linewidth=1.6, label="from the network's initial state"),
                ],
                loc="outside lower center",
                ncols=2,
            )
        arrays = found[0][1]
        count, kappa = arrays["states"].shape[1], float(arrays["kappa"])
        caption = (
            f"Fields of one sample, seed {self.seed}, at t = 0 (unit arrows), the class that each state is read as, "
            f"and {count} solutions until t = {float(arrays['horizon']):g} from states drawn around 0 (a dot a step). "
            f"Violated: the share of the square in which dV/dt > −κV, κ = {kappa:.3g}."
        )
        return [Picture("fig1_dynamics", figure, "The dynamics that each objective leaves", caption)]


class LevelSets:
    """For each row, of one seed: level sets of V with the field, dV/dt against V, and V along a solution.

    seed: see `Dynamics`, of whose runs the arrays are.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if any run was measured."""
        found = _found(collected, self.seed)
        if not found:
            return []
        with styled():
            figure = Figure(figsize=(10.2, 3.5 * len(found) + 0.5), layout="constrained")
            grid = figure.subplots(len(found), 3, squeeze=False)
            worst = max(float(_excess(arrays).max()) for _, arrays in found)
            for (plane, rates, fall), (run, arrays) in zip(grid, found, strict=True):
                _levels(plane, arrays, worst)
                _against(rates, arrays)
                _fall(fall, arrays)
                plane.set_title(f"{run.label}: level sets of V")
                rates.set_title("dV/dt against V")
                fall.set_title("V along solutions")
            figure.legend(
                handles=[
                    Line2D([], [], color=BLUE, marker=">", linewidth=0, label="dV/dt ≤ −κV"),
                    Line2D([], [], color=VERMILLION, marker=">", linewidth=0, label="violated"),
                    Line2D([], [], color=GREEN, label="the network's own solution"),
                    Line2D([], [], color=INK, linestyle="--", label="dγ/dt = −κγ"),
                ],
                loc="outside lower center",
                ncols=4,
            )
        kappa = float(found[0][1]["kappa"])
        caption = (
            f"The networks of Fig. 1, seed {self.seed}. Left: level sets of V (grey), arrows by whether the condition "
            "holds, and in the background by how much it does not, max(0, dV/dt + κV). Middle: states of the square as "
            f"(V, dV/dt); below the line −κV, κ = {kappa:.3g}, the condition holds. Right: V along the network's "
            "own solution and along those of Fig. 1 (grey), and the solution of the comparison system from V(0)."
        )
        return [Picture("fig2_level_sets", figure, "Level sets of V and the comparison system", caption)]


def _found(collected: Collected, seed: int) -> list[tuple[RunFolder, Arrays]]:
    runs = [run for run in collected.folders() if run.seed == seed]
    return [(run, arrays) for run in runs if (arrays := read_arrays(run.folder / FILE))]


def _excess(arrays: Arrays) -> np.ndarray:
    """dV/dt + kappa V on the grid: (G, G)."""
    return arrays["rate"] + float(arrays["kappa"]) * arrays["value"]


def _violated(arrays: Arrays) -> float:
    return float((_excess(arrays) > 0).mean())


def _flow(ax: Axes, arrays: Arrays) -> None:
    right = arrays["classes"] == arrays["label"]
    ax.pcolormesh(arrays["x"], arrays["x"], right, cmap=ListedColormap([BLUE, VERMILLION]), vmin=0, vmax=1, alpha=0.2,
                  shading="auto", rasterized=True, linewidth=0)  # fmt: skip
    _arrows(ax, arrays, MUTED)
    for path in np.moveaxis(arrays["states"], 1, 0):
        ax.plot(*path.T, ".", color=INK, markersize=1.6, zorder=3)
    _own(ax, arrays)
    _window(ax, arrays)


def _arrows(ax: Axes, arrays: Arrays, color: str | np.ndarray) -> None:
    field = arrays["field"]
    unit = field / np.maximum(np.linalg.norm(field, axis=2, keepdims=True), 1e-30)
    at = arrays["at"]
    colors = color if isinstance(color, str) else color.ravel()
    ax.quiver(at[..., 0].ravel(), at[..., 1].ravel(), unit[..., 0].ravel(), unit[..., 1].ravel(), color=colors,
              width=0.004, scale=32, pivot="mid")  # fmt: skip


def _own(ax: Axes, arrays: Arrays) -> None:
    ax.plot(*arrays["path"].T, color=GREEN, zorder=4)
    ax.plot(*arrays["path"][0], "o", color=GREEN, mfc="white", zorder=5)
    ax.plot(*arrays["path"][-1], "o", color=GREEN, zorder=5)


def _window(ax: Axes, arrays: Arrays) -> None:
    ends = (float(arrays["x"][0]), float(arrays["x"][-1]))
    ax.set(xlim=ends, ylim=ends, xlabel="state 1 (logit of class 0)", ylabel="state 2 (logit of class 1)")
    ax.set_aspect("equal")
    ax.grid(False)


def _levels(ax: Axes, arrays: Arrays, worst: float) -> None:
    """worst: the excess that is darkest, of all panels."""
    excess = np.maximum(_excess(arrays), 0)
    ax.pcolormesh(arrays["x"], arrays["x"], np.ma.masked_equal(excess, 0), cmap="Reds", vmin=0, alpha=0.5,
                  vmax=max(worst, 1e-9), shading="auto", rasterized=True, linewidth=0)  # fmt: skip
    lines = ax.contour(arrays["x"], arrays["x"], arrays["value"], levels=LEVELS, colors=[MUTED], linewidths=0.8)
    ax.clabel(lines, fontsize=6.5, fmt="%g")
    step = (len(arrays["x"]) - 1) // (len(arrays["at"]) - 1)  # the arrows stand on the grid
    bad = _excess(arrays)[::step, ::step] > 0
    _arrows(ax, arrays, np.where(bad, VERMILLION, BLUE))
    _own(ax, arrays)
    _window(ax, arrays)


def _against(ax: Axes, arrays: Arrays) -> None:
    V, rate = arrays["value"].ravel()[::7], arrays["rate"].ravel()[::7]
    bad = _excess(arrays).ravel()[::7] > 0
    for chosen, color in ((~bad, BLUE), (bad, VERMILLION)):
        ax.plot(V[chosen], rate[chosen], ".", color=color, markersize=1.5, rasterized=True)
    ends = np.array([0.0, float(V.max())])
    ax.plot(ends, -float(arrays["kappa"]) * ends, "--", color=INK)
    ax.set(xlabel="V", ylabel="dV/dt")


def _fall(ax: Axes, arrays: Arrays) -> None:
    t = np.linspace(0, float(arrays["horizon"]), len(arrays["path"]))
    label = int(arrays["label"])
    for path in np.moveaxis(arrays["states"], 1, 0):
        margin = path[:, label] - path[:, 1 - label]
        ax.plot(t, np.maximum(np.logaddexp(0, -margin), SMALLEST), color=MUTED, linewidth=0.5, alpha=0.5)
    V = np.maximum(arrays["path_value"], SMALLEST)
    ax.plot(t, V, color=GREEN)
    ax.plot(t, V[0] * np.exp(-float(arrays["kappa"]) * t), "--", color=INK)
    ax.set(xlabel="t", ylabel="V", yscale="log")

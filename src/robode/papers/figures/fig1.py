"""Fig. 1 of the CH-NODE paper: decision regions, flows and propagated circles of planar networks, and their eps_r."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon

from robode.report.layout import Picture
from robode.report.style import BLUE, GREEN, INK, MARKERS, MUTED, PALETTE, PURPLE, VERMILLION, styled
from robode.report.values import Collected, read_arrays

CLASSES = (BLUE, VERMILLION, GREEN, PURPLE)
YELLOW = "#F0D060"
Arrays = Mapping[str, np.ndarray]


class Regions:
    """One row of panels for each row of the item (of one seed), and eps_r of all seeds.

    Reads field_2d.npz and eps_r.npz (suite=[clean,eps_r,field_2d]) in the run folders; rows without them are left out.
    seed: whose networks are drawn; published: label of a row -> published eps_r.
    """

    def __init__(self, seed: int = 1, published: Mapping[str, float] | None = None):
        self.seed, self.published = seed, dict(published or {})

    def draw(self, collected: Collected) -> list[Picture]:
        """The figures that the files allow."""
        found = []
        for run in (run for run in collected.folders() if run.seed == self.seed):
            field, balls = (read_arrays(run.folder / name) for name in ("field_2d.npz", "eps_r.npz"))
            if field and balls:
                found.append((run.label, field, balls))
        pictures = [regions(found, self.published, self.seed)] if found else []
        numbers = collected.numbers
        numbers = numbers[numbers["quantity"] == "eps_r"].drop_duplicates(["row", "seed", "kind"], keep="last")
        return pictures + ([over_seeds(numbers, self.published)] if len(numbers) else [])


def regions(found: Sequence[tuple[str, Arrays, Arrays]], published: Mapping[str, float], seed: int) -> Picture:
    """Two panels for each (label, field_2d, eps_r)."""
    with styled():
        figure = Figure(figsize=(8.6, 3.55 * len(found) + 0.5), layout="constrained")
        axes = figure.subplots(len(found), 2, squeeze=False)
        for (left, right), (label, field, balls) in zip(axes, found, strict=True):
            _decisions(left, field, balls)
            _propagation(right, field)
            left.set_title(f"{label}\n{_radius_text(balls, published.get(label))}")
            right.set_title("where its points and circles go")
        figure.legend(handles=_legend(found[0][1]), loc="outside lower center", ncols=4)
    caption = (
        f"Networks of seed {seed}. Left: decision regions, the field at t = 0 (unit arrows), and around each "
        "training point the ball that provably keeps its class (line) and the one of radius ε_r (filled), the smallest "
        "of them: proved from below, attacked from above; × is the nearest point of another class. Right: training "
        f"points and circles of radius {float(found[0][1]['radius']):g} around them (purple) on their way through the "
        "layers to the output space (yellow), with the head's hyperplane (green)."
    )
    return Picture("fig1_regions", figure, "Decision regions and flows", caption)


def _radius_text(balls: Arrays, published: float | None) -> str:
    low, high = float(balls["lower"].min()), float(balls["upper"].min())
    said = f" (published: {published:g})" if published is not None else ""
    return f"$\\varepsilon_r$ in [{low:.4f}, {high:.4f}]{said}"


def _decisions(ax: Axes, field: Arrays, balls: Arrays) -> None:
    x, y, at, arrows = (field[name] for name in ("x", "y", "at", "field"))
    classes = int(max(field["classes"].max(), field["labels"].max())) + 1
    ax.pcolormesh(
        x, y, field["classes"], cmap=ListedColormap(CLASSES[:classes]), vmin=-0.5, vmax=classes - 0.5, alpha=0.16,
        shading="auto", rasterized=True, linewidth=0,
    )  # fmt: skip
    if classes == 2:
        ax.contour(x, y, field["margin"], levels=[0.0], colors=[INK], linewidths=1.1)
    unit = arrows / np.maximum(np.linalg.norm(arrows, axis=2, keepdims=True), 1e-30)
    ax.quiver(
        *np.moveaxis(at, 2, 0), *np.moveaxis(unit, 2, 0), color=MUTED, alpha=0.75, width=0.0028, scale=38, pivot="mid"
    )
    for point, radius, label in zip(balls["points"], balls["lower"], balls["labels"], strict=True):
        color = CLASSES[int(label)]
        ax.add_patch(Circle(point, float(radius), facecolor="none", edgecolor=color, linewidth=1.2))
        ax.add_patch(Circle(point, float(balls["lower"].min()), facecolor=color, edgecolor="none", alpha=0.30))
    worst = int(balls["upper"].argmin())
    if np.isfinite(balls["upper"][worst]):
        ax.plot(*balls["nearest"][worst], "x", color=INK, markersize=7, markeredgewidth=1.8, zorder=5)
    _points(ax, balls["points"], balls["labels"])
    _window(ax, np.array([x[0], y[0]]), np.array([x[-1], y[-1]]), np.ptp(x) / np.ptp(y))
    ax.set(xlabel="input 1", ylabel="input 2")


def _propagation(ax: Axes, field: Arrays) -> None:
    states, circles, labels = field["states"], field["circles"], field["labels"]
    for ring, image in zip(circles[0], circles[-1], strict=True):
        ax.plot(*ring.T, color=PURPLE, linewidth=1.1)
        ax.add_patch(Polygon(image, facecolor=YELLOW, edgecolor="#9A7B00", linewidth=0.9, zorder=2))
    for trajectory in np.moveaxis(states, 1, 0):
        ax.plot(*trajectory.T, "--", color=INK, linewidth=0.9, zorder=3)
    _points(ax, states[0], labels, face="white")
    _points(ax, states[-1], labels, size=3.5)
    both = np.concatenate([circles[0].reshape(-1, 2), circles[-1].reshape(-1, 2)])
    pad = 0.06 * float(np.ptp(both, axis=0).max())
    _window(ax, both.min(0) - pad, both.max(0) + pad, np.ptp(field["x"]) / np.ptp(field["y"]))
    ax.set(xlabel="state 1", ylabel="state 2")
    W, b = field["W"], field["b"]
    if len(W) == 2:
        normal, offset = W[1] - W[0], float(b[1] - b[0])
        foot = -offset * normal / (normal @ normal)
        ax.axline(foot, foot + np.array([-normal[1], normal[0]]), color=GREEN, linestyle="--", linewidth=1.6)


def _points(ax: Axes, points: np.ndarray, labels: np.ndarray, face: str | None = None, size: float = 5.0) -> None:
    for label in np.unique(labels):
        mine, color = points[labels == label], CLASSES[int(label)]
        ax.plot(*mine.T, MARKERS[int(label)], color=color, mfc=face or color, markersize=size, zorder=4)


def _window(ax: Axes, low: np.ndarray, high: np.ndarray, shape: float) -> None:
    """Equal units on both axes, and panels of equal size: the window grows to width/height = shape."""
    centre, (width, height) = (low + high) / 2, high - low
    half = np.array([max(width, shape * height), max(width / shape, height)]) / 2
    ax.set(xlim=(centre[0] - half[0], centre[0] + half[0]), ylim=(centre[1] - half[1], centre[1] + half[1]))
    ax.set_aspect("equal")
    ax.grid(False)


def _legend(field: Arrays) -> list[Artist]:
    names = [f"class {label}" for label in np.unique(field["labels"])]
    points = [
        Line2D([], [], marker=MARKERS[i], color=CLASSES[i], linestyle="none", label=name)
        for i, name in enumerate(names)
    ]
    return [
        *points,
        Line2D([], [], marker="o", markerfacecolor="none", color=MUTED, linestyle="none", markersize=10,
               label="ball that keeps its class"),
        Line2D([], [], marker="x", color=INK, linestyle="none", markersize=7, label="nearest other class"),
        Line2D([], [], color=PURPLE, label="circle at the input"),
        Patch(facecolor=YELLOW, edgecolor="#9A7B00", label="its image at the output"),
        Line2D([], [], color=INK, linestyle="--", linewidth=0.9, label="trajectory"),
        Line2D([], [], color=GREEN, linestyle="--", label="head's hyperplane"),
    ]  # fmt: skip


def over_seeds(numbers: pd.DataFrame, published: Mapping[str, float]) -> Picture:
    """eps_r of every seed, one column of points for each row. numbers: row, label, seed, kind, value."""
    labels = numbers.drop_duplicates("row")[["row", "label"]].sort_values("row")
    with styled():
        figure = Figure(figsize=(1.5 + 1.7 * len(labels), 3.0), layout="constrained")
        ax = figure.subplots()
        for place, (row, label) in enumerate(labels.itertuples(index=False)):
            mine = numbers[numbers["row"] == row]
            low = mine[mine["kind"] == "certified_lower"].set_index("seed")["value"].sort_index()
            high = mine[mine["kind"] == "attack_upper"].set_index("seed")["value"].reindex(low.index)
            at = place + np.linspace(-0.22, 0.22, len(low)) * (len(low) > 1)
            color = PALETTE[place % len(PALETTE)]
            ax.vlines(at, low, high.clip(upper=2 * low.max() + 1e-9), color=color, linewidth=1.2)
            ax.plot(at, low, MARKERS[place % len(MARKERS)], color=color)
            ax.hlines(low.median(), place - 0.3, place + 0.3, color=color, linewidth=1.0, linestyle=":")
            if label in published:
                ax.plot(place + 0.36, published[label], "D", mfc="white", color=INK, markersize=6)
        ax.plot([], [], "D", mfc="white", color=INK, linestyle="none", label="published (one training)")
        ax.plot([], [], ":", color=INK, label="median over seeds")
        ax.set_xticks(range(len(labels)), labels["label"])
        ax.set(xlim=(-0.6, len(labels) - 0.4), ylabel="$\\varepsilon_r$ (data units)")
        ax.set_ylim(bottom=0)
        ax.grid(axis="x", visible=False)
        figure.legend(loc="outside upper center", ncols=2)
    zero = int((numbers[numbers["kind"] == "attack_upper"]["value"] == 0).sum())
    caption = (
        "One point a seed: the radius within which every training point provably keeps its class; a line leads to the "
        "attack's upper bound, where one can see it. The published value is of one training without a seed. "
        f"{zero} of them have ε_r = 0 because they get a training point wrong."
    )
    return Picture("fig1_eps_r", figure, "ε_r over seeds", caption)

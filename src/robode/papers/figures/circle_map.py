"""Maps of the circle that networks have learned: the angle that each angle is sent to, and how long the output is."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.quantities.circle_map import FILE
from robode.report.layout import Picture
from robode.report.style import INK, MUTED, PALETTE, styled
from robode.report.values import Collected, read_arrays

Curve = tuple[str, dict[str, np.ndarray]]
ROUNDED = 1e-17


class CircleMaps:
    """A column for each group of rows, of one seed: above phi(a) - a, below | ||N(x)|| - ||x|| |.

    Reads circle_map.npz (suite=circle_map). seed: whose networks are drawn.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        groups: dict[str, list[Curve]] = {}
        for run in collected.folders():
            if run.seed == self.seed and (arrays := read_arrays(run.folder / FILE)):
                group = run.name.removesuffix(run.label).strip()
                groups.setdefault(group, []).append((run.label, arrays))
        if not groups:
            return []
        labels = list(dict.fromkeys(label for curves in groups.values() for label, _ in curves))
        colours = dict(zip(labels, PALETTE, strict=False))
        with styled():
            figure = Figure(figsize=(3.6 * len(groups) + 0.4, 5.4), layout="constrained")
            axes = figure.subplots(2, len(groups), squeeze=False, sharex=True, sharey="row")
            for (above, below), (group, curves) in zip(axes.T, groups.items(), strict=True):
                _column(above, below, curves, colours)
                above.set_title(group)
            axes[0, 0].set_ylabel("φ(a) − a in rad")
            axes[1, 0].set(ylabel="| ‖N(x)‖ − ‖x‖ |", yscale="log")
            lines = {line.get_label(): line for ax in axes[0] for line in ax.lines if line.get_label()[:1] != "_"}
            figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
        target = next(iter(groups.values()))[0][1]
        fold = folded(angles(target["x"]), target["target"])
        caption = (
            f"Seed {self.seed}, float64; grey ticks: the angles of training. The map folds: near π/2 its angle runs "
            f"back by {fold:.3f} rad, so every invertible map that keeps the norm is somewhere off by at least "
            f"2 sin({fold:.3f}/4) = {2 * np.sin(fold / 4):.3f} (docs/theory.md, section 28)."
        )
        return [Picture("circle_map", figure, "Restrict the architecture, or modify the loss", caption)]


def _column(above: Axes, below: Axes, curves: list[Curve], colours: dict[str, str]) -> None:
    a = angles(curves[0][1]["x"])
    above.plot(a, turned(a, curves[0][1]["target"]), color=INK, linewidth=3, alpha=0.3, label="target")
    for label, arrays in curves:
        above.plot(a, turned(a, arrays["output"]), color=colours.get(label, MUTED), linewidth=1.1, label=label)
        norms = [np.linalg.norm(arrays[name], axis=1) for name in ("output", "x")]
        below.plot(a, np.maximum(abs(norms[0] - norms[1]), ROUNDED), color=colours.get(label, MUTED), linewidth=1.1)
    trained = angles(curves[0][1]["trained"])
    above.plot(trained, np.full(len(trained), 0.02), "|", color=MUTED, transform=above.get_xaxis_transform())
    below.set_xlabel("a in rad")


def angles(points: np.ndarray) -> np.ndarray:
    """(n, 2) points -> their angles in [0, 2 pi), (n,)."""
    found: np.ndarray = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    return found


def turned(a: np.ndarray, points: np.ndarray) -> np.ndarray:
    """By how much the angles of points (n, 2) are ahead of a (n,), in [-pi, pi)."""
    found: np.ndarray = (np.arctan2(points[:, 1], points[:, 0]) - a + np.pi) % (2 * np.pi) - np.pi
    return found


def folded(a: np.ndarray, points: np.ndarray) -> float:
    """How far the angle of points (n, 2) runs back anywhere as a (n,), increasing, runs once round."""
    ahead = a + turned(a, points)
    return float((np.maximum.accumulate(ahead) - ahead).max())

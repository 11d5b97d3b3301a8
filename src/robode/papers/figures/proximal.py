"""How fast proximal gradient methods settle, beside what is proven, and a rotation that does not."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.quantities.proximal import FILE
from robode.report.layout import Picture
from robode.report.style import BLUE, GREEN, MUTED, VERMILLION, styled
from robode.report.values import Collected, read_arrays

SHOWN = {"ridge": ("ridge: gradient descent", BLUE), "box": ("box: projected gradient", VERMILLION),
         "lasso": ("lasso: ISTA", GREEN)}  # fmt: skip
ROUNDED = 1e-14  # shorter steps are not shown


class Settled:
    """A panel for each row, of one seed: ||x_{k+1} - x_k|| and its bound; and one with the iterates of the rotations.

    Reads proximal.npz (suite=proximal). seed: whose runs are drawn.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        of_rows = [(run.label, read_arrays(run.folder / FILE)) for run in runs]
        found = [(label, arrays) for label, arrays in of_rows if arrays]
        if not found:
            return []
        with styled():
            figure = Figure(figsize=(3.5 * (len(found) + 1), 3.4), layout="constrained")
            *panels, plane = figure.subplots(1, len(found) + 1, squeeze=False)[0]
            for ax, (label, arrays) in zip(panels, found, strict=True):
                _steps(ax, arrays)
                ax.set_title(label, fontsize=9)
            panels[0].set_ylabel("‖x(k+1) − x(k)‖")
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
            _plane(plane, found[0][1])
        caption = (
            "Lengths of the steps, from x = (1, …, 1), in float64 (they end where it rounds), and dashed what the "
            "theorem allows: q^k for ridge, a contraction; k^(−1/2) for the others, whose maps are averaged. Right: a "
            "rotation by 1 rad, which turns for ever, and its average with the identity, which converges to 0."
        )
        return [Picture("proximal", figure, "Steps of proximal gradient methods beside their bounds", caption)]


def _steps(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    for name, (label, colour) in SHOWN.items():
        for part, style in (("bound", {"linestyle": "--", "linewidth": 0.9}), ("steps", {"label": label})):
            lengths = arrays[f"{name}_{part}"]
            shown = np.where(lengths >= ROUNDED, lengths, np.nan)
            ax.plot(np.arange(1, len(shown) + 1), shown, color=colour, **style)
    ax.set(xscale="log", yscale="log", xlabel="k + 1")


def _plane(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    ax.plot(*arrays["turned"].T, ".-", color=MUTED, linewidth=0.5)
    ax.plot(*arrays["averaged"].T, ".-", color=BLUE, linewidth=0.8)
    ax.set(aspect="equal", title="rotation, and its average")
    ax.title.set_fontsize(9)

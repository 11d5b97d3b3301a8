"""How far the energy strays, and the phase, against the error of one step: what a structure changes and what not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.report.layout import Picture
from robode.report.style import MARKERS, PALETTE, styled
from robode.report.values import Collected

LARGEST, SMALLEST = 10.0, 1e-6  # what strays further, or less, is drawn here


class DriftAgainstError:
    """A point for each run: the colour is its label, the marker its group. Left the largest | E/E(0) - 1 | on the way,
    right the absolute phase error at the end, both over the root mean square error of one step on test states.

    Needs columns of the quantities one_step_rmse, energy_lowest, energy_highest and, for the right panel, phase_error.
    """

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the numbers."""
        numbers = collected.numbers
        if numbers.empty or "one_step_rmse" not in set(numbers["quantity"]):
            return []
        wide = numbers.pivot_table(
            index=["row", "group", "label", "seed"], columns="quantity", values="value", sort=False
        ).reset_index()
        wide["strayed"] = wide[["energy_lowest", "energy_highest"]].abs().max(axis=1)
        shown = {"strayed": "largest | E/E(0) − 1 |"}
        if "phase_error" in wide:
            shown["phase_error"] = "| phase error | at the end, in rad"
        with styled():
            figure = Figure(figsize=(max(3.8 * len(shown), 5.0), 3.8), layout="constrained")
            for ax, (name, title) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
                _points(ax, wide, name)
                ax.set(title=title, xlabel="error of one step (rms)", xscale="log", yscale="log")
                ax.set(xlim=_decades(ax.get_xlim()), ylim=_decades(ax.get_ylim()))
            figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        caption = (
            "A point for each run: how far the energy strays from that of the exact solution at any time, and by how "
            "much the phase is off at the end, against the error of one step. What is above 10 is drawn there."
        )
        return [Picture("drift_against_error", figure, "Drift against the error of one step", caption)]


def _decades(ends: tuple[float, float]) -> tuple[float, float]:
    """Widened to powers of ten, which have labels that do not meet."""
    return 10.0 ** np.floor(np.log10(ends[0])), 10.0 ** np.ceil(np.log10(ends[1]))


def _points(ax: Axes, wide: pd.DataFrame, name: str) -> None:
    labels, groups = (list(dict.fromkeys(wide[each])) for each in ("label", "group"))
    for (_, group, label), runs in wide.groupby(["row", "group", "label"], sort=False):
        values = np.clip(runs[name].abs().replace(np.inf, LARGEST), SMALLEST, LARGEST)
        marker, colour = MARKERS[groups.index(group) % len(MARKERS)], PALETTE[labels.index(label) % len(PALETTE)]
        ax.plot(runs["one_step_rmse"], values, marker, color=colour, mfc="white", label=f"{group} {label}".strip())

"""By how much learned flow maps of the plane turn too fast or too slowly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.papers.figures.trajectories import Curve, colours, curves, groups
from robode.report.layout import Picture
from robode.report.style import INK, styled
from robode.report.values import Collected

SMALLEST = 1e-7  # rad that are drawn


class PhaseOverTime:
    """A panel for each group: the absolute phase error against time, a curve for each seed, on logarithmic axes, where
    linear growth is the slope of the dashed line. Rows whose states have no phase are left out."""

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has a phase."""
        found = [each for each in curves(collected) if "phase" in each.arrays]
        if not found:
            return []
        of_groups, names = groups(found), colours(found)
        with styled():
            figure = Figure(figsize=(max(3.0 * len(of_groups), 5.0), 3.2), layout="constrained")
            axes = figure.subplots(1, len(of_groups), squeeze=False, sharey=True)[0]
            for ax, (group, of_group) in zip(axes, of_groups.items(), strict=True):
                for label, colour in names.items():
                    _panel(ax, [each for each in of_group if each.label == label], colour)
                _slope_one(ax, of_group)
                ax.set(title=group, xscale="log", yscale="log", xlabel="t")
            axes[0].set_ylabel("| phase error | in rad")
            shown = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
            figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
        caption = (
            "The angle of the network's state less that of the exact solution, with all turns, a curve for each seed. "
            "At a constant energy it grows linearly, whether a map is symplectic or not (docs/theory.md, section 24); "
            "where the period depends on an energy that drifts, faster."
        )
        return [Picture("phase_over_time", figure, "Phase error over time", caption)]


def _panel(ax: Axes, found: Sequence[Curve], colour: str) -> None:
    for index, curve in enumerate(found):
        error = np.abs(curve.arrays["phase"][1:])
        shown = np.where(np.isfinite(error), np.maximum(error, SMALLEST), np.nan)
        ax.plot(curve.arrays["time"][1:], shown, color=colour, linewidth=0.7, alpha=0.8,
                label=None if index else curve.label)  # fmt: skip


def _slope_one(ax: Axes, found: Sequence[Curve]) -> None:
    """A line of slope 1 through the median error at the end."""
    time = found[0].arrays["time"][1:]
    last = float(np.median([abs(each.arrays["phase"][-1]) for each in found]))
    if 0 < last < np.inf:
        ax.plot(time, last * time / time[-1], "--", color=INK, linewidth=0.9, label="∝ t")

"""What an exact solution keeps, along the trajectories of learned flow maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.papers.figures.trajectories import Curve, colours, curves, groups
from robode.report.layout import Picture
from robode.report.style import INK, MUTED, styled
from robode.report.values import Collected


class EnergyOverTime:
    """Two panels for each group, the lower one magnified: an invariant against time, a curve for each seed.

    invariant: its name in trajectory.npz. published: of a label, its values at times, as points. bands: of a label, the
    lowest and the highest value published, dotted. near: the lower panel ends at that share of the exact value from it.
    """

    def __init__(
        self,
        invariant: str = "energy",
        published: Mapping[str, Mapping[float, float]] | None = None,
        bands: Mapping[str, Sequence[float]] | None = None,
        near: float = 0.05,
    ):
        self.invariant, self.published, self.bands, self.near = invariant, published or {}, bands or {}, near

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run was measured."""
        found = [each for each in curves(collected) if self.invariant in each.arrays]
        if not found:
            return []
        of_groups, names = groups(found), colours(found)
        with styled():
            figure = Figure(figsize=(max(3.0 * len(of_groups), 5.0), 5.0), layout="constrained")
            axes = figure.subplots(2, len(of_groups), squeeze=False, sharex=True)
            for column, (group, of_group) in zip(axes.T, of_groups.items(), strict=True):
                for ax, reach in zip(column, (1.0, self.near), strict=True):
                    self._panel(ax, of_group, names, reach)
                column[0].set_title(group)
                column[1].set_xlabel("t")
            for ax in axes[:, 0]:
                ax.set_ylabel(self.invariant)
            drawn = [ax.get_legend_handles_labels() for ax in axes[0]]
            shown = {label: line for lines in drawn for line, label in zip(*lines, strict=True)}
            figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(len(shown), 3))
        seeds = len({each.seed for each in found})
        caption = (
            f"A thin curve for each of {seeds} seeds; black: the exact solution, which keeps its {self.invariant}. "
            f"Above the axis ends at 0 and at twice that value, below {100 * self.near:g} % from it."
            + (" Points and dotted lines: as published." if self.published else "")
        )
        return [Picture(f"{self.invariant}_over_time", figure, f"{self.invariant.capitalize()} over time", caption)]

    def _panel(self, ax: Axes, found: Sequence[Curve], names: Mapping[str, str], reach: float) -> None:
        """reach: how far from the exact value the axis goes, as a share of it."""
        kept = float(found[0].arrays[self.invariant][0])
        ends = found[0].arrays["time"][[0, -1]]
        ax.plot(ends, [kept, kept], color=INK, linewidth=1.2, label="exact")
        for index, curve in enumerate(found):
            first = all(each.label != curve.label for each in found[:index])
            values = np.where(np.isfinite(curve.arrays[self.invariant]), curve.arrays[self.invariant], np.nan)
            ax.plot(curve.arrays["time"], values, color=names[curve.label], linewidth=0.7, alpha=0.8,
                    label=curve.label if first else None)  # fmt: skip
        for label, points in self.published.items():
            ax.plot([*points], [*points.values()], "o", color=names.get(label, MUTED), mfc="white", markersize=5,
                    zorder=5, label=f"{label}, published")  # fmt: skip
        for label, band in self.bands.items():
            for index, end in enumerate(band):
                ax.axhline(end, color=names.get(label, MUTED), linewidth=0.9, linestyle=":",
                           label=None if index else f"{label}, published band")  # fmt: skip
        ax.set_ylim((1 - reach) * kept, (1 + reach) * kept)

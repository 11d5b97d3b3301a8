"""The log-norm delta of sigma(A u + b) over the least slope of the activation, for the weights that were trained."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from robode.quantities.log_norms import FILE
from robode.report.layout import Picture
from robode.report.style import MUTED, PALETTE, panels, styled
from robode.report.values import Collected, RunFolder, read_arrays


class OverSlopes:
    """A panel for each group of rows, a curve for each row: delta for slopes in [alpha, 1], of the first seed that has
    stable_slopes.npz. The band is what lies between its two certified bounds."""

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run was measured."""
        groups = dict(zip(collected.runs["row"], collected.runs["group"].astype(str), strict=True))
        first: dict[int, RunFolder] = {}
        for run in collected.folders():
            if run.row not in first and read_arrays(run.folder / FILE):
                first[run.row] = run
        if not first:
            return []
        names = list(dict.fromkeys(groups[row] for row in first))
        with styled():
            figure, axes = panels(len(names), columns=2, width=3.9, height=3.4)
            labels = dict.fromkeys(run.label for run in first.values())  # one colour for each, in every panel
            colors = {label: PALETTE[number % len(PALETTE)] for number, label in enumerate(labels)}
            for ax, group in zip(axes, names, strict=True):
                _panel(ax, [run for row, run in first.items() if groups[row] == group], colors)
                ax.set(title=group, xlabel="least slope α of the activation")
            axes[0].set_ylabel("δ for slopes in [α, 1]")
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        seeds = ", ".join(map(str, sorted({run.seed for run in first.values()})))
        caption = (
            "The largest log-norm over slopes in [α, 1], from below and above (the band, where it is wide enough to be "
            f"seen), for the weights of seed {seeds}. Where a curve is at most 0, no two solutions separate; it "
            "was trained with the α of the dotted line."
        )
        return [Picture("over_slopes", figure, "How flat an activation the trained weights bear", caption)]


def _panel(ax: Axes, runs: list[RunFolder], colors: Mapping[str, str]) -> None:
    for run in runs:
        arrays, color = read_arrays(run.folder / FILE), colors[run.label]
        ax.fill_between(arrays["alpha"], arrays["lower"], arrays["upper"], color=color, alpha=0.3, linewidth=0)
        ax.plot(arrays["alpha"], arrays["upper"], color=color, label=run.label)
        if "trained" in arrays:  # not in files of the first version
            ax.axvline(float(arrays["trained"]), color=MUTED, linewidth=0.8, linestyle=":")
    ax.axhline(0, color=MUTED, linewidth=0.8)

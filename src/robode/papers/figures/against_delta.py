"""Accuracies against the log-norm delta of the fields: what control of the expansivity buys, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from robode.report.layout import Picture
from robode.report.style import INK, MARKERS, MUTED, PALETTE, panels, styled
from robode.report.values import Collected, seeds_said

DELTA = "delta_upper"


class AgainstDelta:
    """A panel for each group of rows: their accuracies over the proven upper bound of delta, rows joined in its order.

    columns: of the item, accuracies; the first in the colour of the text. Rows without a proven delta are left out.
    """

    def __init__(self, columns: Sequence[str]):
        self.columns = list(columns)

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no row has both delta and an accuracy."""
        points = over_delta(collected, self.columns)
        if points.empty:
            return []
        groups = list(points.groupby("group", sort=False))
        with styled():
            figure, axes = panels(len(groups), columns=2, width=3.9, height=3.4)
            for ax, (group, here) in zip(axes, groups, strict=True):
                self._panel(ax, here)
                ax.set(title=str(group), xlabel="δ, proven upper bound", ylim=(-0.02, 1.02))
                ax.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes[0].set_ylabel("accuracy")
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        seeds = points.groupby(["row", "column"])["seed"].nunique()
        caption = (
            f"Each mark is one row, the mean over {seeds_said(seeds)}; dots are single seeds. Left of 0 no "
            "two solutions of the ODE separate."
        )
        return [Picture("against_delta", figure, "Accuracy against the log-norm of the field", caption)]

    def _panel(self, ax: Axes, here: pd.DataFrame) -> None:
        for number, column in enumerate(self.columns):
            cells = here[here["column"] == column]
            color = INK if number == 0 else PALETTE[(number - 1) % len(PALETTE)]
            marker = MARKERS[number % len(MARKERS)]
            means = cells.groupby("row")[["delta", "value"]].mean().sort_values("delta")
            ax.plot(cells["delta"], cells["value"], ".", color=color, alpha=0.4, markersize=3)
            ax.plot(means["delta"], means["value"], color=color, marker=marker, label=column)
        ax.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")


def over_delta(collected: Collected, columns: Sequence[str]) -> pd.DataFrame:
    """row, group, label, seed, column, value (a fraction) and delta, for rows and seeds that have both."""
    values, numbers = collected.values, collected.numbers
    if values.empty or numbers.empty:
        return pd.DataFrame()
    found = values[values["column"].isin(columns) & (values["kind"] == "score")]
    delta = numbers[numbers["quantity"] == DELTA].drop_duplicates(["row", "seed"], keep="last")
    delta = delta[["row", "seed", "value"]].rename(columns={"value": "delta"})
    about = collected.runs[["row", "seed", "group", "label"]].drop_duplicates(["row", "seed"])
    named = found[["row", "seed", "column", "value"]].merge(about, on=["row", "seed"])
    return named.merge(delta, on=["row", "seed"]).dropna(subset=["delta", "value"]).sort_values("row", kind="stable")

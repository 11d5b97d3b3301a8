"""Paper and ours in one look: a panel per column, a line per row."""

import unicodedata

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.report.style import BLUE, VERMILLION, panels, styled

SIDE_BY_SIDE = 3


def paper_and_ours(cells: pd.DataFrame) -> Figure | None:
    """Prediction intervals (thin), t-intervals (thick) and means of ours beside the printed numbers.

    cells: of `compare`. None if no cell has both a printed number and one of ours.
    """
    both = cells[cells["printed"].notna() & (cells["n"] > 0)]
    if both.empty:
        return None
    columns = list(dict.fromkeys(both["column"]))
    shown = cells[cells["column"].isin(columns)]
    rows = shown[["row", "label", "group"]].drop_duplicates("row")
    names = [f"{group}  {label}".strip() for group, label in zip(rows["group"], rows["label"], strict=True)]
    place = {number: -index for index, number in enumerate(rows["row"])}
    with styled():
        figure, axes = panels(len(columns), columns=SIDE_BY_SIDE, width=3.3, height=0.7 + 0.26 * len(rows))
        for index, (ax, column) in enumerate(zip(axes, columns, strict=True)):
            here = shown[shown["column"] == column]
            _panel(ax, here, np.array([place[row] for row in here["row"]]))
            ax.set(
                title=unicodedata.normalize("NFKC", column),
                ylim=(0.6 - len(rows), 0.6),
                xlabel=here["unit"].iloc[0],
            )
            ax.set_yticks(list(place.values()), names if index % SIDE_BY_SIDE == 0 else [""] * len(rows))
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="y", visible=False)
        handles, labels = axes[0].get_legend_handles_labels()
        beside = len(handles) if len(columns) > 1 else 1  # one panel is narrower than four labels side by side
        figure.legend(handles, labels, loc="outside lower center", ncols=beside)
        if beside == 1:
            figure.set_figheight(figure.get_figheight() + 0.18 * len(handles))
    return figure


def _panel(ax: Axes, here: pd.DataFrame, y: np.ndarray) -> None:
    """Accuracies stay inside [0, 100] even where an interval does not."""
    percent = here["unit"].iloc[0] == "%"
    for low, high, width, label in (
        ("pi_low", "pi_high", 1.2, "ours: 95 % prediction interval"),
        ("t_low", "t_high", 4.0, "ours: 95 % interval of the mean"),
    ):
        left, right = (here[name].to_numpy(float) for name in (low, high))
        known = np.isfinite(left) & np.isfinite(right)
        left, right = (np.clip(each, 0, 100) if percent else each for each in (left, right))
        alpha = 0.45 if width > 2 else 1.0
        ax.hlines(y[known], left[known], right[known], color=BLUE, linewidth=width, alpha=alpha, label=label)
    ax.plot(here["mean"], y, "o", color=BLUE, label="ours: mean over seeds", linestyle="none")
    ax.plot(here["printed"], y, "D", color=VERMILLION, mfc="white", label="paper", linestyle="none", zorder=3)
    if percent:
        start, end = ax.get_xlim()
        ax.set_xlim(max(start, -3), min(end, 103))

"""What contraction costs: accuracies against the settings that buy it (Remark 2 of the CH-NODE paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from robode.report.cells import FEW
from robode.report.layout import Picture, Plain, Yaml
from robode.report.statistics import estimate
from robode.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION, panels, styled
from robode.report.values import Collected, config_of, seeds_said

LOOKS = (
    (INK, "o", "-"), (BLUE, "s", "-"), (SKY, "s", "--"), (VERMILLION, "^", "-"), (ORANGE, "^", "--"),
    (GREEN, "D", "-"), (PURPLE, "D", "--"),
)  # fmt: skip


class Tradeoff:
    """One panel for each setting that the item's rows change, all its accuracies against that setting.

    settings: axis label -> dotted key of config.yaml. A panel has the rows in which all other settings are at their
    most frequent values, so a row that lies at the centre of the sweep is in every panel; of rows that
    differ in something else the first is.
    """

    def __init__(self, settings: Mapping[str, str]):
        self.settings = dict(settings)

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if at least two values of some setting were measured."""
        values = collected.values[(collected.values["kind"] == "score") & (collected.values["unit"] == "%")]
        configs = {row: config_of(Path(runs["folder"].iloc[0])) for row, runs in values.groupby("row")}
        place = pd.DataFrame(
            {
                name: {row: _number(config, key) for row, config in configs.items()}
                for name, key in self.settings.items()
            }
        )
        if place.empty:
            return []
        centre = place.mode().iloc[0]
        sweeps = {}
        for name in self.settings:
            rest = [other for other in self.settings if other != name]
            rows = place[(place[rest] == centre[rest]).all(axis=1)][name].dropna()
            if rows.nunique() > 1:
                sweeps[name] = rows[~rows.duplicated()].sort_values()
        return [_picture(sweeps, values, centre)] if sweeps else []


def _number(config: Plain, key: str) -> float:
    node: Yaml = dict(config)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return float(node) if isinstance(node, int | float) else float("nan")


def _picture(sweeps: Mapping[str, pd.Series], values: pd.DataFrame, centre: pd.Series) -> Picture:
    columns = list(values["column"].unique())
    with styled():
        figure, axes = panels(len(sweeps), columns=3, width=3.2, height=3.3)
        for ax, (name, rows) in zip(axes, sweeps.items(), strict=True):
            step = 0.012 * max(np.log10(rows.max() / rows.min()), 0.5)
            for number, column in enumerate(columns):
                color, marker, line = LOOKS[number % len(LOOKS)]
                look = {"color": color, "marker": marker, "linestyle": line, "label": column}
                cells = values[values["column"] == column]
                _curve(ax, rows, cells, look, (number - (len(columns) - 1) / 2) * step)
            ax.axvline(float(centre[name]), color=MUTED, linewidth=0.8, linestyle=":")
            ax.set(xlabel=name, xscale="log", ylim=(-0.02, 1.02))
            _ticks(ax, np.unique(rows.to_numpy(float)))
        axes[0].set_ylabel("accuracy")
        figure.legend(*_named(axes[0]), loc="outside lower center", ncols=4)
    seeds = values.groupby(["row", "column"])["seed"].nunique()
    spread = f"with 95 % t-intervals (from {FEW} seeds on)" if seeds.max() >= FEW else "without intervals"
    others = ", ".join(f"{name} = {value:g}" for name, value in centre.items())
    caption = (
        f"Mean over {seeds_said(seeds)} {spread}; dots are single seeds. One setting is changed at a time, the others "
        f"stay at {others} (dotted). Certified: right, and provably so within that L2 radius."
    )
    return Picture("tradeoff", figure, "What contraction costs", caption)


def _curve(ax: Axes, rows: pd.Series, cells: pd.DataFrame, look: dict[str, str], shift: float) -> None:
    """Means with intervals, and the single seeds as dots. rows: setting by row; cells: the values of one column; shift:
    share of a decade by which its points stand aside, so that the intervals of several columns do not overlap."""
    points = []
    for row, setting in rows.items():
        values, x = cells[cells["row"] == row]["value"].to_numpy(float), setting * 10**shift
        each = estimate(values)
        half = each.t_high - each.mean if each.n >= FEW else 0.0
        points += [(x, each.mean, half)] if each.n else []
        ax.plot([x] * each.n, values, ".", color=look["color"], alpha=0.45, markersize=3)
    if points:
        x, mean, half = np.array(points).T
        thin = {"capsize": 1.5, "elinewidth": 0.8, "linewidth": 1.3, "markersize": 3.8}
        for bar in ax.errorbar(x, mean, yerr=half, **thin, **look)[2]:  # type: ignore[arg-type]
            bar.set_alpha(0.6)


def _named(ax: Axes) -> tuple[list[Artist], list[str]]:
    """Handles without error bars, and labels."""
    handles, labels = ax.get_legend_handles_labels()
    return [getattr(handle, "lines", [handle])[0] for handle in handles], labels


def _ticks(ax: Axes, at: np.ndarray) -> None:
    """The values that were run, as they are written."""
    ax.xaxis.set_major_locator(FixedLocator(at.tolist()))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))

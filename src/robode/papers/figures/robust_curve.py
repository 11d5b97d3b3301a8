"""Accuracy against the size of an attack for each row of an item, the published points, and the certified share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robode.report.cells import FEW
from robode.report.curves import NORMS, certified_area, over_eps
from robode.report.layout import Picture
from robode.report.statistics import estimate
from robode.report.style import INK, MARKERS, MUTED, PALETTE, panels, styled
from robode.report.tables import measure_of
from robode.report.values import Collected, names_of, seeds_said
from robode.tasks.measure import Measure

CLEAN, CERTIFIED = "clean", "certified"
ATTACKS = {"pgd_l2": "PGD", "apgd_margin_l2": "APGD"}  # perturbations by name; the first is the curve, others are marks
MARKS = MARKERS[::2]  # not the diamonds, which are those of published values
HOLLOW: dict[str, Any] = {"marker": "D", "mfc": "none", "linestyle": "none"}
OTHERS: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "alpha": 0.55, "zorder": 1}


class RobustCurve:
    """A panel for each row: what an attack leaves over its size, and dashed beneath it the certified share.

    published: name of a row (group and label) -> column of the item -> percent, as in the row's `published`; columns of
    anything but clean data and the first attack are no points of the curve.
    """

    def __init__(self, published: Mapping[str, Mapping[str, float]] | None = None):
        self.published = {name: dict(values) for name, values in dict(published or {}).items()}

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no row has been attacked."""
        attack = next(iter(ATTACKS))
        found = shares(collected.rows, (CLEAN, *ATTACKS, CERTIFIED))
        curves = found[(found["perturbation"] == attack) & found["norm"].isin(list(NORMS))]
        rows = curves.drop_duplicates("row")
        if rows.empty:
            return []
        measure = measure_of(collected.rows)
        across = 2 if len(rows) in (2, 4) else 3
        with styled():
            figure, axes = panels(len(rows), columns=across, width=3.3, height=2.6, fill=False)
            for number, (ax, row) in enumerate(zip(axes, rows.itertuples(), strict=True)):
                color, name = PALETTE[number % len(PALETTE)], str(row.name)
                for other in rows["row"][rows["row"] != row.row]:
                    points = _from_clean(found[found["row"] == other], attack)
                    ax.plot(points["severity"], points["mean"], **OTHERS)
                self._ours(ax, found[found["row"] == row.row], color, measure)
                ax.plot(*self._points(collected.rows, name), color=color, zorder=4, **HOLLOW)
                over_eps(ax, str(row.norm), name, measure)
                ax.set_ylabel(measure.label if number % across == 0 else "")
                if measure.shares:
                    ax.set_ylim(-0.03, 1.02)  # marks at 0 stay whole
            found = found[found["row"].isin(rows["row"])]
            published = any(self._points(collected.rows, str(name))[0] for name in rows["name"])
            handles = self._legend(set(found["perturbation"]), published, len(rows) > 1)
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        missing = collected.runs[~collected.runs["row"].isin(rows["row"])]
        title = f"{measure.score_name.capitalize()} against the size of an attack"
        return [Picture("robust_curve", figure, title, _caption(found, missing))]

    def _ours(self, ax: Axes, here: pd.DataFrame, color: str, measure: Measure) -> None:
        """The curves, which begin at the clean score, and the marks of one row."""
        for number, name in enumerate((*ATTACKS, CERTIFIED)):
            curve = number == 0 or name == CERTIFIED
            points = _from_clean(here, name) if curve else here[here["perturbation"] == name]
            eps, mean = points["severity"].to_numpy(float), points["mean"].to_numpy(float)
            look = {"linestyle": "-" if curve else "none", "marker": MARKS[number % len(MARKS)], "zorder": 3}
            if name == CERTIFIED:
                certified_area(ax, eps, mean, measure)
                look = {"linestyle": "--", "zorder": 2}
            reach = np.abs(points[["low", "high"]].to_numpy(float).T - mean)
            ax.errorbar(eps, mean, yerr=reach, color=color, capsize=2, elinewidth=0.8, **look)  # type: ignore[arg-type]

    def _points(self, rows: pd.DataFrame, name: str) -> tuple[list[float], list[float]]:
        """Sizes of the attack and published fractions of one row, where its columns have been measured in some row."""
        drawn = rows[rows["perturbation"].isin([CLEAN, next(iter(ATTACKS))])]
        eps = dict(zip(drawn["column"], drawn["severity"].astype(float), strict=True))
        points = [(eps[column], value / 100) for column, value in self.published.get(name, {}).items() if column in eps]
        return [x for x, _ in points], [y for _, y in points]

    def _legend(self, drawn: Collection[str], published: bool, others: bool) -> list[Artist]:
        """What is in the panels, in the colour of none of them."""
        curve, *marks = ATTACKS.items()
        handles: list[Artist] = [Line2D([], [], color=INK, marker=MARKS[0], label=curve[1])]
        for number, (name, label) in enumerate(marks, start=1):
            if name in drawn:
                marker = MARKS[number % len(MARKS)]
                handles.append(Line2D([], [], color=INK, marker=marker, linestyle="none", label=label))
        if CERTIFIED in drawn:
            handles.append(Line2D([], [], color=INK, linestyle="--", label="certified"))
        if published:
            handles.append(Line2D([], [], color=INK, label="published", **HOLLOW))
        if others:
            handles.append(Line2D([], [], label=f"{curve[1]}, other rows", **OTHERS))
        return handles


def shares(rows: pd.DataFrame, perturbations: Collection[str]) -> pd.DataFrame:
    """row, name, norm, perturbation, severity, how many seeds, and over these the mean of the score and (low, high),
    its 95 % prediction interval, of shares within [0, 1]; of fewer than FEW seeds the smallest and the largest, of one
    NaN. By row and severity.

    rows: of a collected item, one for each noisy copy of a cell's measurement.
    """
    found = rows[rows["perturbation"].isin(list(perturbations))].drop_duplicates(
        ["row", "seed", "perturbation", "severity", "repeat"]
    )
    most = 1 if measure_of(found).shares else np.inf
    name = names_of(found)
    lines = []
    key = ["row", "name", "norm", "perturbation", "severity"]
    for about, group in found.assign(share=found["score"].astype(float), name=name).groupby(key, dropna=False):
        of_seeds = group.groupby("seed")["share"].mean()
        over = estimate(of_seeds)
        few = over.n < FEW
        ends = (of_seeds.min(), of_seeds.max()) if few else (over.pi_low, over.pi_high)
        low, high = np.clip(ends, 0, most) if over.n > 1 else (np.nan, np.nan)
        lines.append((*about, over.mean, low, high, over.n))
    table = pd.DataFrame(lines, columns=[*key, "mean", "low", "high", "seeds"])
    return table.sort_values(["row", "severity"], kind="stable", ignore_index=True)


def _from_clean(here: pd.DataFrame, name: str) -> pd.DataFrame:
    """The points of one curve of a row, from its clean score on; none where it has only that."""
    points = here[here["perturbation"].isin([CLEAN, name])]
    return points if (points["perturbation"] == name).any() else points[:0]


def _caption(found: pd.DataFrame, missing: pd.DataFrame) -> str:
    fewest, most = int(found["seeds"].min()), int(found["seeds"].max())
    whiskers = ", with the smallest and the largest" if fewest < FEW and most > 1 else ""
    whiskers += f"{' and' if whiskers else ', with'} 95 % prediction intervals" if most >= FEW else ""
    whiskers += f" from {FEW} seeds on" if fewest < FEW <= most else ""
    names = dict.fromkeys(names_of(missing))
    rest = f" Not attacked yet: {'; '.join(names)}." if names else ""
    return (
        f"Mean over {seeds_said(found['seeds'])}{whiskers}; eps 0 is the clean test set. Dashed: the share that is "
        f"right and provably stays so within that L2 radius, which no attack can go below.{rest}"
    )

"""What one kind of row gains over the others where both answer clean samples equally well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robode.report.layout import Picture
from robode.report.statistics import Estimate, estimate
from robode.report.style import INK, MUTED, PALETTE, panels, styled
from robode.report.values import Collected, seeds_said

LINE, HEAD = 0.2, 1.1  # inches: a line of a panel, and its title and axis
LINES = ["group", "line", "column", "seed", "difference"]


class Matched:
    """A panel for each group: score of every row whose label begins with `ours`, less that of each other row, where
    their clean scores differ by at most `within` (a share) in the mean over seeds.

    columns: of the item, shares; the first is that of clean samples, and the one that is matched. Differences are
    between runs of one seed, with the 95 % t-interval over seeds.
    """

    def __init__(self, columns: Sequence[str], ours: str, within: float = 0.005):
        self.columns, self.ours, self.within = list(columns), ours, within

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no two rows match."""
        pairs = differences(collected, self.columns, self.ours, self.within)
        if pairs.empty:
            return []
        groups = list(pairs.groupby("group", sort=False))
        most = max(len(here.groupby(["line", "column"])) for _, here in groups)
        with styled():
            figure, axes = panels(len(groups), columns=1, width=7.2, height=HEAD + LINE * most)
            for ax, (group, here) in zip(axes, groups, strict=True):
                self._panel(ax, here)
                ax.set_title(str(group))
            axes[-1].set_xlabel("difference in percentage points")
        seeds = pairs.groupby(["group", "line", "column"])["seed"].nunique()
        caption = (
            f"Where two rows are within {100 * self.within:g} points of each other in '{self.columns[0]}': differences "
            f"of runs with the same seed, {seeds_said(seeds)}; mean, 95 % t-interval, dots for single seeds."
        )
        return [Picture("matched", figure, "What is gained at the same clean accuracy", caption)]

    def _panel(self, ax: Axes, here: pd.DataFrame) -> None:
        """Pairs of rows from above, each with a line for every column."""
        names, place = [], 0.0
        for line, of_pair in here.groupby("line", sort=False):
            for number, column in enumerate(self.columns):
                values = 100 * of_pair[of_pair["column"] == column]["difference"].to_numpy(float)
                if not len(values):
                    continue
                color = INK if number == 0 else PALETTE[(number - 1) % len(PALETTE)]
                found = estimate(values)
                half = found.t_high - found.mean if found.n > 1 else 0.0
                ax.plot(values, np.full(len(values), place), ".", color=color, alpha=0.45, markersize=3)
                ax.errorbar(
                    found.mean, place, xerr=half, color=color, marker="o", markersize=4, capsize=2, elinewidth=1
                )
                ax.text(1.02, place, said(found), transform=ax.get_yaxis_transform(), va="center", fontsize=7.5)
                names.append((place, f"{line}   {column}" if number == 0 else column))
                place += 1
            place += 0.6
        ax.set_yticks([at for at, _ in names], [name for _, name in names], fontsize=7.5)
        ax.invert_yaxis()
        ax.axvline(0, color=MUTED, linewidth=0.8)


def said(found: Estimate) -> str:
    """ "+1.3 (−0.2 … +2.8)", of a difference in percentage points; without an interval for one seed."""
    text = f"{found.mean:+.1f}"
    text += f" ({found.t_low:+.1f} … {found.t_high:+.1f})" if found.n > 1 else ""
    return text.replace("-", "−")


def differences(collected: Collected, columns: Sequence[str], ours: str, within: float) -> pd.DataFrame:
    """group, line ("a − b"), column, seed, difference (of shares) for each pair of rows a, whose label begins with
    `ours`, and b, whose label does not, with equal scores in the first column."""
    values = collected.values
    scores = values[values["column"].isin(columns) & (values["kind"] == "score") & (values["unit"] == "%")]
    found = []
    for group, here in scores.groupby("group", sort=False):
        table = here.pivot_table(index=["label", "seed"], columns="column", values="value", sort=False)
        if columns[0] not in table:
            continue
        clean = table[columns[0]].groupby("label", sort=False).mean()
        for a in clean.index:
            for b in clean.index if a.startswith(ours) else ():
                if not b.startswith(ours) and abs(clean[a] - clean[b]) <= within:
                    less = (table.loc[a] - table.loc[b]).stack().rename("difference").reset_index()
                    found.append(less.assign(group=group, line=f"{a} − {b}"))
    return pd.concat(found)[LINES].dropna() if found else pd.DataFrame(columns=LINES)

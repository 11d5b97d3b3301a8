"""Our numbers beside the published ones: the cells of a table as numbers, and as the words that the page, Markdown and
LaTeX have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from robode.report import statistics
from robode.report.layout import Column, Layout, Plain, TableRow
from robode.report.statistics import Floats
from robode.report.values import DOUBT, Collected, config_of

CELL_COLUMNS = (
    "row", "label", "group", "column", "unit", "published", "mean", "std", "min", "max", "n", "t_low", "t_high",
    "pi_low", "pi_high", "mean_low", "mean_high", "repeat_std", "repeats", "samples", "verdict", "percentile", "needed",
    "mark", "runs", "doubted", "doubt",
)  # fmt: skip
VERDICTS: tuple[statistics.Verdict, ...] = ("agrees", "higher", "lower", "spread", "undecided", "not run")
MARK, MASKED = "†", "‡"
FAILS = "fails gradient-masking checks"
SYMBOLS = {"agrees": "✓", "higher": "▲", "lower": "▼", "spread": "↔", "undecided": "?", "not run": "○", "": ""}
NOTHING = "–"
FEW = 5  # seeds: of fewer the smallest and largest are shown, a t-interval says less than these
BEHIND = (
    "mean", "std", "smallest and largest", "95 % of the mean", "95 % of a further seed", "std of noisy copies",
    "samples",
)  # fmt: skip
_FEW_SAID = f"with the smallest and the largest of them, (a … b), and from {FEW} seeds on"
_CUT = ", as [a, b] where it is cut off at 0 or 100 %"
Band = Literal["prediction", "mean"]
_ENDS: Mapping[Band, tuple[str, str]] = {"prediction": ("pi_low", "pi_high"), "mean": ("t_low", "t_high")}


def compare(layout: Layout, collected: Collected) -> pd.DataFrame:
    """CELL_COLUMNS, one line per row and column of the table, in its order.

    Everything is in the unit of the cell: accuracies in percent. mean, std, min, max, n, t_… and pi_…: over seeds, of
    the mean over noisy copies; repeat_std: between the copies of a seed. mean_low and mean_high differ from mean only
    where a quantity is known from below and above (∓inf: not known from there); pi_low and pi_high then hold both.
    verdict: of `statistics.verdict`, "" where nothing is published and something was run. percentile: of "spread", how
    many percent of our seeds are below the published value; needed: of "undecided", how many seeds are expected to
    decide (NaN: bounds do not). runs: names, in seed order.
    doubted: in how many runs the accuracy fails gradient-masking checks; doubt: why in the first of them.

    Raises:
        BadInput: runs of one row have different configurations, or the same seed.
    """
    configs = {str(folder): config_of(Path(folder)) for folder in collected.runs["folder"].dropna()}
    values = collected.values.dropna(subset=["value"])
    lines = []
    for number, row in enumerate(layout.rows):
        for column in layout.columns.values():
            here = values[(values["row"] == number) & (values["column"] == column.name)]
            lines.append({"row": number, **_numbers(row, column, here.sort_values("seed", kind="stable"), configs)})
    return pd.DataFrame(lines, columns=list(CELL_COLUMNS))


def tally(cells: pd.DataFrame) -> dict[str, int]:
    """How often each verdict was reached, among the cells that have a published number."""
    found = cells[cells["published"].notna()]["verdict"].value_counts()
    return {name: int(found.get(name, 0)) for name in VERDICTS}


def _numbers(
    row: TableRow, column: Column, here: pd.DataFrame, configs: Mapping[str, Plain]
) -> dict[str, str | float | list[str]]:
    unit = column.unit_of(here["unit"])
    scale = 100.0 if unit == "%" else 1.0
    ends = {name: scale * here[name].fillna(here["value"]).astype(float) for name in ("low", "high")}
    runs = [
        (str(name), configs.get(str(folder), {}), [low, high])
        for name, folder, low, high in zip(here["run"], here["folder"], ends["low"], ends["high"], strict=True)
    ]
    low, high = statistics.pooled(runs).reshape(-1, 2).T
    shown = np.where(np.isfinite(low), low, high)
    found, below, above = (statistics.estimate(x) for x in (shown, low, high))
    published = row.published.get(column.name)
    doubts = [text for text in here[DOUBT].fillna("") if text]
    verdict, about = _verdict(published, low, high, unit)
    return {
        "label": row.label, "group": row.group, "column": column.name, "unit": unit,
        "published": math.nan if published is None else float(published),
        "mean": found.mean, "std": found.std,
        "min": shown.min(initial=math.inf) if shown.size else math.nan,
        "max": (high if np.isfinite(high).all() else shown).max(initial=-math.inf) if shown.size else math.nan,
        "n": found.n, "t_low": found.t_low, "t_high": found.t_high,
        "pi_low": below.pi_low if np.isfinite(low).all() else -math.inf,
        "pi_high": above.pi_high if np.isfinite(high).all() else math.inf,
        "mean_low": below.mean, "mean_high": above.mean,
        "repeat_std": scale * statistics.repeat_spread(list(here["spread"]), list(here["repeats"].fillna(0))),
        "repeats": _smallest(here["repeats"]),
        "samples": _smallest(here["n"]),
        "verdict": verdict, **about,
        "mark": bool(here["mark"].any()),
        "runs": [name for name, _, _ in runs],
        "doubted": len(doubts), "doubt": doubts[0] if doubts else "",
    }  # fmt: skip


def _verdict(published: float | None, low: Floats, high: Floats, unit: str) -> tuple[str, dict[str, float]]:
    """With the percentile, or the number of seeds that are needed. Ten points are wide for an accuracy; for a number
    without a scale half of itself is."""
    about = {"percentile": math.nan, "needed": math.nan}
    if published is None:
        return "" if low.size else "not run", about
    widest = statistics.WIDEST if unit == "%" else abs(published) / 2
    found = statistics.verdict(published, low, upper=high, widest=widest)
    if found == "spread":
        about["percentile"] = statistics.percentile(published, low)
    if found == "undecided":
        count = max(statistics.needed(statistics.estimate(ends).std, widest) for ends in (low, high))
        about["needed"] = count if count > low.size else math.nan
    return found, about


def _smallest(counts: pd.Series) -> int:
    return int(counts.min()) if counts.notna().any() else 0


@dataclass(frozen=True)
class Cell:
    """What one cell says. about: what follows from the verdict, "n = 14" or "35 %", else "". behind: the numbers behind
    it, by the names in BEHIND. doubt: in how many runs its accuracy fails gradient-masking checks, and why; "" where it
    is not."""

    column: str
    paper: str
    ours: str
    verdict: str
    about: str
    mark: bool
    behind: Mapping[str, str]
    doubt: str = ""

    @property
    def number(self) -> str:
        """What is written of `ours` without how far the seeds are apart."""
        return re.split(r" (?=[±(\[])", self.ours, maxsplit=1)[0]

    @property
    def judged(self) -> str:
        """ "agrees", "spread (35 %)", "undecided (n = 14)"."""
        return f"{self.verdict} ({self.about})" if self.about else self.verdict

    @property
    def marks(self) -> str:
        """What is written behind the number: "", " †", " ‡" or " † ‡"."""
        return f" {MARK}" * self.mark + f" {MASKED}" * bool(self.doubt)


@dataclass(frozen=True)
class Line:
    """One row. number: its place in the item; seeds: how many of how many; params: of the network."""

    number: int
    label: str
    seeds: str
    params: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """compared: whether anything is published; else a cell is only `ours`. notes: what a reader must know."""

    title: str
    label: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    compared: bool
    summary: str
    notes: tuple[str, ...]


def build_table(layout: Layout, cells: pd.DataFrame, runs: pd.DataFrame, label: str = "") -> Table:
    """The table in words. cells: of `compare`; runs: collected.runs; label: what limits the comparison."""
    compared = bool(cells["published"].notna().any())
    band: Band = "prediction" if compared else "mean"
    groups: dict[str, list[Line]] = {}
    for number, here in cells.groupby("row", sort=False):
        row, mine = layout.rows[int(str(number))], runs[runs["row"] == number]
        words = tuple(_cell(cell, band) for _, cell in here.iterrows())
        line = Line(int(str(number)), row.label, _seeds(here["n"], len(mine)), _params(mine["params"]), words)
        groups.setdefault(row.group, []).append(line)
    return Table(
        layout.title,
        label,
        tuple(layout.columns),
        tuple((name, tuple(lines)) for name, lines in groups.items()),
        compared,
        "; ".join(filter(None, (summary(cells, runs.groupby("row").size()), layout.selected))),
        tuple(_notes(cells, compared)),
    )


def summary(cells: pd.DataFrame, planned: pd.Series) -> str:
    """ "54 cells: 31 agree, 4 higher, 12 not run"; of the cells with a published number, if there are any. Then,
    of all, how many lack seeds. planned: how many seeds by row."""
    partial = int(((cells["n"] > 0) & (cells["n"] < cells["row"].map(planned))).sum())
    return _measured(cells) + (f"; {partial} with fewer seeds than planned" if partial else "")


def _measured(cells: pd.DataFrame) -> str:
    published = int(cells["published"].notna().sum())
    if not published:
        absent = int((cells["n"] == 0).sum())
        if absent == len(cells):
            return "nothing measured yet"
        return f"{_count(len(cells), 'cell')}, {f'{absent} not run' if absent else 'all measured'}"
    found = [count(name, n) for name, n in tally(cells).items() if n]
    rest = len(cells) - published
    further = f"; {rest} without a published number" if rest else ""
    return f"{_count(published, 'cell')}: {', '.join(found)}{further}"


def count(verdict: str, n: int) -> str:
    """ "31 agree", "1 agrees", "12 not run"."""
    return f"{n} {'agree' if verdict == 'agrees' and n != 1 else verdict}"


def ours(cell: pd.Series, band: Band) -> str:
    """Mean over seeds with its interval: "57.1 ± 23.4", or "95.2 [88.1, 100.0]" where that is cut off at 0 or 100 %. Of
    fewer than FEW seeds "57.1 (40.2 … 70.3)", the smallest and the largest. "≥ …" for a bound, "a … b" between bounds.
    """
    if not cell["n"]:
        return NOTHING
    low, high, mean, unit = (cell[name] for name in ("mean_low", "mean_high", "mean", "unit"))
    if math.isfinite(low) and math.isfinite(high) and low != high:
        return f"{_number(low, math.nan, '')} … {_number(high, math.nan, '')}"
    sign = "" if low == high else "≥ " if math.isfinite(low) else "≤ "
    if cell["n"] == 1:
        return f"{sign}{_number(mean, math.nan, unit)} (1 seed)"
    if cell["n"] < FEW:
        half = (cell["max"] - cell["min"]) / 2
        smallest, largest = (_number(cell[end], half, unit) for end in ("min", "max"))
        return f"{sign}{_number(mean, half, unit)} ({smallest} … {largest})"
    start, end = (cell[name] for name in _ENDS[band])
    half = mean - start if math.isfinite(start) else end - mean
    ends = _inside(mean - half, mean + half, unit)
    beside = (
        f"± {_number(half, half, unit)}" if ends is None else f"[{', '.join(_number(x, half, unit) for x in ends)}]"
    )
    return f"{sign}{_number(mean, half, unit)} {beside}"


def _inside(low: float, high: float, unit: str) -> tuple[float, float] | None:
    """The part of an interval of percentages that lies between 0 and 100; None where all of it does."""
    return (max(low, 0.0), min(high, 100.0)) if unit == "%" and (low < 0 or high > 100) else None


def _less(cells: pd.DataFrame, limit: str) -> list[str]:
    """Of the verdicts that are no answer, those that the table has."""
    notes = []
    if (cells["verdict"] == "spread").any():
        notes.append(
            f"spread (35 %): the interval contains the published value, but its half-width is over {limit}, and by the "
            f"standard deviation of at least {statistics.MANY} seeds no number of them makes it smaller; 35 % of ours "
            "are below the published value."
        )
    if (undecided := cells[cells["verdict"] == "undecided"]["needed"]).notna().any():
        notes.append(
            f"undecided (n = 14): too few seeds, one or with a half-width over {limit}; by their standard deviation 14 "
            f"are expected to be needed, or {statistics.MANY} to see that they spread."
        )
    if undecided.isna().any():
        notes.append("undecided without a number: the published value lies between bounds that are too far apart.")
    return notes


def _cell(cell: pd.Series, band: Band) -> Cell:
    value, unit = cell["published"], cell["unit"]
    paper = NOTHING if math.isnan(value) else f"{value:.2f}" if unit == "%" else f"{value:g}"
    doubt = f"{_share(int(cell['doubted']), int(cell['n']))}: {cell['doubt']}" if cell["doubted"] else ""
    behind = _behind(cell) | ({FAILS: doubt} if doubt else {})
    known = cell["percentile"], cell["needed"]
    about = next((form.format(x) for form, x in zip(("{:.0f} %", "n = {:.0f}"), known, strict=True) if pd.notna(x)), "")
    return Cell(cell["column"], paper, ours(cell, band), cell["verdict"], about, bool(cell["mark"]), behind, doubt)


def _behind(cell: pd.Series) -> dict[str, str]:
    """Spread, both intervals, copies and samples of one cell, as far as there are any."""
    if not cell["n"]:
        return {}
    unit = cell["unit"]
    found = {"mean": _number(cell["mean"], math.nan, unit)}
    if cell["n"] > 1:
        found["std"] = _number(cell["std"], math.nan, unit)
        shown = {"smallest and largest": ("min", "max")}
        shown |= dict(zip(BEHIND[3:5], (_ENDS["mean"], _ENDS["prediction"]), strict=True)) if cell["n"] >= FEW else {}
        for name, ends in shown.items():
            low, high = (cell[end] for end in ends)
            half, inside = (high - low) / 2, _inside(low, high, unit) or (low, high)
            found[name] = f"[{', '.join(_number(end, half, unit) for end in inside)}]"
    if cell["repeats"] > 1:
        found["std of noisy copies"] = f"{_number(cell['repeat_std'], math.nan, unit)} ({cell['repeats']})"
    if cell["samples"]:
        found["samples"] = str(cell["samples"])
    return found


def _number(value: float, half: float, unit: str) -> str:
    """As many digits as the half-width supports: percent with one decimal, or two where that would hide it."""
    if not math.isfinite(value):
        return "not known" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if unit == "%":
        return f"{value:.1f}" if half >= 1 else f"{value:.2f}"
    if not (math.isfinite(half) and half > 0) or abs(value) >= 1e6 or half < 1e-6:
        return f"{value:.4g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(half)))}f}"


def _seeds(counts: pd.Series, planned: int) -> str:
    low, high = int(counts.min()), int(counts.max())
    done = f"{low}" if low == high else f"{low} {'or' if high - low == 1 else 'to'} {high}"
    return f"{done} of {planned}" if planned and done != f"{planned}" else done


def _params(counts: pd.Series) -> str:
    known = counts.dropna()
    return f"{int(known.iloc[0]):,}".replace(",", " ") if len(known) else NOTHING


def _share(doubted: int, runs: int) -> str:
    """ "in 2 of 3 runs"."""
    return f"in {doubted} of {_count(runs, 'run')}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _notes(cells: pd.DataFrame, compared: bool) -> list[str]:
    notes = ["Accuracies in percent."] if (cells["unit"] == "%").any() else []
    notes += [f"Scores in {unit}." for unit in cells["unit"].unique() if unit not in ("%", "")]
    if compared:
        percents, others = f"{statistics.WIDEST:g} percentage points", "half of the published number"
        limit = " or ".join(dict.fromkeys(percents if unit == "%" else others for unit in cells["unit"].unique()))
        notes.append(
            f"Each cell: paper | ours | verdict. Ours is the mean over training seeds {_FEW_SAID} ± the half-width of "
            f"the 95 % prediction interval t·s·√(1 + 1/n), which holds a further seed in 95 of 100 cases{_CUT}; the "
            "published value is of one run. A verdict goes by that interval for any number of seeds. agrees: it "
            "contains the published value; higher, lower: ours is higher, lower."
        )
        notes += _less(cells, limit)
    else:
        notes.append(f"Each cell: mean over training seeds {_FEW_SAID} ± the half-width of its 95 % t-interval{_CUT}.")
    if not cells["mean_low"].equals(cells["mean_high"]):
        notes.append("≥, ≤ and …: the quantity is known from one side, or from both by different bounds.")
    if cells["mark"].any():
        notes.append(f"{MARK} some of the runs were trained, or measured, by other code than that of this report.")
    for name, column in cells.groupby("column", sort=False):  # over all its rows
        doubted = column[column["doubted"] > 0]
        if len(doubted):
            more = ", and the like" if doubted["doubt"].nunique() > 1 else ""
            share = _share(int(doubted["doubted"].sum()), int(column["n"].sum()))
            notes.append(f"{MASKED} {name}: {FAILS} {share}: {doubted['doubt'].iloc[0]}{more}.")
    return notes

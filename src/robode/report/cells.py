"""A table of cells as words: what the page, Markdown and LaTeX have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from robode.report import statistics
from robode.report.compare import tally

if TYPE_CHECKING:
    from robode.papers.spec import Item

MARK, MASKED = "†", "‡"
FAILS = "fails gradient-masking checks"
NOTHING = "–"
BEHIND = ("mean", "std", "95 % of the mean", "95 % of a further seed", "std of noisy copies", "samples")
Band = Literal["prediction", "mean"]
_ENDS: Mapping[Band, tuple[str, str]] = {"prediction": ("pi_low", "pi_high"), "mean": ("t_low", "t_high")}


@dataclass(frozen=True)
class Cell:
    """What one cell says. behind: the numbers behind it, by the names in BEHIND. doubt: in how many runs its accuracy
    fails gradient-masking checks, and why; "" where it is not."""

    column: str
    paper: str
    ours: str
    verdict: str
    mark: bool
    behind: Mapping[str, str]
    doubt: str = ""

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
    """compared: whether anything is printed; without a print a cell is only `ours`. notes: what a reader must know."""

    title: str
    label: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    compared: bool
    summary: str
    notes: tuple[str, ...]


def build_table(item: Item, cells: pd.DataFrame, runs: pd.DataFrame, label: str = "") -> Table:
    """The table of an item. cells: of `compare`; runs: collected.runs; label: what limits the comparison."""
    compared = bool(cells["printed"].notna().any())
    band: Band = "prediction" if compared else "mean"
    groups: dict[str, list[Line]] = {}
    for number, here in cells.groupby("row", sort=False):
        first = here.iloc[0]
        mine = runs[runs["row"] == number]
        line = Line(
            int(first["row"]),
            str(first["label"]),
            _seeds(here["n"], len(mine)),
            _params(mine["params"]),
            tuple(_cell(cell, band) for _, cell in here.iterrows()),
        )
        groups.setdefault(str(first["group"]), []).append(line)
    return Table(
        item.title,
        label,
        tuple(item.columns),
        tuple((name, tuple(lines)) for name, lines in groups.items()),
        compared,
        summary(cells, runs.groupby("row").size()),
        tuple(_notes(cells, compared)),
    )


def with_doubts(cells: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """The cells of `compare` with two more columns: in how many runs the accuracy fails gradient-masking checks
    (doubted), and why in the first of them (doubt, "" for none). values: collected.values."""
    found = values[values["doubt"].fillna("") != ""]
    why = {key: list(group["doubt"]) for key, group in found.groupby(["row", "column"], sort=False)}
    reasons = [why.get(key, []) for key in zip(cells["row"], cells["column"], strict=True)]
    return cells.assign(doubted=[len(each) for each in reasons], doubt=[each[0] if each else "" for each in reasons])


def summary(cells: pd.DataFrame, planned: pd.Series) -> str:
    """ "54 cells: 31 agree, 4 higher, 12 not run"; of the cells with a printed number, if there are any. Then, of all,
    how many lack seeds. planned: how many seeds by row."""
    partial = int(((cells["n"] > 0) & (cells["n"] < cells["row"].map(planned))).sum())
    return _measured(cells) + (f"; {partial} with fewer seeds than planned" if partial else "")


def _measured(cells: pd.DataFrame) -> str:
    printed = int(cells["printed"].notna().sum())
    if not printed:
        missing = int((cells["n"] == 0).sum())
        if missing == len(cells):
            return "nothing measured yet"
        return f"{_count(len(cells), 'cell')}, {f'{missing} not run' if missing else 'all measured'}"
    found = [count(name, n) for name, n in tally(cells).items() if n]
    rest = len(cells) - printed
    further = f"; {rest} without a printed number" if rest else ""
    return f"{_count(printed, 'cell')}: {', '.join(found)}{further}"


def count(verdict: str, n: int) -> str:
    """ "31 agree", "1 agrees", "12 not run"."""
    return f"{n} {'agree' if verdict == 'agrees' and n != 1 else verdict}"


def ours(cell: Mapping[str, Any] | pd.Series, band: Band) -> str:
    """Mean over seeds ± half-width of the interval: "57.1 ± 23.4"; "≥ …" for a bound, "a … b" between bounds."""
    if not cell["n"]:
        return NOTHING
    low, high = cell["mean_low"], cell["mean_high"]
    if math.isfinite(low) and math.isfinite(high) and low != high:
        return f"{_number(low, math.nan, '')} … {_number(high, math.nan, '')}"
    start, end = (cell[name] for name in _ENDS[band])
    half = cell["mean"] - start if math.isfinite(start) else end - cell["mean"]
    sign = "" if low == high else "≥ " if math.isfinite(low) else "≤ "
    text = sign + _number(cell["mean"], half, cell["unit"])
    return f"{text} (1 seed)" if cell["n"] == 1 else f"{text} ± {_number(half, half, cell['unit'])}"


def printed(value: float, unit: str) -> str:
    """A number as the paper prints it: two decimals in percent; "–" where it prints none."""
    if math.isnan(value):
        return NOTHING
    return f"{value:.2f}" if unit == "%" else f"{value:g}"


def _cell(cell: pd.Series, band: Band) -> Cell:
    doubt = f"{_share(int(cell['doubted']), int(cell['n']))}: {cell['doubt']}" if cell.get("doubted", 0) else ""
    return Cell(
        str(cell["column"]),
        printed(cell["printed"], cell["unit"]),
        ours(cell, band),
        str(cell["verdict"]),
        bool(cell["mark"]),
        _behind(cell) | ({FAILS: doubt} if doubt else {}),
        doubt,
    )


def _behind(cell: pd.Series) -> dict[str, str]:
    """Spread, both intervals, copies and samples of one cell, as far as there are any."""
    if not cell["n"]:
        return {}
    unit = cell["unit"]
    found = {"mean": _number(cell["mean"], math.nan, unit)}
    if cell["n"] > 1:
        found["std"] = _number(cell["std"], math.nan, unit)
        for name, ends in zip(BEHIND[2:4], (("t_low", "t_high"), ("pi_low", "pi_high")), strict=True):
            low, high = (cell[end] for end in ends)
            found[name] = f"[{', '.join(_number(end, (high - low) / 2, unit) for end in (low, high))}]"
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
    done = f"{low}" if low == high else f"{low}–{high}"
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
        percents, others = f"{statistics.WIDEST:g} percentage points", "half of the printed number"
        limit = " or ".join(dict.fromkeys(percents if unit == "%" else others for unit in cells["unit"].unique()))
        notes.append(
            "Each cell: paper | ours ± | verdict. Ours is the mean over training seeds, ± the half-width of the 95 % "
            "prediction interval t·s·√(1 + 1/n), which holds a further seed in 95 of 100 cases; the print is one run. "
            "agrees: the interval contains the print; higher, lower: ours is higher, lower; undecided: one seed only, "
            f"or a half-width over {limit}."
        )
    else:
        notes.append("Each cell: mean over training seeds ± half-width of its 95 % t-interval.")
    if not cells["mean_low"].equals(cells["mean_high"]):
        notes.append("≥, ≤ and …: the quantity is known from one side, or from both by different bounds.")
    if cells["mark"].any():
        notes.append(f"{MARK} some of the runs were trained by another version of the code.")
    return [*notes, *(_doubts(cells) if "doubted" in cells else [])]


def _doubts(cells: pd.DataFrame) -> list[str]:
    """A line for each column with accuracies that fail gradient-masking checks, over all its rows."""
    notes = []
    for name, column in cells.groupby("column", sort=False):
        doubted = column[column["doubted"] > 0]
        if len(doubted):
            more = ", and the like" if doubted["doubt"].nunique() > 1 else ""
            share = _share(int(doubted["doubted"].sum()), int(column["n"].sum()))
            notes.append(f"{MASKED} {name}: {FAILS} {share}: {doubted['doubt'].iloc[0]}{more}.")
    return notes

"""From a cell back to its runs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from robode.report import tables
from robode.report.html import without_places
from robode.runs.run import OUTPUTS

if TYPE_CHECKING:
    from robode.papers.spec import Column, Item

_ABOVE = 3  # outputs/reports/<paper>/<item>


def with_places(runs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """runs with the folder relative to outputs/ and a link to the run's page, where it is below and there is one."""
    places = [_place(each, folder.resolve()) if isinstance(each, str) else ("", "") for each in runs["folder"]]
    return runs.assign(folder=[shown for shown, _ in places], link=[link for _, link in places])


def _place(run: str, report: Path) -> tuple[str, str]:
    """A run folder by its place below outputs/ (or below what the report lies in), and the link to its page."""
    where, outputs = Path(run).resolve(), OUTPUTS.resolve()
    for parent in (outputs, *report.parents[:_ABOVE]):
        if where.is_relative_to(parent):
            page = where / "report.html"
            linked = page.is_file() and report.is_relative_to(parent)
            link = Path(os.path.relpath(page, report)).as_posix() if linked else ""
            return where.relative_to(parent).as_posix(), link
    return where.name, ""


def run_lines(item: Item, runs: pd.DataFrame, values: pd.DataFrame) -> list[dict[str, Any]]:
    """Every row's runs with their values, as the page shows them. runs: of `with_places`."""
    of = {(each.row, each.column, each.seed): each for each in values.itertuples()}
    lines = []
    for number, mine in runs.groupby("row", sort=False):
        row = item.rows[int(str(number))]
        seeds = []
        for run in mine.itertuples():
            cells = [_value(of.get((number, column.name, run.seed)), column) for column in item.columns.values()]
            seeds.append({"run": run, "values": cells, "error": without_places(_text(run.error)), **_facts(run)})
        parents = dict.fromkeys(folder.rpartition("/")[0] for folder in mine["folder"] if "/" in folder)
        where = ", ".join(f"{parent}/" for parent in parents)
        lines.append({"number": number, "name": row.name, "words": " ".join(row.words), "where": where, "seeds": seeds})
    return lines


def _facts(run: Any) -> dict[str, str]:
    facts = {name: tables.bound(float(getattr(run, name))) for name in ("flow_ode", "flow_discrete") if run.params > 0}
    seconds = float("nan") if run.train_seconds is None else float(run.train_seconds)
    return facts | {"seconds": f"{seconds:.0f} s" if math.isfinite(seconds) else "–"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _value(value: Any, column: Column) -> str:
    if value is None:
        return "–"
    if column.unit_of([value.unit]) == "%":
        return f"{100 * value.value:.2f}"
    ends = [x for x in (value.low, value.high) if math.isfinite(x)]
    return " … ".join(f"{x:.4g}" for x in ends) if len(set(ends)) == 2 else f"{value.value:.4g}"

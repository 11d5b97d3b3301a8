"""A table or figure of a paper beside what was reproduced: one page, and the same table as text and data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from robode.files import write_whole
from robode.report import cells as words
from robode.report import tables, tables_text
from robode.report.cells_figure import paper_and_ours
from robode.report.compare import VERDICTS, compare, tally
from robode.report.html import picture, without_places, write_html
from robode.report.paired import SIGNIFICANT, outcomes, paired
from robode.report.run_lines import run_lines, with_places
from robode.report.runs_page import runs_report
from robode.report.style import save, write_text
from robode.tasks.measure import Measure, measure_named

if TYPE_CHECKING:
    from robode.papers.collect import Collected
    from robode.papers.spec import Column, Item

SYMBOLS = {"agrees": "✓", "higher": "▲", "lower": "▼", "undecided": "?", "not run": "○", "": ""}
_TEXTS = ("size", "variant", "about_variant", "label", "command")


def write_report(folder: Path | str, item: Item, collected: Collected, context: Mapping[str, Any]) -> Path:
    """Write the page report.html, table.md, .csv and .tex, rows.csv, numbers.csv, runs.csv, paired.csv and figures/.

    context, all optional: size, variant, about_variant and label (what a reader must know before comparing), command,
    commit, versions (name → version), figures ((stem, Figure or path of a PNG, title, caption) each), configs
    (row → YAML), settings (key → its value in each row), warnings; paired: the lines of an earlier paired.csv, where
    the runs are not here any more. No file that is written names a folder outside outputs/.

    Returns:
        The page.

    Raises:
        BadInput: runs of one row have different configurations, or the same seed.
        JobFailed: the disk refuses.
    """
    folder = Path(folder)
    cells = words.with_doubts(compare(item, collected), collected.values)
    table = words.build_table(item, cells, collected.runs, str(context.get("label") or ""))
    warnings = [str(line) for line in context.get("warnings") or ()]
    tests = paired(item, collected, warnings) or list(context.get("paired") or ())
    runs = with_places(collected.runs, folder)
    frames = {"rows": collected.rows, "numbers": collected.numbers, "runs": runs.drop(columns="link")}
    if tests:
        frames["paired"] = pd.DataFrame(tests)
    shown = {
        "files": _write_tables(folder, table, cells, frames),
        "pairs": _pairs(outcomes(tests), list(item.columns)),
        "figures": _figures(folder / "figures", cells, context.get("figures") or ()),
        "runs": run_lines(item, runs, collected.values),
        "certificates": _certificates(collected.runs),
        "warnings": [without_places(line) for line in warnings],
    }
    return write_html(
        folder / "report.html", "paper_page.html.j2", **_about_table(item, table, cells), **shown, **_as_given(context)
    )


def _about_table(item: Item, table: words.Table, cells: pd.DataFrame) -> dict[str, Any]:
    """The table on the page, and what explains it."""
    return {
        "item": item,
        "table": table,
        "behind": words.BEHIND,
        "bar": _bar(cells),
        "symbols": SYMBOLS,
        "columns": {name: _about(column) for name, column in item.columns.items()},
        "significant": SIGNIFICANT,
    }


def write_runs_report(folder: Path | str, run_folders: Iterable[Path | str], context: Mapping[str, Any]) -> Path:
    """The same for any runs, without a print: one row per configuration, mean ± half-width of the 95 % t-interval.

    Raises:
        BadInput: a folder without the configuration of a run, or runs that saw different files of one data set.
        JobFailed: the disk refuses, or a file of a run is damaged.
    """
    item, collected, found = runs_report(run_folders)
    return write_report(folder, item, collected, {**context, **found})


def _write_tables(
    folder: Path, table: words.Table, cells: pd.DataFrame, frames: Mapping[str, pd.DataFrame]
) -> list[str]:
    """The table and what it was made of; the names of the files."""
    texts = {
        "table.md": tables_text.markdown(table),
        "table.csv": tables_text.csv(cells),
        "table.tex": tables_text.latex(table),
        **{f"{name}.csv": _plain(frame).to_csv(index=False, lineterminator="\n") for name, frame in frames.items()},
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return list(texts)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts without absolute paths."""
    texts = [name for name in frame.columns if frame[name].dtype == object or str(frame[name].dtype) == "str"]
    cleaned = {name: frame[name].map(lambda x: without_places(x) if isinstance(x, str) else x) for name in texts}
    return frame.assign(**cleaned)


def _bar(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """How many of the printed numbers got which verdict; nothing where none is printed."""
    found = tally(cells)
    total = sum(found.values())
    return [
        {"verdict": name, "text": words.count(name, found[name]), "share": f"{100 * found[name] / total:.2f}"}
        for name in VERDICTS
        if total and found[name]
    ]


def _about(column: Column) -> str:
    """What a column measures: "test split, gaussian 0.05, protocol sound"."""
    if column.quantity:
        return f"{column.quantity}{f' ({column.kind})' if column.kind else ''}, from numbers.csv"
    level = "" if column.severity is None else f" {column.severity:g}"
    parts = [f"{column.split} split", f"{column.perturbation or 'any perturbation'}{level}".replace("_", " ")]
    return ", ".join([*parts, *([f"protocol {column.protocol}"] if column.protocol else [])])


def _certificates(runs: pd.DataFrame) -> list[dict[str, str]]:
    """The bounds of each row, smallest and largest over seeds; empty where nobody has one."""
    lines = []
    for _, mine in runs.groupby("row", sort=False):
        known = mine.dropna(subset=["flow_ode", "flow_discrete"], how="all")
        line = {"name": f"{mine['group'].iloc[0]} {mine['label'].iloc[0]}".strip()}
        for name in ("flow_ode", "flow_discrete"):
            bounds = known[name].astype(float)
            line[name] = _span([tables.bound(value) for value in (bounds.min(), bounds.max())]) if len(known) else "–"
            line[f"{name}_verdict"] = tables.verdict(bounds.max()) if len(known) else ""
        lines.append(line)
    certified = ("flow_ode", "flow_discrete")
    return lines if any(line[name] not in ("–", "none") for line in lines for name in certified) else []


def _span(ends: list[str]) -> str:
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} – {ends[1]}"


def _pairs(found: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """The outcomes as a table: a line per pair, a cell per column."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in found:
        line = lines.setdefault((each["a"], each["b"]), {**each, "cells": {}})
        better = max(("a_better", "b_better"), key=lambda name: each[name])
        line["cells"][each["column"]] = {
            "difference": _difference(each["difference"], measure_named(each["task"])),
            "winner": each["label_a" if better == "a_better" else "label_b"] if each[better] else "",
            "seeds": f"{each[better]} of {each['seeds']}",
            "disagree": bool(each["a_better"] and each["b_better"]),
            "p": "<\u00a00.0001" if each["p"] < 1e-4 else f"≤\u00a0{each['p']:.2g}",
        }
    shown = [name for name in columns if any(name in line["cells"] for line in lines.values())]
    return {"columns": shown, "lines": list(lines.values())}


def _difference(value: float, measure: Measure) -> str:
    """ "+1.3" percentage points, or a difference of other scores in three digits."""
    return (f"{100 * value:+.1f}" if measure.shares else f"{value:+.3g}").replace("-", "−")


def _figures(folder: Path, cells: pd.DataFrame, given: Iterable[tuple[str, Any, str, str]]) -> list[dict[str, str]]:
    """Save every figure (PNG and PDF; a PNG given as a file is copied) for the page; a missing PNG is left out."""
    overview = paper_and_ours(cells)
    own = [("paper_and_ours", overview, "Paper and ours", "Every cell of the table that has a printed number.")]
    found = []
    for stem, figure, title, caption in [*(own if overview else []), *given]:
        if isinstance(figure, Figure):
            path = save(figure, folder, stem)[0]
        elif not Path(figure).is_file():  # a report that is made again where not all of it was kept
            continue
        else:
            path = folder / f"{stem}.png"
            content = Path(figure).read_bytes()
            write_whole(path, lambda temporary, content=content: temporary.write_bytes(content))  # type: ignore[misc]
        found.append(picture(path, title, caption))
    return found


def _as_given(context: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of the context as it is, but for absolute paths."""
    made_by = {"commit": context.get("commit"), **(context.get("versions") or {})}
    return {
        "context": {key: without_places(str(context.get(key) or "")) for key in _TEXTS},
        "settings": context.get("settings") or {},
        "configs": {str(name): without_places(text) for name, text in (context.get("configs") or {}).items()},
        "environment": {str(name): without_places(str(value)) for name, value in made_by.items() if value},
    }

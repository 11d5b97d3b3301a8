"""A table or figure of a paper beside what was reproduced: one page, and the same table as text and data."""

from __future__ import annotations

import itertools
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.files import make_folder, write_bytes, write_text
from robode.report import cells as words
from robode.report import style, tables
from robode.report.layout import Animation, Column, Layout, Picture, Plain, TableRow
from robode.report.paired import SIGNIFICANT, outcomes, paired
from robode.report.runs_page import runs_report
from robode.report.style import BLUE, VERMILLION, inert, picture, save, save_animation, without_places, write_html
from robode.report.values import VALIDATION, Collected, lines_of, longest_word, names_of
from robode.runs.run import OUTPUTS

SIDE_BY_SIDE = 3  # panels
LEGEND = {1: 1, 2: 2, 3: 4}  # panels side by side -> labels that fit side by side below them
SIDE = 8  # columns of a table on a page 1200 pixels wide
_TEXTS = ("size", "variant", "about_variant", "label", "command")
_ABOVE = 3  # outputs/reports/<paper>/<item>


class Report(NamedTuple):
    """One that was written: its page, and the table for the terminal."""

    page: Path
    table: words.Table


def write_report(folder: Path | str, layout: Layout, collected: Collected, context: Plain) -> Report:
    """Write the page report.html, table.md, .csv and .tex, rows.csv, numbers.csv, runs.csv, paired.csv and figures/.

    context, all optional: size, variant, about_variant and label (what a reader must know before comparing), command,
    commit, versions (name → version), figures (Pictures), configs (row → YAML), settings (key → its value in each row),
    warnings; paired: the lines of an earlier paired.csv, where the runs are not here any more. No file that is written
    names a folder outside outputs/.

    Raises:
        BadInput: runs of one row have different configurations, or the same seed.
        JobFailed: the disk refuses.
    """
    folder = Path(folder)
    make_folder(folder)
    cells = words.compare(layout, collected)
    about = _said(context, cells)
    table = words.build_table(layout, cells, collected.runs, about["label"])
    warnings = [str(line) for line in context.get("warnings") or ()]
    tests = paired(layout, collected, warnings) or list(context.get("paired") or ())
    runs = _with_places(collected.runs, folder)
    frames = {"rows": collected.rows, "numbers": collected.numbers, "runs": runs.drop(columns="link")}
    if tests:
        frames["paired"] = pd.DataFrame(tests)
    page = write_html(
        folder / "report.html",
        "paper_page.html.j2",
        item=layout,
        table=table,
        behind=words.BEHIND,
        blocks=_blocks(len(table.columns)),
        longest=longest_word(row.label for row in layout.rows),
        bar=_bar(cells),
        symbols=words.SYMBOLS,
        columns={name: _about(column) for name, column in layout.columns.items()},
        significant=SIGNIFICANT,
        files=_write_tables(folder, table, cells, frames),
        pairs=outcomes(tests),
        figures=_figures(folder / "figures", cells, context.get("figures") or ()),
        runs=_runs(layout, runs, collected.values),
        certificates=_certificates(collected.runs),
        warnings=warnings,
        context=about,
        **_made_by(context),
    )
    return Report(page, table)


def _made_by(context: Plain) -> Plain:
    """Of a context, what repeats the work: settings, configs, and environment (commit and versions)."""
    environment = {"commit": context.get("commit"), **(context.get("versions") or {})}
    return {
        "settings": context.get("settings") or {},
        "configs": context.get("configs") or {},
        "environment": {str(name): str(value) for name, value in environment.items() if value},
    }


def _said(context: Plain, cells: pd.DataFrame) -> dict[str, str]:
    """The texts of a context. A full table of which every cell has one seed is not called so."""
    texts = {key: without_places(str(context.get(key) or "")) for key in _TEXTS}
    if texts["size"] == "full" and cells["n"].max() == 1:
        texts["size"] = ""
        texts["label"] = "; ".join(text for text in ("one seed in every cell", texts["label"]) if text)
    return texts


def write_runs_report(folder: Path | str, run_folders: Iterable[Path | str], context: Plain, sort: str = "") -> Report:
    """The same for any runs, without published values: one row per configuration, the best first in the column `sort`.

    Raises:
        BadInput: a folder without the configuration of a run, runs that saw different files of one data set, or no such
            column.
        JobFailed: the disk refuses, or a file of a run is damaged.
    """
    layout, collected, found = runs_report(run_folders, sort)
    return write_report(folder, layout, collected, {**context, **found})


def _write_tables(
    folder: Path, table: words.Table, cells: pd.DataFrame, frames: Mapping[str, pd.DataFrame]
) -> list[str]:
    """The table and what it was made of; the names of the files."""
    texts = {"table.md": tables.markdown(table), "table.csv": tables.csv(cells), "table.tex": tables.latex(table)}
    for name, frame in frames.items():
        plain = frame.map(lambda value: inert(without_places(value)) if isinstance(value, str) else value)
        texts[f"{name}.csv"] = plain.to_csv(index=False, lineterminator="\n")
    make_folder(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    return list(texts)


def _blocks(count: int) -> list[tuple[int, int]]:
    """Where the blocks begin and end in which a table's columns stand, as equal in width as they can be."""
    blocks = max(1, math.ceil(count / SIDE))
    edges = [round(count * i / blocks) for i in range(blocks + 1)]
    return list(itertools.pairwise(edges))


def _bar(cells: pd.DataFrame) -> list[dict[str, str]]:
    """How many of the published numbers got which verdict; nothing where none is published."""
    found = words.tally(cells)
    total = sum(found.values())
    return [
        {"verdict": name, "text": words.count(name, n), "share": f"{100 * n / total:.2f}"}
        for name, n in found.items()
        if n
    ]


def _about(column: Column) -> str:
    """What a column measures: "test split, gaussian 0.05, protocol data_space"."""
    if (column.quantity or "").startswith(VALIDATION):
        return "validation split, the best epoch's, whose weights were measured: choose by this"
    if column.quantity:
        return f"{column.quantity}{f' ({column.kind})' if column.kind else ''}, from numbers.csv"
    level = "" if column.severity is None else f" {column.severity:g}"
    parts = [f"{column.split} split", f"{column.perturbation or 'any perturbation'}{level}".replace("_", " ")]
    parts += [f"protocol {column.protocol}"] if column.protocol else []
    return ", ".join([*parts, *(["answered with the reference solver"] if column.reference else [])])


def _certificates(runs: pd.DataFrame) -> list[dict[str, str]]:
    """The bounds of each row, smallest and largest over seeds; empty where nobody has one."""
    certified = ("flow_ode", "flow_discrete")
    lines = []
    for _, mine in runs.groupby("row", sort=False):
        known = mine.dropna(subset=list(certified), how="all")
        line = {"name": names_of(mine).iloc[0]}
        for name in certified:
            bounds = known[name].astype(float)
            ends = dict.fromkeys(tables.bound(value) for value in (bounds.min(), bounds.max())) if len(known) else "–"
            line[name] = " – ".join(ends)
            line[f"{name}_verdict"] = tables.verdict(bounds.max()) if len(known) else ""
        lines.append(line)
    return lines if any(line[name] not in ("–", "none") for line in lines for name in certified) else []


def _figures(folder: Path, cells: pd.DataFrame, given: Iterable[Picture]) -> list[dict[str, str]]:
    """Save every figure (PNG and PDF), every animation (GIF) and every file that was made of one for the page; one that
    is missing is left out."""
    overview = paper_and_ours(cells)
    about = "Every cell of the table that has a published number."
    own = [Picture("paper_and_ours", overview, "Paper and ours", about)] if overview else []
    found = []
    for stem, figure, title, caption in [*own, *given]:
        if isinstance(figure, Figure):
            path = save(figure, folder, stem)[0]
        elif isinstance(figure, Animation):
            path = save_animation(figure, folder, stem)
        elif figure.is_file():
            path = folder / f"{stem}{figure.suffix}"
            make_folder(folder)
            write_bytes(path, figure.read_bytes())
        else:  # a report that is made again where not all of it was kept
            continue
        found.append(picture(path, title, caption))
    return found


def paper_and_ours(cells: pd.DataFrame) -> Figure | None:
    """Ours beside the published numbers, a panel per column and a line per row: prediction intervals, or all of few
    seeds (thin), t-intervals (thick) and means.

    cells: of `compare`. None if no cell has both a published number and one of ours.
    """
    both = cells[cells["published"].notna() & (cells["n"] > 0)]
    if both.empty:
        return None
    columns = list(dict.fromkeys(both["column"]))
    shown = cells[cells["column"].isin(columns)]
    rows = shown[["row", "label", "group"]].drop_duplicates("row")
    names = [f"{group}  {label}".strip() for group, label in zip(rows["group"], rows["label"], strict=True)]
    place = {number: -index for index, number in enumerate(rows["row"])}
    with style.styled():
        figure, axes = style.panels(len(columns), columns=SIDE_BY_SIDE, width=3.3, height=0.75 + 0.26 * len(rows))
        for index, (ax, column) in enumerate(zip(axes, columns, strict=True)):
            here = shown[shown["column"] == column]
            _panel(ax, here, np.array([place[row] for row in here["row"]]))
            ax.set(title=unicodedata.normalize("NFKC", column), xlabel=here["unit"].iloc[0])
            style.line_a_row(ax, names if index % SIDE_BY_SIDE == 0 else [""] * len(rows))
        handles, labels = axes[0].get_legend_handles_labels()
        beside = LEGEND[min(len(columns), SIDE_BY_SIDE)]
        figure.legend(handles, labels, loc="outside lower center", ncols=beside)
        # inches of its own: taken from panels of few rows, it would leave them none
        figure.set_figheight(figure.get_figheight() + 0.15 + 0.18 * math.ceil(len(handles) / beside))
    return figure


def _panel(ax: Axes, here: pd.DataFrame, y: np.ndarray) -> None:
    """Accuracies stay inside [0, 100] even where an interval does not."""
    percent = here["unit"].iloc[0] == "%"
    few = (here["n"] < words.FEW).to_numpy()
    for low, high, width, label in (
        ("pi_low", "pi_high", 1.2, f"ours: 95 % prediction interval, or all of < {words.FEW} seeds"),
        ("t_low", "t_high", 4.0, "ours: 95 % interval of the mean"),
    ):
        left, right = (np.where(few, here[own], here[name]) for own, name in (("min", low), ("max", high)))
        known = np.isfinite(left) & np.isfinite(right) & ((width < 2) | ~few)
        left, right = (np.clip(each, 0, 100) if percent else each for each in (left, right))
        alpha = 0.45 if width > 2 else 1.0
        ax.hlines(y[known], left[known], right[known], color=BLUE, linewidth=width, alpha=alpha, label=label)
    ax.plot(here["mean"], y, "o", color=BLUE, label="ours: mean over seeds", linestyle="none")
    ax.plot(here["published"], y, "D", color=VERMILLION, mfc="white", label="paper", linestyle="none", zorder=3)
    if percent:
        start, end = ax.get_xlim()
        ax.set_xlim(max(start, -3), min(end, 103))


def _with_places(runs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """runs with the folder relative to outputs/ and a link to the run's page, where it is below and there is one."""
    places = [place_of(each, folder.resolve()) if isinstance(each, str) else ("", "") for each in runs["folder"]]
    return runs.assign(folder=[shown for shown, _ in places], link=[link for _, link in places])


def place_of(run: Path | str, report: Path) -> tuple[str, str]:
    """A run folder by its place below outputs/ (or below what the report lies in), and the link to its page."""
    where, outputs = Path(run).resolve(), OUTPUTS.resolve()
    for parent in (outputs, *report.parents[:_ABOVE]):
        if where.is_relative_to(parent):
            page = where / "report.html"
            linked = page.is_file() and report.is_relative_to(parent)
            link = Path(os.path.relpath(page, report)).as_posix() if linked else ""
            return where.relative_to(parent).as_posix(), link
    return where.name, ""


class _Run(NamedTuple):
    """One seed of a row on the page: a line of `Collected.runs` as it is, and what is shown of it."""

    line: Plain
    values: dict[str, str]
    bounds: dict[str, str]
    seconds: str
    error: str


class _Runs(NamedTuple):
    """The runs of one row."""

    number: int
    row: TableRow
    where: str
    seeds: list[_Run]


def _runs(layout: Layout, runs: pd.DataFrame, values: pd.DataFrame) -> list[_Runs]:
    """Every row's runs with their values: from a cell back to what it was made of. runs: of `_with_places`."""
    of = {(line["row"], line["column"], line["seed"]): line for line in lines_of(values)}
    lines = []
    for key, mine in runs.groupby("row", sort=False):
        number = int(str(key))
        parents = dict.fromkeys(folder.rpartition("/")[0] for folder in mine["folder"] if "/" in folder)
        seeds = [
            _run(
                run, {name: _value(of.get((number, name, run["seed"])), each) for name, each in layout.columns.items()}
            )
            for run in lines_of(mine)
        ]
        lines.append(_Runs(number, layout.rows[number], ", ".join(f"{parent}/" for parent in parents), seeds))
    return lines


def _run(line: Plain, values: dict[str, str]) -> _Run:
    known = {name: line[name] for name in ("flow_ode", "flow_discrete")}
    bounds = {name: tables.bound(float(each)) if line["params"] > 0 else "–" for name, each in known.items()}
    seconds = math.nan if line["train_seconds"] is None else float(line["train_seconds"])
    error = line["error"] if isinstance(line["error"], str) else ""
    shown = f"{seconds:.0f} s" if math.isfinite(seconds) else "–"
    return _Run(line, values, bounds, shown, error)


def _value(value: Plain | None, column: Column) -> str:
    if value is None:
        return "–"
    if column.unit_of([value["unit"]]) == "%":
        return f"{100 * value['value']:.2f}"
    ends = [x for x in (value["low"], value["high"]) if math.isfinite(x)]
    return " … ".join(f"{x:.4g}" for x in ends) if len(set(ends)) == 2 else f"{value['value']:.4g}"

"""What the files of runs have for the cells of a table. Reads files only: no data, no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from robode.errors import BadInput, JobFailed
from robode.masking.file import failures, key_of
from robode.report.layout import Column, Plain, TableRow
from robode.runs import results
from robode.runs.code import Today
from robode.runs.identity import training_config
from robode.runs.origin import data_of, recorded_of
from robode.runs.run import Run, read_plain
from robode.runs.table import METRICS
from robode.tasks.measure import Measure, measure_named

CELL = ("row", "label", "group", "column", "seed")
DOUBT = "doubt"  # why a robust accuracy fails gradient-masking checks, "" where it passes
OTHER = "other_code"  # whether other code than that of the report measured it
LATER = ("code", OTHER, DOUBT)  # columns of rows that tables of earlier versions lack
VALUES = (*CELL, "value", "low", "high", "n", "repeats", "spread", "run", "folder", "mark", "kind", "unit", DOUBT)
RUNS = (
    "row", "label", "group", "seed", "run", "folder", "status", "validation", "params", "train_seconds", "flow_ode",
    "flow_discrete", "error", "mark",
)  # fmt: skip
ROWS = (
    *CELL, "checkpoint", "weights", "split", "protocol", "noise_seed", "evaluation", "suite", "perturbation", "norm",
    "severity", "repeat", "n", "task", "score",
)  # fmt: skip
NUMBERS = (*CELL, "checkpoint", "weights", "quantity", "kind", "value", "low", "high")
NOT_STARTED, DAMAGED = "not started", "damaged"
VALIDATION = "validation/"  # quantities of this beginning are scores of best.ckpt, from metrics.csv
Line = dict[str, str | float | None]  # of a table, by the names of its columns


class RunFolder(NamedTuple):
    """A run of a table. row: its number; name: of the row, group and label."""

    row: int
    name: str
    label: str
    seed: int
    status: str
    folder: Path


@dataclass(frozen=True)
class Collected:
    """What the runs of a table have found so far.

    values: one line per (row, column, seed) that was measured: value (the mean score, for accuracies a fraction, over
    `repeats` noisy copies, with standard deviation `spread`), low and high (numbers that are known from two sides),
    n samples, and why it fails gradient-masking checks (DOUBT). runs: one line per (row, seed), also where nothing was
    done yet, with the score on validation data. rows, numbers: the lines of results.csv and numbers.csv (and of what
    was validated) that the values are made of.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    rows: pd.DataFrame
    numbers: pd.DataFrame

    def folders(self) -> list[RunFolder]:
        """The runs that have a folder, by row and seed."""
        runs = self.runs[self.runs["folder"].notna()].sort_values(["row", "seed"], kind="stable")
        columns = (runs["row"], names_of(runs), runs["label"], runs["seed"], runs["status"], map(Path, runs["folder"]))
        return [RunFolder(*line) for line in zip(*columns, strict=True)]

    def reordered(self, order: Sequence[int]) -> Collected:
        """With the rows in this order: what was row order[0] is row 0."""
        place = {number: index for index, number in enumerate(order)}
        frames = (self.values, self.runs, self.rows, self.numbers)
        return Collected(
            *(each.assign(row=each["row"].map(place)).sort_values("row", kind="stable") for each in frames)
        )


def lines_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every line of a table by the names of its columns."""
    return [{str(name): value for name, value in line.items()} for line in frame.to_dict("records")]


def names_of(frame: pd.DataFrame) -> pd.Series:
    """Group and label of each line, for people."""
    return (frame["group"].astype(str) + " " + frame["label"].astype(str)).str.strip()


@dataclass(frozen=True)
class Source:
    """The run of one seed of a row, None if it was not begun. number: of the row; plain: the run's configuration; mark:
    other code trained it; counts: those of its rows or numbers that may be shown."""

    number: int
    row: TableRow
    seed: int
    run: Run | None
    plain: Plain
    mark: bool
    counts: Callable[[pd.DataFrame], pd.DataFrame]


def gather(columns: Mapping[str, Column], sources: Iterable[Source]) -> Collected:
    """What there is of these runs.

    A run with a damaged table has the status `DAMAGED` and no values.

    Raises:
        BadInput: runs that saw different data, or a column that several measurements fit.
        JobFailed: a file cannot be read.
    """
    digests: dict[str, tuple[str, str]] = {}
    runs: list[Line] = []
    rows: list[pd.DataFrame] = []
    numbers: list[pd.DataFrame] = []
    for source in sources:
        run, row = source.run, source.row
        about: Line = {"row": source.number, "label": row.label, "group": row.group, "seed": source.seed}
        if run is None:
            runs.append({**about, "status": NOT_STARTED, "mark": False})
            continue
        today = Today.of(run.folder, source.plain)
        try:
            measured = newest(source.counts(results.read_rows(run.folder / "results.csv")), today=today)
            known = newest(source.counts(results.read_numbers(run.folder / "numbers.csv", today)), measured)
            validation = _validation(run, measured)
        except BadInput as error:  # costs its cells, and no other run's
            runs.append({**about, **_of_run(run, source.mark, pd.DataFrame()), "status": DAMAGED, "error": str(error)})
            continue
        known = pd.concat([known, validation]) if len(known) else validation
        runs.append({**about, **_of_run(run, source.mark, measured), "validation": validation["value"].max()})
        if not run.trained:
            continue
        _check_data(source, run, digests)
        doubts = failures(run.folder)
        for name, found in _scores(columns, measured, source).items():
            reasons = [doubts.get(key_of(copy), "") for copy in lines_of(found)]
            rows.append(found.assign(**about, column=name, **{DOUBT: reasons}))
        quantities = (column for column in columns.values() if column.quantity)
        numbers += [column.of(known).assign(**about, column=column.name) for column in quantities]
    frame = pd.DataFrame(runs, columns=list(RUNS))
    return combine(frame, _joined(rows, (*ROWS, *LATER)), _joined(numbers, (*NUMBERS, OTHER)))


def combine(runs: pd.DataFrame, rows: pd.DataFrame, numbers: pd.DataFrame) -> Collected:
    """The values that rows and numbers add up to; `gather` has the three from runs, a published report from files."""
    about = runs.set_index(["row", "seed"])
    values = []
    for frame, merge in ((rows, _score), (numbers, _number)):
        for _, group in frame.groupby(["row", "column", "seed"], sort=False):
            cell = group.iloc[0]
            run = about.loc[(cell["row"], cell["seed"])]
            mark = bool(run["mark"]) or OTHER in group and bool(group[OTHER].any())
            known = {name: cell[name] for name in CELL} | {"run": run["run"], "folder": run["folder"], "mark": mark}
            values.append({**known, **merge(group)})
    return Collected(pd.DataFrame(values, columns=list(VALUES)), runs, rows, numbers)


def newest(found: pd.DataFrame, measured: pd.DataFrame | None = None, today: Today | None = None) -> pd.DataFrame:
    """Of best.ckpt, or of last.ckpt where there is no best; and of the weights that it holds now.

    measured: the newest rows of results.csv, where `found` are numbers; those about no checkpoint all stay. today: rows
    that its code measured go before others.
    """
    names = found["checkpoint"].unique()
    of_one = found[found["checkpoint"].isin(["best" if "best" in names else "last", ""])]
    if measured is None:
        return results.newest(of_one, today)
    weights = {*measured["weights"], ""} if len(measured) else set(of_one["weights"])
    return of_one[of_one["weights"].isin(weights)]


def _of_run(run: Run, mark: bool, measured: pd.DataFrame) -> Line:
    environment = recorded_of(run.folder)
    line: Line = {
        "run": run.id,
        "folder": run.folder.as_posix(),
        "status": run.state,
        "train_seconds": environment.get("train_seconds") or environment.get("wall_seconds"),
        "error": run.status().get("error") or "",
        "mark": mark,
    }
    if len(measured):
        last = measured.iloc[-1]
        line |= {"params": last["params"], "flow_ode": last["flow_ode"], "flow_discrete": last["flow_discrete"]}
    return line


def _validation(run: Run, measured: pd.DataFrame) -> pd.DataFrame:
    """The score on validation data as a line of numbers.csv; none without such data."""
    measure = measure_named(measured["task"].iloc[-1] if len(measured) else "")
    score = validation_score(run.folder, measure)
    name = VALIDATION + measure.score_name
    line: Line = {"checkpoint": "", "weights": "", "quantity": name, "kind": "measured", OTHER: False}
    line |= dict.fromkeys(("value", "low", "high"), score)
    return pd.DataFrame([line] if math.isfinite(score) else [], columns=list(line))


def _scores(columns: Mapping[str, Column], measured: pd.DataFrame, source: Source) -> dict[str, pd.DataFrame]:
    """The noisy copies of one measurement for every score, by the name of its column.

    Where several fit: rather with the run's own noise, then on as many samples as most columns have (attacks see the
    first thousand, and so must the clean score beside them), then the one with most copies, then the latest.
    """
    fitting = {key: _measurements(each, measured, source.row) for key, each in columns.items() if not each.quantity}
    sizes = Counter(int(copies["n"].iloc[0]) for groups in fitting.values() for copies in groups)
    found = {}
    for name, groups in fitting.items():
        own = [
            (int(copies["noise_seed"].iloc[0]) == source.seed, sizes[int(copies["n"].iloc[0])], len(copies), i)
            for i, copies in enumerate(groups)
        ]
        found[name] = groups[max(own)[-1]] if own else measured.iloc[:0]
        if columns[name].reference:
            found[name] = found[name].assign(score=found[name]["score_reference"]).dropna(subset=["score"])
    return found


def _measurements(column: Column, measured: pd.DataFrame, row: TableRow) -> list[pd.DataFrame]:
    """All that fit a column, each with its noisy copies."""
    found = column.of(measured)
    for name in ("severity", "norm"):
        if found[name].nunique() > 1:
            raise BadInput(
                f"columns.{column.name}: several measurements of {row.name} fit, with {name} "
                f"{', '.join(sorted(map(str, found[name].unique())))}; say which one"
            )
    return [copies for _, copies in found.groupby(["protocol", "evaluation", "noise_seed", "suite"], sort=False)]


def _score(group: pd.DataFrame) -> Line:
    scores, measure = group["score"].astype(float), measure_named(group["task"].iloc[-1])
    return {
        "value": float(scores.mean()),
        "n": int(group["n"].min()),
        "repeats": len(group),
        "spread": float(scores.std()),
        "kind": "score",
        "unit": "%" if measure.shares else measure.unit,
        "doubt": next((text for text in group.get(DOUBT, ()) if isinstance(text, str)), ""),
    }


def _number(group: pd.DataFrame) -> Line:
    """One number, or what is certified and what was attacked as its two ends; the value is the certified end then."""
    of = {line["kind"]: line for line in lines_of(group)}
    known = next((of[kind] for kind in ("exact", "measured") if kind in of), None)
    if known is not None:
        return {name: float(known[name]) for name in ("value", "low", "high")} | {"kind": known["kind"]}
    ends = {kind: float(line["value"]) for kind, line in of.items()}
    low = ends.get("certified_lower", -math.inf)
    high = min(ends.get(kind, math.inf) for kind in ("certified_upper", "attack_upper"))
    return {"value": low if math.isfinite(low) else high, "low": low, "high": high, "kind": "bounds"}


def _check_data(source: Source, run: Run, digests: dict[str, tuple[str, str]]) -> None:
    """Runs of one table with the same keys of the data, but for where its files are, must have seen the same
    samples."""
    digest = data_of(run.folder)
    other, before = digests.setdefault(repr(training_config(source.plain)["data"]), (run.id, digest))
    if before != digest:
        raise BadInput(f"data: runs {other} and {run.id} saw different files; train one of them again")


def _joined(frames: list[pd.DataFrame], columns: Iterable[str]) -> pd.DataFrame:
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True)[list(columns)] if full else pd.DataFrame(columns=list(columns))


def config_of(folder: Path) -> Plain:
    """The plain configuration of a run folder; empty where there is none, or a damaged one."""
    try:
        return read_plain(folder / "config.yaml")
    except BadInput:
        return {}


def validation_score(folder: Path, measure: Measure) -> float:
    """That of best.ckpt: the best of all epochs, by the log of the training; NaN without validation data.

    Raises:
        BadInput, JobFailed: the log is damaged, or cannot be read.
    """
    metrics = METRICS.read(folder / "metrics.csv")
    scores = metrics[metrics["name"] == f"validation/{measure.score_name}"]["value"]
    return float(scores.max() if measure.better == "higher" else scores.min())


def readable_validation(folder: Path, measure: Measure) -> float:
    """`validation_score`; NaN where the log is damaged, which costs no other run its place in a table."""
    with suppress(BadInput, JobFailed):
        return validation_score(folder, measure)
    return math.nan


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What an .npz file of a run holds; empty where there is none."""
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def seeds_said(counts: pd.Series) -> str:
    """ "3 seeds", "1 seed", "2 to 3 seeds": over how many seeds means were taken. counts: of each."""
    fewest, most = int(counts.min()), int(counts.max())
    return f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"


def longest_word(labels: Iterable[str]) -> int:
    """Letters of the longest word: names are never broken, so a column of labels is at least as wide."""
    return max((len(word) for label in labels for word in label.split()), default=0)

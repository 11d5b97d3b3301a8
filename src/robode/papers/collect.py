"""From run folders to the values of a table's cells. Reads files only: no data, no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robode.errors import BadInput
from robode.files import read_json
from robode.masking.file import key_of, suspicions
from robode.papers.plan import Job
from robode.papers.spec import Column, Item
from robode.runs import records
from robode.runs.code import canonical, measuring_codes
from robode.runs.environment import FILE
from robode.runs.identity import config_hash, run_id
from robode.runs.origin import ANY, OTHER_CODE, SAME, data_of
from robode.runs.run import OUTPUTS, Run
from robode.tasks.measure import measure_named

CELL = ("row", "label", "group", "column", "seed")
DOUBT = "doubt"  # why an attacked accuracy is suspicious, "" where it is not
LATER = ("code", DOUBT)  # columns of rows that tables of earlier versions lack
VALUES = (*CELL, "value", "low", "high", "n", "repeats", "spread", "run", "folder", "mark", "kind", "unit", DOUBT)
RUNS = (
    "row", "label", "group", "seed", "run", "folder", "status", "params", "train_seconds", "flow_ode",
    "flow_discrete", "error", "mark",
)  # fmt: skip
ROWS = (
    *CELL, "checkpoint", "weights", "split", "protocol", "noise_seed", "evaluation", "suite", "perturbation", "norm",
    "severity", "repeat", "n", "task", "score",
)  # fmt: skip
NUMBERS = (*CELL, "checkpoint", "weights", "quantity", "kind", "value", "low", "high")
NOT_STARTED = "not started"


@dataclass(frozen=True)
class Collected:
    """What the runs of an item have found so far.

    values: one line per (row, column, seed) that was measured: value (the mean score, for accuracies a fraction, over
    `repeats` noisy copies, with standard deviation `spread`), low and high (numbers that are known from two sides),
    n samples, and why a verdict calls it suspicious (DOUBT). runs: one line per (row, seed), also where nothing was
    done yet. rows, numbers: the lines of results.csv and numbers.csv that the values are made of.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    rows: pd.DataFrame
    numbers: pd.DataFrame


@dataclass
class Shelf:
    """The runs in outputs/<experiment>/ by what they are, and what was read of their configurations.

    code: whether runs that other code trained, and rows that it measured, count (origin.ANY) or not (SAME). asked:
    plain configurations of the evaluations that follow each training; what these do not measure counts under ANY alone.
    """

    outputs: Path = OUTPUTS
    code: str = SAME
    asked: Sequence[Mapping[str, Any]] = ()
    _read: dict[Path, tuple[int, str]] = field(default_factory=dict)

    def find(self, job: Job) -> Run | None:
        """The job's run, if it was begun: rather one of this code, rather a trained one, and rather one with the name
        that it would get."""
        runs = [run for run in self._all(job) if self.code == ANY or not run.of_other_code(job.plain)]
        return max(runs, key=lambda run: _worth(run, job), default=None)

    def left_out(self, job: Job) -> bool:
        """Whether other code has begun a run of the job, and this code none."""
        return self.find(job) is None and bool(self._all(job))

    def counting(self, job: Job, found: pd.DataFrame) -> pd.DataFrame:
        """Those of the rows or numbers of the job's run that this code would measure."""
        if self.code == ANY:
            return found
        codes = {code for each in (job.plain, *self.asked) for code in _codes(job.plain, each).values()}
        return found[found["code"].map(canonical).isin(codes)]

    def _all(self, job: Job) -> list[Run]:
        parent = self.outputs / str(job.plain.get("experiment") or "default")
        return [Run(path.parent) for path in parent.glob("*/config.yaml") if self._hash(path) == job.hash]

    def _hash(self, path: Path) -> str:
        try:
            changed = path.stat().st_mtime_ns
            if self._read.get(path, (0, ""))[0] != changed:
                self._read[path] = (changed, config_hash(Run(path.parent).config().plain()))
        except (BadInput, OSError):  # damaged, or just moved away
            return ""
        return self._read[path][1]


def _worth(run: Run, job: Job) -> tuple[Any, ...]:
    return not run.of_other_code(job.plain), run.trained, run.id == run_id(job.plain, data_of(run.folder)), run.id


def _codes(plain: Mapping[str, Any], measures: Mapping[str, Any]) -> dict[str, str]:
    return measuring_codes(plain, measures["suite"], measures["protocol"])


def left_out(shelf: Shelf, jobs: Iterable[Job]) -> str:
    """One line with † where runs of other code are there and do not count; empty where there are none."""
    count = sum(shelf.left_out(job) for job in jobs)
    return f"{OTHER_CODE} runs of other code that do not count: {count}; code=any uses them, marked" if count else ""


def collect(item: Item, jobs: Iterable[Job], shelf: Shelf | None = None) -> Collected:
    """What is there of these jobs.

    shelf: give the same one again where the same jobs are collected repeatedly.

    Raises:
        BadInput: runs that saw different data, or a column that several measurements fit.
        JobFailed: a file cannot be read.
    """
    shelf = shelf or Shelf()
    digests: dict[str, tuple[str, str]] = {}
    runs: list[dict[str, Any]] = []
    rows: list[pd.DataFrame] = []
    numbers: list[pd.DataFrame] = []
    for job in jobs:
        about: dict[str, Any] = {"row": job.number, "label": job.row.label, "group": job.row.group, "seed": job.seed}
        run = shelf.find(job)
        measured = newest(_rows(shelf, job, run)) if run else pd.DataFrame()
        runs.append(about | (_facts(run, job, measured) if run else {"status": NOT_STARTED, "mark": False}))
        if run is None or not run.trained:
            continue
        _check_data(job, run, digests)
        known = newest(shelf.counting(job, records.read_numbers(run.folder / "numbers.csv")), measured)
        doubts = suspicions(run.folder)
        for name, found in _scores(item, measured, job).items():
            copies: Any = found.to_dict("records")
            reasons = [doubts.get(key_of(row), "") for row in copies]
            rows.append(found.assign(**about, column=name, **{DOUBT: reasons}))
        for column in (column for column in item.columns.values() if column.quantity):
            numbers.append(known[_fits(known, column, ("quantity", "kind"))].assign(**about, column=column.name))
    return combine(_frame(runs, RUNS), _joined(rows, (*ROWS, *LATER)), _joined(numbers, NUMBERS))


def combine(runs: pd.DataFrame, rows: pd.DataFrame, numbers: pd.DataFrame) -> Collected:
    """The values that rows and numbers add up to; `collect` has the three from runs, `published.read` from files."""
    about: dict[Any, Any] = {(line.row, line.seed): line for line in runs.itertuples()}
    values = []
    for frame, merge in ((rows, _score), (numbers, _number)):
        for key, group in frame.groupby(["row", "column", "seed"], sort=False):
            number, _, seed = key
            run = about[number, seed]
            cell = {name: group[name].iloc[0] for name in CELL}
            values.append(cell | {"run": run.run, "folder": run.folder, "mark": run.mark} | merge(group))
    return Collected(_frame(values, VALUES), runs, rows, numbers)


def _rows(shelf: Shelf, job: Job, run: Run) -> pd.DataFrame:
    return shelf.counting(job, records.read_rows(run.folder / "results.csv"))


def _facts(run: Run, job: Job, measured: pd.DataFrame) -> dict[str, Any]:
    """What is said of a run in one line."""
    environment, status = read_json(run.folder / FILE), run.status()
    facts = {name: measured[name].iloc[-1] for name in ("params", "flow_ode", "flow_discrete") if len(measured)}
    return facts | {
        "run": run.id,
        "folder": run.folder.as_posix(),
        "status": run.state,
        "train_seconds": environment.get("train_seconds") or environment.get("wall_seconds"),
        "error": status.get("error") or "",
        "mark": run.trained and run.of_other_code(job.plain),
    }


def newest(found: pd.DataFrame, measured: pd.DataFrame | None = None) -> pd.DataFrame:
    """Of best.ckpt, or of last.ckpt where there is no best; and of the weights that it holds now.

    measured: the newest rows of results.csv, where `found` are numbers; those about no checkpoint all stay.
    """
    names = set(found["checkpoint"])
    of_one = found[found["checkpoint"].isin(["best" if "best" in names else "last", ""])]
    if measured is None:
        return records.newest(of_one)
    weights = {*measured["weights"], ""} if len(measured) else set(of_one["weights"])
    return of_one[of_one["weights"].isin(weights)]


def _scores(item: Item, measured: pd.DataFrame, job: Job) -> dict[str, pd.DataFrame]:
    """The noisy copies of one measurement for every score of an item, by the name of its column.

    Where several fit: rather with the run's own noise, then the one with most copies, then on as many samples as most
    columns have (attacks see the first thousand, and so must the clean score beside them), then the latest.
    """
    fitting = {each.name: _measurements(each, measured, job) for each in item.columns.values() if not each.quantity}
    sizes = Counter(int(copies["n"].iloc[0]) for groups in fitting.values() for copies in groups)
    found = {}
    for name, groups in fitting.items():
        own = [
            (int(copies["noise_seed"].iloc[0]) == job.seed, len(copies), sizes[int(copies["n"].iloc[0])], i)
            for i, copies in enumerate(groups)
        ]
        found[name] = groups[max(own)[-1]] if own else measured.iloc[:0]
    return found


def _measurements(column: Column, measured: pd.DataFrame, job: Job) -> list[pd.DataFrame]:
    """All that fit a column, each with its noisy copies."""
    found = measured[_fits(measured, column, ("split", "perturbation", "protocol", "severity"))]
    for name in ("severity", "norm"):
        if found[name].nunique() > 1:
            raise BadInput(
                f"columns.{column.name}: several measurements of {job.row.name} fit, with {name} "
                f"{', '.join(sorted(map(str, found[name].unique())))}; say which one"
            )
    return [copies for _, copies in found.groupby(["protocol", "evaluation", "noise_seed", "suite"], sort=False)]


def _fits(frame: pd.DataFrame, column: Column, names: Iterable[str]) -> pd.Series:
    """Which rows have what the column asks for."""
    fits = pd.Series(True, index=frame.index)
    for name in names:
        wanted = getattr(column, name)
        if wanted is not None:
            fits &= (frame[name] - wanted).abs() < 1e-9 if name == "severity" else frame[name] == wanted
    return fits


def _score(group: pd.DataFrame) -> dict[str, Any]:
    scores, measure = group["score"].astype(float), measure_named(group["task"].iloc[-1])
    return {
        "value": float(scores.mean()),
        "n": int(group["n"].min()),
        "repeats": len(group),
        "spread": float(scores.std()),
        "kind": "score",
        "unit": "%" if measure.shares else measure.unit,
        DOUBT: next((text for text in group.get(DOUBT, ()) if isinstance(text, str)), ""),
    }


def _number(group: pd.DataFrame) -> dict[str, Any]:
    """One number, or what is certified and what was attacked as its two ends; the value is the certified end then."""
    of = {kind: lines.iloc[-1] for kind, lines in group.groupby("kind", sort=False)}
    known = next((of[kind] for kind in ("exact", "measured") if kind in of), None)
    if known is not None:
        return {name: float(known[name]) for name in ("value", "low", "high")} | {"kind": known["kind"]}
    low = float(of["certified_lower"]["value"]) if "certified_lower" in of else -math.inf
    high = min([float(of[kind]["value"]) for kind in ("certified_upper", "attack_upper") if kind in of] or [math.inf])
    return {"value": low if math.isfinite(low) else high, "low": low, "high": high, "kind": "bounds"}


def _check_data(job: Job, run: Run, digests: dict[str, tuple[str, str]]) -> None:
    """Runs of one item on one data set must have seen the same samples."""
    data = {key: value for key, value in job.plain["data"].items() if key not in ("root", "source")}
    digest = data_of(run.folder)
    other, before = digests.setdefault(repr(data), (run.id, digest))
    if before != digest:
        raise BadInput(f"data: runs {other} and {run.id} saw different files; train one of them again")


def _frame(lines: list[Mapping[str, Any]] | list[dict[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=list(columns))


def _joined(frames: list[pd.DataFrame], columns: Iterable[str]) -> pd.DataFrame:
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True)[list(columns)] if full else pd.DataFrame(columns=list(columns))

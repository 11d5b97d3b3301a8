"""The list of runs: which are listed, in what order, and what a line says of each."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from robode.config.config import TrainConfig, Value
from robode.config.explain import nearest
from robode.errors import BadInput
from robode.runs.code import network_code, network_of, same, training_code
from robode.runs.origin import OTHER_CODE
from robode.runs.overrides import classes, differing, keys, value_at
from robode.runs.summary import Clean, Summary
from robode.runs.where import Cell, Condition
from robode.tasks.measure import CLASSIFICATION, Measure, measure_named

COLUMNS = ("run", "experiment", "state", "epoch", "validation", "test", "lipschitz", "certified", "age", "size")
"""What a run may be sorted by and asked for, beside the keys of its configuration."""
SCORES = ("validation", "test", "certified")  # of which the best goes first
NETWORK = ("model", "integrator", "encoder", "head", "data")  # groups whose classes run when a network is measured
RADIUS = re.compile(r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
EVERY = tuple(each.name for each in fields(TrainConfig))  # keys of the top level, which every run has
EITHER = "settings are chosen by validation scores, never by test scores"


@dataclass(frozen=True)
class Line:
    """A run of the list. measure: how its scores read; validation: of best.ckpt; test: of the same, clean (NaN where
    there is none); other_code: whether other code than today's made its weights."""

    run: Summary
    measure: Measure
    validation: float
    test: float
    other_code: bool
    now: float

    def cell(self, key: str) -> Cell:
        """What it has under a column or a dotted key of its configuration; None where it has nothing."""
        name, _, radius = key.partition("@")
        if name == "certified":
            found = self.run.certified
            return found.get(float(radius) if radius else min(found, default=math.nan))
        column = _CELLS.get(key)
        return column(self) if column else value_at(self.run.groups, key)


_CELLS: Mapping[str, Callable[[Line], Cell]] = {
    "run": lambda line: Path(line.run.folder).name,
    "experiment": lambda line: Path(line.run.folder).parent.name,
    "state": lambda line: line.run.state,
    "epoch": lambda line: line.run.epoch,
    "validation": lambda line: line.validation,
    "test": lambda line: line.test,
    "lipschitz": lambda line: line.run.lipschitz,
    "age": lambda line: line.now - line.run.changed,
    "size": lambda line: line.run.size,
}


@dataclass(frozen=True)
class Listing:
    """The runs that are listed. overrides: the keys in which they differ; left_out: how many more there are."""

    lines: Sequence[Line]
    overrides: Sequence[str] = ()
    left_out: int = 0
    warnings: Sequence[str] = field(default_factory=tuple)

    def overrides_of(self, line: Line) -> dict[str, Value]:
        """What the run has of the keys in which the listed runs differ."""
        found = {key: value_at(line.run.groups, key) for key in self.overrides}
        return {key: value for key, value in found.items() if value is not None}


def listing(runs: Sequence[Summary], where: Sequence[Condition] = (), sort: str = "", limit: int = 0) -> Listing:
    """Those of the runs for which every condition holds.

    sort: a column or a key, the smallest first and of scores the best; with - in front the other way round. What has
    nothing there goes last. "": by age, the newest last. limit: only so many of the first, or of the newest; 0 = all.

    Raises:
        BadInput: a key that no run has, or could have where there is none yet.
    """
    key = sort.removeprefix("-") or "age"
    _check_keys(runs, [*(each.key for each in where), key])
    every = _lines(runs)
    lines = [line for line in every if all(each.holds(line.cell(each.key)) for each in where)]
    unmet = () if lines else _unmet(every, where)
    lines = _sorted(lines, key, sort.startswith("-") or not sort)
    shown = lines if not limit else lines[:limit] if sort else lines[-limit:]
    damaged = [(line.run.problem, line.run.folder) for line in shown if line.run.problem]
    warnings = tuple(why if why.startswith(folder) else f"{folder}: {why}" for why, folder in damaged)
    readable = [line.run.groups for line in shown if line.run.groups]
    return Listing(shown, differing(readable), len(lines) - len(shown), (*warnings, *unmet))


def _unmet(lines: Sequence[Line], where: Sequence[Condition]) -> Iterator[str]:
    """A line for each condition that asks for a text which no run has."""
    for each in where:
        if each.sign == "=" and lines and not any(each.holds(line.cell(each.key)) for line in lines):
            near = nearest(each.values[0], sorted({str(cell) for line in lines if (cell := line.cell(each.key))}))
            hint = f"; did you mean '{near}'?" if near else ""
            yield f"no run has {each.key}={','.join(each.values)}{hint}"


def _check_keys(runs: Sequence[Summary], asked: Iterable[str]) -> None:
    asked = list(asked)
    for key in asked:
        name, at, radius = key.partition("@")
        if name == "certified" and at and not RADIUS.fullmatch(radius):
            raise BadInput(f"'{key}': expected a radius behind the @, for example certified@0.5")
    new = [key for key in asked if key not in COLUMNS and not key.startswith("certified@")]
    known = [*COLUMNS, *(keys(run.groups for run in runs) if runs else EVERY)] if new else []
    for key in new:
        # below a group nothing is known without runs: every family has keys of its own
        asked_for = key if runs else key.partition(".")[0]
        if asked_for not in known:
            hint = f"did you mean '{near}'? " if (near := nearest(asked_for, known)) else ""
            raise BadInput(f"'{key}': {hint}expected a key of the runs or one of {', '.join(COLUMNS)}")


def _lines(runs: Sequence[Summary]) -> list[Line]:
    measures = {each.score_name: each for each in map(measure_named, {row.task for run in runs for row in run.clean})}
    measures.setdefault(CLASSIFICATION.score_name, CLASSIFICATION)
    now = time.time()
    return [_line(run, measures, now) for run in runs]


def _line(run: Summary, measures: Mapping[str, Measure], now: float) -> Line:
    if not run.groups:
        return Line(run, CLASSIFICATION, math.nan, math.nan, False, now)
    rows: Sequence[Clean] = run.clean
    if len(rows) > 1:  # as pages and tables have it: rather of today's code, then of more samples, then the last
        ran = _network_code(_classes(run.groups[name] for name in NETWORK if name in run.groups))
        rows = sorted(rows, key=lambda row: (network_of(row.code) == ran, row.n))
    name = next((name for name in run.validation if name in measures), "")
    measure = measure_named(rows[-1].task) if rows else measures.get(name, CLASSIFICATION)
    low, high, _ = run.validation.get(measure.score_name, (math.nan,) * 3)
    other = run.code != "" and not same(run.code, _training_code(_classes(run.groups.values())))
    validation = high if measure.better == "higher" else low
    return Line(run, measure, validation, rows[-1].score if rows else math.nan, other, now)


def _classes(groups: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*map(classes, groups))


@cache
def _training_code(named: frozenset[str]) -> str:
    return training_code({"parts": [{"_target_": name} for name in sorted(named)]})


@cache
def _network_code(named: frozenset[str]) -> str:
    return network_code({"model": {name: {"_target_": name} for name in sorted(named)}})


def _sorted(lines: Sequence[Line], key: str, reverse: bool) -> list[Line]:
    """Numbers before texts before nothing; equal ones stay in the order of their folders."""

    def place(line: Line) -> tuple[int, float, str]:
        cell = line.cell(key)
        if isinstance(cell, int | float) and not math.isnan(cell):
            return 0, -line.measure.gain(cell) if key.partition("@")[0] in SCORES else float(cell), ""
        return (1, 0.0, str(cell)) if isinstance(cell, str) and cell else (2, 0.0, "")

    known = [(place(line), line) for line in lines]
    have = sorted((each for each in known if each[0][0] < 2), key=lambda each: each[0], reverse=reverse)
    return [line for _, line in have] + [line for at, line in known if at[0] == 2]


def table(found: Listing) -> list[list[str]]:
    """The list as text, its head first; a column that no run has anything in is left out."""
    lines = [_texts(line, found) for line in found.lines]
    filled = [name for name in _HEAD if name in ("run", "state") or any(line[name] for line in lines)]
    return [[_HEAD[name] for name in filled], *([line[name] for name in filled] for line in lines)]


_HEAD = {
    "run": "run", "state": "state", "epoch": "epoch", "validation": "validation", "test": "test (not to choose by)",
    "lipschitz": "Lipschitz", "certified": "certified", "age": "age", "size": "size", "overrides": "overrides",
}  # fmt: skip


def _texts(line: Line, found: Listing) -> dict[str, str]:
    run, measure = line.run, line.measure
    radius = min(run.certified, default=0.0)
    planned = value_at(run.groups, "epochs")
    return {
        "run": "/".join(run.folder.split(os.sep)[-2:]),
        "state": run.state + OTHER_CODE * line.other_code,
        "epoch": f"{run.epoch}/{planned}" if isinstance(planned, int) else "",
        "validation": "" if math.isnan(line.validation) else measure.text(line.validation),
        "test": "" if math.isnan(line.test) else measure.text(line.test),
        "lipschitz": ""
        if math.isnan(run.lipschitz)
        else "none"
        if math.isinf(run.lipschitz)
        else f"{run.lipschitz:.3g}",
        "certified": f"{measure.text(run.certified[radius])} at {radius:g}" if run.certified else "",
        "age": age_text(line.now - run.changed),
        "size": size_text(run.size),
        "overrides": " ".join(f"{key}={text(value)}" for key, value in found.overrides_of(line).items()),
    }


def summary_lines(found: Listing) -> list[str]:
    """What is below the list: how many there are of what, the best by validation, and what the marks mean."""
    states = Counter(line.run.state for line in found.lines)
    said = ", ".join(f"{count} {state}" for state, count in states.most_common())
    total = size_text(sum(line.run.size for line in found.lines))
    count = len(found.lines)
    lines = [f"{count} run{'s' * (count != 1)}{': ' * (count > 0)}{said}; {total}"]
    if found.left_out:
        lines[0] += f"; {found.left_out} more are not shown (limit={count})"
    if any(line.other_code for line in found.lines):
        lines.append(f"{OTHER_CODE} trained by other code than this")
    if any(not math.isnan(line.validation) for line in found.lines):
        lines += [*_best(found.lines), EITHER]
    return [*lines, *found.warnings]


def _best(lines: Sequence[Line]) -> list[str]:
    """Of runs of one task on one data set."""
    scored = [line for line in lines if not math.isnan(line.validation)]
    if len({(line.measure, str(value_at(line.run.groups, "data"))) for line in scored}) != 1:
        return []
    first = scored[best([line.validation for line in scored], scored[0].measure)]
    return [f"best by validation: {first.measure.text(first.validation)}, {first.run.folder}"]


def best(scores: Sequence[float], measure: Measure) -> int:
    """Where the best score is, the first of equals; one that is not finite is none."""
    return max(range(len(scores)), key=lambda i: measure.gain(scores[i]) if math.isfinite(scores[i]) else -math.inf)


def as_json(found: Listing) -> list[dict[str, Any]]:
    """The same for programs: scores as they are (of shares between 0 and 1), age and size in seconds and bytes, null
    where there is nothing."""
    return [
        {
            "run": Path(line.run.folder).name,
            "folder": line.run.folder,
            "state": line.run.state,
            "problem": line.run.problem,
            "other_code": line.other_code,
            "epoch": line.run.epoch,
            "epochs": value_at(line.run.groups, "epochs"),
            "task": str(line.measure),
            "validation": _number(line.validation),
            "test": _number(line.test),
            "lipschitz": _number(line.run.lipschitz),
            "certified": {f"{radius:g}": score for radius, score in line.run.certified.items()},
            "age": round(line.now - line.run.changed, 3),
            "size": line.run.size,
            "overrides": found.overrides_of(line),
        }
        for line in found.lines
    ]


def _number(value: float) -> float | str | None:
    return None if math.isnan(value) else str(value) if math.isinf(value) else value


def text(value: Cell) -> str:
    """As an override has it."""
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def age_text(seconds: float) -> str:
    """40 s, 12 min, 5 h, 3 d."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"


def size_text(size: float) -> str:
    """812 B, 1.4 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{int(size)} B"

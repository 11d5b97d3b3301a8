"""What the list of runs says of one of them: read from its small files alone, fast enough for ten thousand."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robode.errors import BadInput, JobFailed
from robode.files import read_json
from robode.runs.code import CODE, RECORD
from robode.runs.lock import state_now
from robode.runs.overrides import Groups, groups_of
from robode.runs.run import OUTPUTS, REPLACED, Run

DAMAGED = "damaged"
MANY = 500  # runs from which on the other cores help
Ends = tuple[float, float, float]  # of a column of a log: smallest, largest, last


@dataclass(frozen=True)
class Clean:
    """A row of results.csv: a network on the clean test set."""

    weights: str
    code: str
    n: int
    task: str
    score: float


@dataclass(frozen=True)
class Summary:
    """One run. folder: below which outputs it was found; state: as `Run.state` has it, or `DAMAGED` with the reason in
    `problem`; changed: when it was last worked on, in seconds since 1970; size: of its files, in bytes; code: the
    digest of the code that made its weights, "" without any; validation: name of a score -> its ends over the epochs;
    clean: rows of best.ckpt as it is; certificate: end_to_end and radius -> certified score, of the same weights.
    """

    folder: str
    state: str
    epoch: int = 0
    changed: float = 0.0
    size: int = 0
    problem: str = ""
    groups: Groups = field(default_factory=dict)
    code: str = ""
    validation: Mapping[str, Ends] = field(default_factory=dict)
    clean: tuple[Clean, ...] = ()
    lipschitz: float = math.nan
    certified: Mapping[float, float] = field(default_factory=dict)


def summaries(outputs: Path = OUTPUTS, known: dict[str, tuple[object, Summary]] | None = None) -> list[Summary]:
    """Every run below a folder, in the order of their folders; links are not followed.

    known: what an earlier call has filled: a run whose files have not changed since is not read again.
    """
    if known is None:
        return list(_read(sorted(folders(outputs))))
    stamps = {folder: _stamp(folder) for folder in sorted(folders(outputs))}
    new = [folder for folder, stamp in stamps.items() if folder not in known or known[folder][0] != stamp]
    for each in _read(new):
        known[each.folder] = (stamps[each.folder] if each.state != "running" else None, each)
    return [known[folder][1] for folder in stamps]


def folders(outputs: Path) -> Iterator[str]:
    """Those with a config.yaml, without what `force=true` has set aside."""
    waiting = [str(outputs)]
    while waiting:
        folder = waiting.pop()
        if os.path.isfile(os.path.join(folder, "config.yaml")):
            yield folder
            continue
        with suppress(OSError), os.scandir(folder) as entries:  # gone meanwhile, or somebody else's
            waiting += [each.path for each in entries if each.name != REPLACED and each.is_dir(follow_symlinks=False)]


def _read(some: Sequence[str]) -> Iterable[Summary]:
    if len(some) < MANY:
        return map(summary, some)
    with ProcessPoolExecutor() as pool:
        return list(pool.map(summary, some, chunksize=100))


def _stamp(folder: str) -> tuple[int, ...]:
    """What changes when something in the folder of a run is written: most files are replaced, tables grow."""
    found = []
    for name in ("", "results.csv", "metrics.csv", "scores", "figures"):
        try:
            about = os.lstat(os.path.join(folder, name))
            found += [about.st_mtime_ns, about.st_size]
        except OSError:
            found += [0, 0]
    return tuple(found)


def summary(folder: str) -> Summary:
    """What the files of a run say. A damaged one costs none of the others its place."""
    run = Run(Path(folder))
    try:
        groups = groups_of(_text(folder, "config.yaml"))
        status = run.status()
        clean = tuple(_clean(folder))
        return Summary(
            folder,
            state_now(run, status),
            status.get("epoch", 0),
            _changed(folder),
            size_of(folder),
            groups=groups,
            code=str(read_json(run.folder / RECORD).get(CODE) or "unknown") if run.begun else "",
            validation=_validation(folder),
            clean=clean,
            **_certificate(folder, {each.weights for each in clean}),
        )
    except (BadInput, JobFailed, OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        reason = error if isinstance(error, BadInput | JobFailed) else f"{type(error).__name__}: {error}"
        return Summary(folder, DAMAGED, 0, _changed(folder), size_of(folder), " ".join(str(reason).split()))


def _changed(folder: str) -> float:
    for name in ("status.json", "config.yaml"):
        with suppress(OSError):
            return os.lstat(os.path.join(folder, name)).st_mtime
    return 0.0


def size_of(folder: str) -> int:
    """Bytes of the files in a folder and below; links count nothing."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def _validation(folder: str) -> dict[str, Ends]:
    """Of each score on validation data, from metrics.csv."""
    found: dict[str, list[float]] = {}
    for row in csv.reader(line for line in _complete(folder, "metrics.csv") if ",validation/" in line):
        _, _, name, value = row
        found.setdefault(name.removeprefix("validation/"), []).append(float(value))
    return {name: (min(values), max(values), values[-1]) for name, values in found.items() if name != "loss"}


def _clean(folder: str) -> Iterator[Clean]:
    """The scores on the clean test set of what the run's checkpoint is now: best.ckpt, or last.ckpt without one."""
    lines = _complete(folder, "results.csv")
    head, *rows = csv.reader(lines) if lines else [[]]
    if head and "score" not in head:
        raise BadInput(f"{os.path.join(folder, 'results.csv')}: of an earlier version; robode evaluate writes it anew")
    at = {name: number for number, name in enumerate(head)}
    code = at.get("code")
    weights = {row[at["checkpoint"]]: row[at["weights"]] for row in rows}
    of = next((weights[name] for name in ("best", "last") if name in weights), "")
    for row in rows:
        if row[at["perturbation"]] == "clean" and row[at["split"]] == "test" and row[at["weights"]] == of:
            by = row[code] if code is not None else ""
            yield Clean(of, by, int(float(row[at["n"]])), row[at["task"]], float(row[at["score"]]))


def _certificate(folder: str, weights: set[str]) -> dict[str, Any]:
    """Of certificate.json, where it is of these weights."""
    found = read_json(Path(folder, "certificate.json"))
    if found.get("weights") not in weights:
        return {}
    radii = {float(each["severity"]): float(each["score"]) for each in found.get("certified", [])}
    constant = found.get("end_to_end")
    return {"lipschitz": float(constant if constant is not None else "nan"), "certified": radii}


def _complete(folder: str, name: str) -> list[str]:
    """The complete lines of a table; none where there is no such file. A kill may have torn the last one."""
    try:
        text = _text(folder, name)
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()


def _text(folder: str, name: str) -> str:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read()

"""What the list of runs says of one of them: read from its small files alone, fast enough for ten thousand."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

from robode.errors import BadInput, JobFailed
from robode.files import read_json, read_text
from robode.runs.code import CODE, RECORD
from robode.runs.lock import state_now
from robode.runs.overrides import Groups, read_groups
from robode.runs.run import OUTPUTS, Run, folders

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
    written, size = _looked(folder)
    changed = written.get("status.json", written.get("config.yaml", 0.0))
    try:
        groups = read_groups(folder)
        status = run.status()
        if not status.get("status") and "status.json" in written and run.damage:
            raise BadInput(run.damage)
        clean = tuple(_clean(folder)) if "results.csv" in written else ()
        return Summary(
            folder,
            state_now(run, status),
            status.get("epoch", 0),
            changed,
            size,
            groups=groups,
            code=_code(folder) if "last.ckpt" in written or run.trained else "",
            validation=_validation(folder) if "metrics.csv" in written else {},
            clean=clean,
            **(_certificate(folder, {each.weights for each in clean}) if "certificate.json" in written else {}),
        )
    except (BadInput, JobFailed, OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        reason = error if isinstance(error, BadInput | JobFailed) else f"{type(error).__name__}: {error}"
        return Summary(folder, DAMAGED, 0, changed, size, " ".join(str(reason).split()))


def _code(folder: str) -> str:
    return str(read_json(os.path.join(folder, RECORD)).get(CODE) or "unknown")


def size_of(folder: str) -> int:
    """Bytes of the files in a folder and below; links count nothing."""
    return _looked(folder)[1]


def _looked(folder: str) -> tuple[dict[str, float], int]:
    """What is in a folder, but for other folders, with the time when it was last written, in seconds since 1970; and
    the bytes of the files in it and below. Each is asked for once."""
    written: dict[str, float] = {}
    total, waiting = 0, [folder]
    while waiting:
        with suppress(OSError), os.scandir(here := waiting.pop()) as entries:  # gone meanwhile, or somebody else's
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                about = entry.stat(follow_symlinks=False)
                if S_ISREG(about.st_mode):
                    total += about.st_size
                if here is folder:
                    written[entry.name] = about.st_mtime
    return written, total


def _validation(folder: str) -> dict[str, Ends]:
    """Of each score on validation data, from metrics.csv."""
    found: dict[str, list[float]] = {}
    for line in _complete(folder, "metrics.csv").split(",validation/")[1:]:
        name, value = line.partition("\n")[0].split(",")
        found.setdefault(name, []).append(float(value))
    return {name: (min(values), max(values), values[-1]) for name, values in found.items() if name != "loss"}


def _clean(folder: str) -> Iterator[Clean]:
    """The scores on the clean test set of what the run's checkpoint is now: best.ckpt, or last.ckpt without one. Of the
    many lines only those that may say it are taken apart."""
    head, *lines = _complete(folder, "results.csv").splitlines() or [""]
    at = _columns(head)
    if head and "score" not in at:
        raise BadInput(f"{os.path.join(folder, 'results.csv')}: of an earlier version; robode evaluate writes it anew")
    code = at.get("code")
    for name in ("best", "last"):
        of_it = csv.reader(line for line in reversed(lines) if f",{name}," in line)
        weights = next((row[at["weights"]] for row in of_it if row[at["checkpoint"]] == name), None)
        if weights is not None:
            break
    for row in csv.reader(line for line in lines if ",clean," in line):
        if row[at["perturbation"]] == "clean" and row[at["split"]] == "test" and row[at["weights"]] == weights:
            by = row[code] if code is not None else ""
            yield Clean(str(weights), by, int(float(row[at["n"]])), row[at["task"]], float(row[at["score"]]))


@cache
def _columns(head: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(head.split(","))}


def _certificate(folder: str, weights: set[str]) -> dict[str, Any]:
    """Of certificate.json, where it is of these weights."""
    found = read_json(os.path.join(folder, "certificate.json"))
    if found.get("weights") not in weights:
        return {}
    radii = {float(each["severity"]): float(each["score"]) for each in found.get("certified", [])}
    constant = found.get("end_to_end")
    return {"lipschitz": float(constant if constant is not None else "nan"), "certified": radii}


def _complete(folder: str, name: str) -> str:
    """The complete lines of a table. A kill may have torn the last one."""
    text = read_text(os.path.join(folder, name))
    return text[: text.rfind("\n") + 1]

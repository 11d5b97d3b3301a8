"""Which runs belong to the jobs of an item, and which of them count. Reads files only: no data, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd

from robode.config.config import EvaluateConfig
from robode.errors import BadInput
from robode.papers.plan import PlannedRun
from robode.papers.selection import Selection
from robode.papers.spec import Item
from robode.report.layout import Plain
from robode.report.values import Collected, Source, gather
from robode.runs.code import canonical, measuring_codes
from robode.runs.identity import config_hash, run_id
from robode.runs.origin import ANY, OTHER_CODE, SAME, data_of
from robode.runs.run import OUTPUTS, Run
from robode.training.start import pinned


@dataclass
class Shelf:
    """The runs in outputs/<experiment>/ by what they are, and what was read of their configurations.

    code: whether runs that other code trained, and rows that it measured, count (origin.ANY) or not (SAME). asked:
    plain configurations of the evaluations that follow each training; what these do not measure counts under ANY alone.
    """

    outputs: Path = OUTPUTS
    code: str = SAME
    asked: Sequence[Plain] = ()
    _read: dict[Path, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, selection: Selection, asked: Iterable[EvaluateConfig]) -> Shelf:
        """The runs that count for a selection. asked: its `plan.evaluations`."""
        return cls(code=selection.code, asked=[each.plain() for each in asked])

    def placed(self, job: PlannedRun) -> PlannedRun:
        """The job as it is; one that waits for the weights of another, with these, as soon as they are there."""
        run = self.find(job.start) if job.start is not None else None
        if run is None or not run.trained:
            return job
        try:
            config = pinned(replace(job.cfg, start=str(run.folder)))
        except BadInput:  # damaged: it waits until that is trained anew
            return job
        return replace(job, cfg=config, overrides=(*job.overrides, f"start={run.folder}"), start=None)

    def find(self, job: PlannedRun) -> Run | None:
        """The job's run, if it was begun: rather one of this code, rather a trained one, and rather one with the name
        that it would get."""
        job = self.placed(job)
        runs = [run for run in self._all(job) if self.code == ANY or not run.of_other_code(job.plain)]
        return max(runs, key=lambda run: _worth(run, job), default=None)

    def left_out(self, job: PlannedRun) -> bool:
        """Whether other code has begun a run of the job, and this code none."""
        return self.find(job) is None and bool(self._all(self.placed(job)))

    def source(self, job: PlannedRun) -> Source:
        """The job's run as a table takes it."""
        job = self.placed(job)
        run = self.find(job)
        mark = run is not None and run.trained and run.of_other_code(job.plain)
        return Source(job.number, job.row, job.seed, run, job.plain, mark, partial(self._counting, job))

    def _counting(self, job: PlannedRun, found: pd.DataFrame) -> pd.DataFrame:
        """Those of the rows or numbers of the job's run that this code would measure."""
        if self.code == ANY:
            return found
        measured = (measuring_codes(job.plain, each["suite"], each["protocol"]) for each in (job.plain, *self.asked))
        return found[found["code"].map(canonical).isin({code for codes in measured for code in codes.values()})]

    def _all(self, job: PlannedRun) -> list[Run]:
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


def _worth(run: Run, job: PlannedRun) -> tuple[bool, bool, bool, str]:
    return not run.of_other_code(job.plain), run.trained, run.id == run_id(job.plain, data_of(run.folder)), run.id


def left_out(shelf: Shelf, jobs: Iterable[PlannedRun]) -> str:
    """One line with † where runs of other code are there and do not count; empty where there are none."""
    count = sum(shelf.left_out(job) for job in jobs)
    return f"{OTHER_CODE} runs of other code that do not count: {count}; code=any uses them, marked" if count else ""


def collect(item: Item, jobs: Iterable[PlannedRun], shelf: Shelf | None = None) -> Collected:
    """What is there of these jobs.

    shelf: give the same one again where the same jobs are collected repeatedly.

    Raises:
        BadInput: runs that saw different data, or a column that several measurements fit.
        JobFailed: a file cannot be read.
    """
    return gather(item.columns, map((shelf or Shelf()).source, jobs))

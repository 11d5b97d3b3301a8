"""`robode reproduce PAPER/ITEM`: train what is missing, measure what is missing, keep the report current."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from robode.config.compose import Request
from robode.config.config import EvaluateConfig
from robode.config.jobs import Job, Outcome, Result, failure, run_each
from robode.config.validate import check_jobs
from robode.data.validation import check_files
from robode.errors import BadInput, Busy, DataMissing, JobFailed
from robode.launch.launch import check_launcher, launch
from robode.papers.collect import Shelf, collect, left_out
from robode.papers.plan import PlannedRun, evaluations, missing, plan, preview, unmeasured
from robode.papers.publish import publish
from robode.papers.selection import Selection, item_among, select
from robode.report.paper_page import Report
from robode.runs.run import Run
from robode.training.plan import check_folders, located
from robode.verbs.composed import sweep_folder
from robode.verbs.report import show

PAUSE = 30.0  # seconds between two refreshed reports: a toy set must not draw longer than it trains
SHOWN = 3  # jobs that are named where the same thing went wrong in several


def run_reproduce(words: Sequence[str], config_dirs: Sequence[str] = (), dry_run: bool = False) -> int:
    """Reproduce PAPER/ITEM, the word without "="; the others: size=, variant=, … (`selection.OWN`), and those for every
    training.

    What was done before, by this or another process, is not done again; what another one is doing comes last. What
    other code has trained stays where it is and is trained anew beside it, unless code=any.

    Returns:
        0, 1 if a job failed, 2 if every failure was bad input.

    Raises:
        BadInput: before anything is started.
        KeyboardInterrupt: what was done stays, and the same command goes on.
    """
    where = item_among(words, config_dirs)
    selection = select(where, [word for word in words if word != where], config_dirs)
    asked, (jobs, impossible) = evaluations(selection), with_data(plan(selection))
    check_jobs([job.cfg for job in jobs if job.wanted])
    if selection.launcher:
        check_launcher(_launching(selection))
    work = Reproduction(selection, jobs, asked, Shelf.of(selection, asked), failures=impossible)
    if dry_run:
        wanted = [job for job in work.jobs if job.wanted]
        preview(selection, [work.beside(work.shelf.placed(job)) for job in wanted], work.asked)
        absent = (f"{len(names)} more: {line}" for (_, line), names in impossible.items())
        for line in filter(None, (left_out(work.shelf, wanted), unmeasured(selection, jobs, asked), *absent)):
            print(line)
        return 0
    return work.run()


def _launching(selection: Selection) -> Request:
    return Request("train", selection.launcher, True, selection.config_dirs)


def train_and_measure(job: Job, wait: bool, asked: Sequence[EvaluateConfig]) -> Result:
    """What is done for a job where a launcher has put it: everything that the item needs of it."""
    from robode.api import work

    result = work(job, wait)
    measure_more(result.run, asked, Console(), wait)
    return result


def measure_more(folder: Path, asked: Sequence[EvaluateConfig], console: Console, wait: bool) -> None:
    """Everything besides what the training of a run has measured itself. Raises `Busy` where another process measures
    it, and `wait` is false."""
    from robode.api.evaluation import evaluated, report

    rows: list[dict[str, Any]] = []
    for each in asked:
        rows += evaluated(replace(each, run=str(folder)), console, wait).rows
    if rows:
        report(Run(folder), rows, console, wait)


def with_data(jobs: Sequence[PlannedRun]) -> tuple[list[PlannedRun], dict[tuple[int, str], list[str]]]:
    """The jobs, of which those whose data are not on this machine are not wanted any more; and the latter's names, by
    exit code and line. Raises `DataMissing` where nothing is left."""
    known: dict[str, DataMissing | None] = {}
    found, absent = [], dict[tuple[int, str], list[str]]()
    for job in jobs:
        source = job.cfg.data.source.arguments
        key = str(sorted(source.items()))
        if job.wanted and key not in known:
            known[key] = None
            try:
                check_files(source)
            except DataMissing as error:
                known[key] = error
        nowhere = known[key] if job.wanted else None
        if nowhere is not None:
            absent.setdefault((2, f"not run, because {nowhere}"), []).append(job.name)
            job = replace(job, wanted=False)
        found.append(job)
    if absent and not any(job.wanted for job in found):
        raise next(filter(None, known.values()))
    return found, absent


@dataclass
class Reproduction:
    """One item on its way. asked: the evaluations that follow each training."""

    selection: Selection
    jobs: list[PlannedRun]
    asked: list[EvaluateConfig]
    shelf: Shelf = field(default_factory=Shelf)
    console: Console = field(default_factory=Console)
    failures: dict[tuple[int, str], list[str]] = field(default_factory=dict)  # exit code and line → jobs
    refreshed: float = 0.0
    later: list[tuple[PlannedRun, Path]] = field(default_factory=list)  # of runs that another process measures

    def run(self) -> int:
        """Do what is missing, seed by seed, and say how it went."""
        wanted = [job for job in self.jobs if job.wanted]
        undone = [job for job in wanted if self.selection.force or not self._complete(job)]
        once = {job.hash: job for job in undone}  # a row may stand in several groups
        todo = list(once.values())
        jobs = f"{len(wanted)} job{'s' if len(wanted) != 1 else ''}"
        self._say(f"{self.selection.name}: {jobs}, {len(wanted) - len(undone)} of them complete")
        if line := left_out(self.shelf, wanted):
            self._say(line)
        for job in map(self.shelf.placed, todo):
            if job.start is None:
                check_folders(self.beside(job).cfg, ())
        self._publish()
        begun = 0
        for ready in self._in_order(todo):
            self._train(ready, partial(self._after, ready, begun, len(todo)))
            begun += len(ready)
        for job, folder in self.later:
            self._measure(job, folder, wait=True)
        return self._end()

    def _in_order(self, todo: Sequence[PlannedRun]) -> Iterator[list[PlannedRun]]:
        """First those that begin with random weights, or with some that are there; then those that wait for them."""
        waiting = {job.hash: job for job in todo}
        while waiting:
            free = [job for job in waiting.values() if job.start is None or job.start.hash not in waiting]
            for job in free:
                del waiting[job.hash]
            placed = list(map(self.shelf.placed, free))
            for job in placed:
                if job.start is not None:
                    line = f"not run, because '{job.start.name}', with whose weights it begins, is not finished"
                    self.failures.setdefault((1, line), []).append(job.name)
            yield [self.beside(job) for job in placed if job.start is None]

    def _after(self, ready: Sequence[PlannedRun], begun: int, count: int, number: int, outcome: Outcome) -> None:
        """What follows a training, number `number` of `ready`, before which `begun` of `count` were done."""
        job = ready[number]
        name = f"job {begun + number + 1} of {count}, {job.name}"
        if outcome.state == "busy":
            self._say(f"{name}: another process has it, put off")
            return
        done = self._went_well(job, outcome) and outcome.result
        if done and not self._complete(job):
            self._measure(job, done.run)
        self._say(f"{name}: {outcome.state}")
        if time.monotonic() - self.refreshed > PAUSE:
            self._publish()

    def _train(self, todo: list[PlannedRun], after: Callable[[int, Outcome], None]) -> None:
        """All of them, which have been found good."""
        from robode.api import work

        composed = [Job(job.overrides, job.cfg) for job in todo]
        dirs, fast = self.selection.config_dirs, self.selection.fail_fast
        if self.selection.launcher and todo:
            self._launch(composed, after)
            return
        run_each(composed, work, config_dirs=dirs, fail_fast=fast, after=after)

    def _launch(self, jobs: Sequence[Job], after: Callable[[int, Outcome], None]) -> None:
        """All of them, where the launcher puts them."""
        if self.selection.fail_fast:
            jobs = [Job((*job.overrides, "fail_fast=true"), replace(job.config, fail_fast=True)) for job in jobs]
        count = f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}"
        self._say(f"{count} launched; robode report {self.selection.name} shows how far they are")
        do = partial(train_and_measure, asked=tuple(self.asked))
        for number, outcome in enumerate(launch(_launching(self.selection), jobs, do, sweep_folder())):
            after(number, outcome)

    def beside(self, job: PlannedRun) -> PlannedRun:
        """The job as it is; where other code has its run, with the name of one beside that."""
        if self.selection.force or not self.shelf.left_out(job):
            return job
        name = located(job.cfg, anew=True).id
        return replace(job, overrides=(*job.overrides, f"run={name}"), cfg=replace(job.cfg, run=name))

    def _complete(self, job: PlannedRun) -> bool:
        """Whether a run has everything that the table needs of it; one that cannot be read will say so when it runs."""
        run = self.shelf.find(job)
        if run is None or not run.trained or run.state in ("running", "failed"):
            return False
        try:
            return not missing(run, job.cfg, self.asked, self.selection.code)
        except (BadInput, JobFailed):
            return False

    def _measure(self, job: PlannedRun, folder: Path, wait: bool = False) -> None:
        """Everything besides what the training has measured itself, so that a killed night has complete rows; at the
        end, where another process measures the run and this one does not wait."""
        try:
            measure_more(folder, self.asked, self.console, wait)
        except Busy:  # most likely for this very item
            self.later.append((job, folder))
        except Exception as error:  # one run must not end the night
            self._went_well(job, failure(error))

    def _went_well(self, job: PlannedRun, outcome: Outcome) -> bool:
        if outcome.code:
            self.failures.setdefault((outcome.code, outcome.error), []).append(job.name)
        return not outcome.code

    def _publish(self) -> Report | None:
        """The report as it is now; one that cannot be written is complained about at the end."""
        self.failures = {key: names for key, names in self.failures.items() if names}
        try:
            collected = collect(self.selection.item, self.jobs, self.shelf)
            report = publish(self.selection, self.jobs, collected, self.selection.folder)
        except Exception as error:
            outcome = failure(error)
            self.failures[outcome.code, f"no report: {outcome.error}"] = []
            return None
        self.refreshed = time.monotonic()
        return report

    def _end(self) -> int:
        report = self._publish()
        for (_, line), names in self.failures.items():
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            print(f"robode: {'; '.join(names[:SHOWN])}{more}{': ' if names else ''}{line}", file=sys.stderr)
        if report:
            show(report, self.console)
        if line := unmeasured(self.selection, self.jobs, self.asked):
            self._say(line)
        codes = {code for code, _ in self.failures}
        return 2 if codes == {2} else 1 if codes else 0

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

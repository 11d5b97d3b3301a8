"""Jobs one after the other: what is done for each, how it ends as an exit code and one line, who has to wait.

A job that another process has is put off until the rest is done, so that several processes share one sweep.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from robode.config.config import Config
from robode.errors import BadInput, Busy, JobFailed

MOST_JOBS = 10_000
"""Of one command line: each takes a tenth of a second to compose."""

State = Literal["done", "reused", "failed", "busy", "skipped"]


@dataclass(frozen=True)
class Job:
    """A configuration, and the overrides that compose to it alone."""

    overrides: tuple[str, ...]
    config: Config

    @property
    def verb(self) -> str:
        """What the command line calls it: train, evaluate, …"""
        return self.config.verb


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every job leaves. run: the folder. score: on clean data, in the unit of the task (None where it was not
    measured). reused: whether everything that was asked for was there already; other_code: whether other code than this
    has trained the run."""

    run: Path
    task: str = ""
    score: float | None = None
    reused: bool = False
    other_code: bool = False

    def __repr__(self) -> str:
        """In a line: what there is, paths as texts and numbers in four digits."""
        known = {each.name: getattr(self, each.name) for each in fields(self) if each.repr and each.name != "task"}
        said = (f"{name}={_said(value)}" for name, value in known.items() if value is not None and value is not False)
        return f"{type(self).__name__}({', '.join(said)})"


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))})"
    return f"{value:.4g}" if isinstance(value, float) else repr(str(value) if isinstance(value, Path) else value)


@dataclass(frozen=True)
class Outcome:
    """How a job ended. code: as a process would return it; error: one line if that is not 0; state: reused = nothing
    was trained because that was done before; busy = another process has the job."""

    overrides: tuple[str, ...] = ()
    code: int = 0
    error: str = ""
    result: Result | None = None
    state: State = "done"


Work = Callable[[Job, bool], Result]
"""What is done for a job. The flag: whether to wait where another process has it, or raise `Busy`."""


def run_each(
    jobs: Sequence[Job],
    work: Work,
    *,
    config_dirs: Sequence[str] = (),
    fail_fast: bool = False,
    after: Callable[[int, Outcome], None] = lambda number, outcome: None,
) -> list[Outcome]:
    """Run jobs in this process; one that fails does not stop the others, unless it or `fail_fast` says so.

    after: gets the number and the outcome of each job when it is done (a job that is put off comes twice, first
    as busy).
    """
    outcomes: list[Outcome] = []

    def done(job: Job, wait: bool) -> Outcome:
        if (fail_fast or job.config.fail_fast) and any(each.state == "failed" for each in outcomes):
            return Outcome(
                job.overrides, 1, "not run, because a job before it failed (fail_fast=true)", state="skipped"
            )
        return run_one(job, work, wait, config_dirs)

    for number, job in enumerate(jobs):
        outcomes.append(done(job, len(jobs) == 1))
        after(number, outcomes[-1])
    for number, job in enumerate(jobs):
        if outcomes[number].state == "busy":
            outcomes[number] = done(job, True)
            after(number, outcomes[number])
    return outcomes


def run_one(job: Job, work: Work, wait: bool, config_dirs: Sequence[str] = ()) -> Outcome:
    """Run a job in this process, whose command line is that of this job alone meanwhile."""
    try:
        with command_of(job, config_dirs):
            result = work(job, wait)
    except Exception as error:
        return failure(error, job.overrides)
    return Outcome(job.overrides, result=result, state="reused" if result.reused else "done")


@contextmanager
def command_of(job: Job, config_dirs: Sequence[str]) -> Iterator[None]:
    """``sys.argv`` is a command line that repeats this job alone: that is what is recorded, and not the whole sweep."""
    argv = sys.argv
    folders = [word for folder in config_dirs for word in ("--config-dir", folder)]
    sys.argv = [argv[0], job.verb, *folders, *job.overrides]
    try:
        yield
    finally:
        sys.argv = argv


def failure(error: Exception, overrides: Sequence[str] = ()) -> Outcome:
    """An exception as an exit code and one line; the traceback is shown where ROBODE_DEBUG=1."""
    if os.environ.get("ROBODE_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, BadInput):
        code, text = 2, str(error)
    elif isinstance(error, JobFailed):
        code, text = 1, str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        code = 2 if error.errno == errno.ENAMETOOLONG else 1
        text = f"cannot use '{error.filename}': {error.strerror}"
    elif isinstance(error, OSError) and error.strerror is not None:
        code, text = 1, error.strerror
    else:
        code, text = 1, f"unexpected {type(error).__name__}: {error} (ROBODE_DEBUG=1 shows the traceback)"
    state: State = "busy" if isinstance(error, Busy) else "failed"
    return Outcome(tuple(overrides), code, " ".join(text.split()), state=state)

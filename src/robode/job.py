"""One job at a time in a run folder, with an honest status.json whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from robode.errors import BadInput, JobFailed
from robode.runs import Run

if sys.platform != "win32":
    import fcntl


@contextmanager
def job(run: Run, console: Console | None = None) -> Iterator[None]:
    """Marks the run running, then done, failed (with the reason) or interrupted; holds its lock meanwhile.

    console: where an interrupted job says how to go on.

    Raises:
        BadInput: another process is training this run.
        JobFailed: instead of an OSError that the body raised.
    """
    with _locked(run):
        run.update(status="running", error=None)
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            _mark(run, status="interrupted")
            (console or Console()).print(_how_to_go_on(run), highlight=False, soft_wrap=True)
            raise
        except OSError as error:
            _mark(run, status="failed", error=str(error))
            raise JobFailed(f"cannot use {error.filename or run.folder}: {error.strerror or error}") from error
        except Exception as error:
            _mark(run, status="failed", error=f"{error}" if isinstance(error, JobFailed) else repr(error))
            raise
        run.update(status="done")


def _how_to_go_on(run: Run) -> str:
    done = run.status().get("epoch", 0)
    how = f"continue with: robode train resume={run.folder}" if done else "nothing was saved yet"
    return f"interrupted after {done} epochs; {how}"


def _mark(run: Run, **changes: object) -> None:
    with suppress(JobFailed):  # the disk may be what failed
        run.update(**changes)


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    try:
        file = (run.folder / ".lock").open("w")
    except OSError as error:
        raise JobFailed(f"cannot write {run.folder}: {error.strerror}") from error
    with file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back when the process ends, however it ends
            except BlockingIOError:
                raise BadInput(f"run {run.id} is being trained by another process; wait for it or stop it") from None
        yield

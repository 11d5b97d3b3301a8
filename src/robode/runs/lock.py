"""One process at a time: in a run's folder while it trains, with a heartbeat and an honest status.json, and wherever
else two could meet.

On one machine the kernel's lock on a file decides (`filelock`): it is given back when its process ends, however it
ends. Where another machine sees the same folder the lock may not reach it, so there a training's heartbeat decides.
"""

from __future__ import annotations

import _thread
import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from robode.errors import BadInput, Busy, JobFailed
from robode.files import clear_drafts, make_folder
from robode.runs.run import SILENCE, Owner, Run, Status, state_of

BEAT, POLL = 5.0, 0.2  # seconds between heartbeats, and between looks at a lock that another process holds


@contextmanager
def held(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock that the file at path, in the folder of a run, stands for. waiting: called before each further look
    at a lock that another process holds; it may raise, where this one has no time.

    Raises:
        BadInput: `check_own`.
        JobFailed: the folder is gone, or the file cannot be made.
    """
    check_own(path.parent)
    lock = FileLock(path)
    while not _taken(lock):
        waiting()
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()


def check_own(folder: Path) -> None:
    """See that what is written into the folder of a run stays in it: a received one may have a link where a file or a
    folder should be, or another name of a file elsewhere where robode writes in place (locks and tables).

    Raises:
        BadInput: with the name of the link.
        JobFailed: there is no such folder any more.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                in_place = entry.name.endswith((".lock", ".csv"))
                if entry.is_symlink() or (in_place and entry.stat(follow_symlinks=False).st_nlink > 1):
                    raise BadInput(
                        f"{entry.path}: is a link, and nothing is written outside a run's folder; put a copy of what "
                        "it stands for in its place, or remove it"
                    )
    except OSError as error:
        raise JobFailed(f"cannot write {folder}: {error.strerror}") from error


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        raise JobFailed(f"cannot write {lock.lock_file}: {error.strerror or error}") from error
    return True


@contextmanager
def turn(run: Run, console: Console, wait: bool = True) -> Iterator[None]:
    """This process's turn in the run's folder, which is created if need be; waits until nobody else works there.

    Raises:
        Busy: another process has the run, and `wait` is false.
        JobFailed: the folder cannot be written.
    """
    make_folder(run.folder)
    with ExitStack() as stack:
        with console.status("") as shown:

            def waiting() -> None:
                if not wait:
                    raise Busy(f"run {run.id} is being trained by another process; wait for it or stop it")
                shown.update(f"waiting for the process that trains {run.id} (epoch {run.status().get('epoch', 0)})")

            stack.enter_context(held(run.folder / ".lock", waiting))
            watch = Watch()
            while not watch.silent(run):
                if wait or watch.beating:  # a node that went down a moment ago has left a run that looks alive
                    waiting()
                time.sleep(POLL)
        clear_drafts(run.folder)
        yield


class Watch:
    """Tells whether a run that another machine worked on has fallen silent, by this machine's clock. beating: whether
    its heart has been seen to beat."""

    def __init__(self) -> None:
        self.seen: float | None = None
        self.beating = False
        self.since = time.monotonic()

    def silent(self, run: Run) -> bool:
        """True at once for runs of this machine: their lock has been given back."""
        status = run.status()
        if status.get("status") != "running" or "owner" not in status or status["owner"]["machine"] == machine():
            return True
        if status.get("heartbeat") != self.seen:
            self.beating = self.seen is not None
            self.seen, self.since = status.get("heartbeat"), time.monotonic()
            stale = time.time() - (self.seen or 0.0)
            return stale > 10 * SILENCE  # far beyond what two clocks may differ by
        return time.monotonic() - self.since > SILENCE


def state_now(run: Run, status: Status | None = None) -> str:
    """`Run.state`; one of this machine is running only where a process holds its lock, however fresh its heartbeat.
    status: what status.json says, where that is known."""
    status = run.status() if status is None else status
    state = state_of(status)
    if state != "running" or status.get("owner", {}).get("machine") != machine():
        return state
    lock = run.folder / ".lock"
    if not lock.is_file():
        return state

    def taken() -> None:
        raise Busy("")

    try:
        with held(lock, taken):
            return "interrupted"
    except (Busy, JobFailed):
        return state


def machine() -> str:
    """A name for this machine since it was switched on that does not give its own name away."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    about = platform.node() + (boot.read_text() if boot.is_file() else "")
    return hashlib.sha256(about.encode()).hexdigest()[:12]


@contextmanager
def job(run: Run, console: Console | None = None) -> Iterator[None]:
    """Marks a run whose `turn` it is as running, then done, failed (with the reason) or interrupted.

    console: where an interrupted job says how to go on.

    Raises:
        JobFailed: instead of an OSError that the body raised; or another process has taken the run over.
    """
    heart, before = _Heart(run), run.status()
    run.update(status="running", error=None, owner=heart.owner, heartbeat=time.time())
    heart.start()
    try:
        yield
    except BaseException as error:
        heart.stop()
        if heart.lost:
            raise JobFailed(f"run {run.id} was taken over by another process: this one had been silent") from error
        _explain(run, error, before, console or Console())
        if isinstance(error, OSError):
            raise JobFailed(f"cannot use {error.filename or run.folder}: {error.strerror or error}") from error
        raise
    heart.stop()
    run.update(status="done")


def _explain(run: Run, error: BaseException, before: Status, console: Console) -> None:
    """Write down how the job ended, and tell an interrupted user how to go on. A job that has to wait, and one that a
    finished run refused, leave it as it was."""
    with suppress(JobFailed):  # the disk may be what failed
        refused = isinstance(error, BadInput) and run.trained and before.get("status") == "done"
        if isinstance(error, KeyboardInterrupt | SystemExit):
            run.update(status="interrupted")
            console.print(_how_to_go_on(run), highlight=False, soft_wrap=True)
        elif isinstance(error, Busy) or refused:
            run.update(status=before.get("status", "queued"), error=before.get("error"))
        else:
            known = isinstance(error, BadInput | JobFailed | OSError)
            run.update(status="failed", error=str(error) if known else repr(error))


def _how_to_go_on(run: Run) -> str:
    done = run.status().get("epoch", 0)
    how = f"continue with the same command or with: robode train resume={run.folder}"
    return f"interrupted after {done} epochs; {how if done else 'nothing was saved yet'}"


class _Heart(threading.Thread):
    """Writes the heartbeat into status.json; stops the job where another process has become the owner."""

    def __init__(self, run: Run):
        super().__init__(daemon=True)
        self.run_, self.stopped, self.lost = run, threading.Event(), False
        self.owner = Owner(machine=machine(), pid=os.getpid())

    def run(self) -> None:
        while not self.stopped.wait(BEAT):
            if self.run_.status().get("owner", self.owner) != self.owner:
                self.lost = True
                _thread.interrupt_main()
                return
            with suppress(JobFailed):  # a full disk is for the job to complain about
                self.run_.update(heartbeat=time.time())

    def stop(self) -> None:
        """No heartbeat is written any more when this returns."""
        self.stopped.set()
        self.join()

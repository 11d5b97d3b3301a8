"""What launchers are given in tests: jobs that end in every way, without torch."""

import os
import signal
import time
from pathlib import Path

from robode.config.jobs import Job, Result
from robode.errors import Busy, JobFailed

ENDINGS = ("done", "fails", "is killed once", "is busy at first", "is preempted once", "is always killed")


def first_time(name: str) -> bool:
    """Whether nobody has said this name in this folder before."""
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def work(job: Job, wait: bool) -> Result:
    """depth says which of the endings it is; each call leaves a file."""
    depth = job.config.depth
    Path(f"{depth}-{job.config.seed}-{os.getpid()}-{time.monotonic_ns()}.call").touch()
    ending = ENDINGS[depth - 1]
    if ending == "fails":
        raise JobFailed("NaN loss")
    if ending == "is always killed" or (ending == "is killed once" and first_time("killed")):
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "is busy at first" and not wait:
        raise Busy("another process has it")
    if ending == "is preempted once" and first_time("preempted"):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(30)
    return Result(run=Path("outputs") / str(depth), score=depth / 10)


def work_for_ever(job: Job, wait: bool) -> Result:
    """Until it is interrupted; leaves a file with the process's number at the beginning and at the end."""
    Path(f"{os.getpid()}.call").touch()
    try:
        for _ in range(600):
            time.sleep(0.1)
    except KeyboardInterrupt:
        Path(f"{os.getpid()}.interrupted").touch()
        raise
    raise JobFailed("nobody has interrupted it")

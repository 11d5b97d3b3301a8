"""Jobs as processes of this machine, or as tasks of SLURM arrays, by the library submitit.

A task that SLURM preempts or whose time is up is queued again, and its training goes on in its folder after the last
epoch that was finished: that checkpoint is there already, so nothing is saved in a hurry.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robode.config.jobs import Job, Outcome
from robode.errors import BadInput
from robode.launch.board import Board, Do

POLL, ASK, LOOKS = 0.5, 10.0, 3
"""Seconds between looks for outcomes and between questions to SLURM's queue; a job that is there no more is given so
many looks, for its outcome to get through a network's file system."""
ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
)
MOST = 1000
"""Tasks of one array: what SLURM takes unless its MaxArraySize says otherwise."""


@dataclass(frozen=True)
class Task:
    """A job that can be queued again as it is."""

    do: Do
    job: Job

    def __call__(self) -> None:
        self.do(self.job)

    def checkpoint(self) -> Any:
        """What submitit queues instead of a task that it cuts off."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Submitit(ABC):
    """What the two launchers of submitit share; the keys of their YAML files are the arguments.

    at_once: jobs that run at the same time. requeues: how often a job whose time was up goes on; one that was preempted
    always does. resources: as submitit calls them.

    Raises:
        BadInput: resources that submitit does not understand, or no SLURM on this machine.
    """

    name: str

    def __init__(self, at_once: int, requeues: int, **resources: Any):
        self.at_once, self.requeues = at_once, requeues
        self.resources = {key: value for key, value in resources.items() if value is not None}
        for key, value, least in (("at_once", at_once, 1), ("requeues", requeues, 0)):
            if not isinstance(value, int) or value < least:
                raise BadInput(f"hydra.launcher.{key}={value}: expected a whole number >= {least}")
        with tempfile.TemporaryDirectory() as folder:
            self._executor(Path(folder))

    @abstractmethod
    def run(self, do: Do, jobs: Sequence[Job], folder: Path, board: Board) -> None:
        """Have all jobs run; back when each has told how it ended, or is gone. folder: for submitit's files and the
        output of the jobs; every machine sees it."""

    def _executor(self, folder: Path, **more: Any) -> Any:
        import submitit

        try:
            kind = {"local": submitit.LocalExecutor, "slurm": submitit.SlurmExecutor}[self.name]
            executor = kind(folder, max_num_timeout=self.requeues)
            executor.update_parameters(**(self.resources | more))
        except (RuntimeError, ValueError, TypeError) as error:
            said = " ".join(str(error).split())
            raise BadInput(f"hydra/launcher=submitit_{self.name}: {said}") from error
        return executor


class Local(Submitit):
    """At most `at_once` processes of this machine, each on GPUs of its own where gpus_per_node asks for some."""

    name = "local"

    def __init__(
        self,
        at_once: int,
        requeues: int,
        gpus_per_node: int,
        timeout_min: float,
        signal_delay_s: int,
        setup: Sequence[str] | None = None,
    ):
        self.gpus = gpus_per_node
        super().__init__(at_once, requeues, gpus_per_node=gpus_per_node, timeout_min=timeout_min,
                         signal_delay_s=signal_delay_s, setup=setup)  # fmt: skip

    def run(self, do: Do, jobs: Sequence[Job], folder: Path, board: Board) -> None:
        left, running = list(jobs), dict[int, Any]()
        try:
            while left or running:
                for place in range(self.at_once):
                    if place in running and running[place].done():
                        del running[place]
                    if place not in running and left:
                        own = [*range(place * self.gpus, (place + 1) * self.gpus)]
                        executor = self._executor(folder, visible_gpus=own)
                        with _threads(self.at_once):
                            running[place] = executor.submit(Task(do, left.pop(0)))
                time.sleep(POLL)
        finally:
            for job in running.values():
                job.cancel()


class Slurm(Submitit):
    """SLURM arrays, of which `at_once` tasks run at the same time. Jobs stay in the queue where this process ends."""

    name = "slurm"

    def run(self, do: Do, jobs: Sequence[Job], folder: Path, board: Board) -> None:
        waiting = self._submitted(do, jobs, folder)
        arrays = " ".join(sorted({task.partition("_")[0] for task in waiting}))
        count = f"{len(waiting)} job{'s' if len(waiting) != 1 else ''}"
        print(f"In SLURM's queue: {count}; scancel {arrays} takes out what has not ended", flush=True)
        missed, asked = dict.fromkeys(waiting, 0), time.monotonic()
        while waiting:
            time.sleep(POLL)
            waiting = {task: job for task, job in waiting.items() if not board.told(job) and missed[task] < LOOKS}
            if time.monotonic() - asked > ASK and (queue := in_queue()) is not None:
                asked = time.monotonic()
                missed = {task: missed[task] + 1 if queue.get(task, ENDED[0]) in ENDED else 0 for task in waiting}
                for task, job in waiting.items():
                    if missed[task] == LOOKS and queue.get(task) == "CANCELLED":  # not to be launched again
                        board.tell(job, Outcome(job.overrides, 1, f"task {task} was cancelled", state="failed"))

    def _submitted(self, do: Do, jobs: Sequence[Job], folder: Path) -> dict[str, Job]:
        """The jobs by their numbers in SLURM's queue."""
        arrays = [jobs[start : start + MOST] for start in range(0, len(jobs), MOST)]
        tasks: dict[str, Job] = {}
        for array in arrays:
            executor = self._executor(folder, array_parallelism=max(1, self.at_once // len(arrays)))
            with executor.batch():
                submitted = [executor.submit(Task(do, job)) for job in array]
            tasks |= {str(one.job_id): job for one, job in zip(submitted, array, strict=True)}
        return tasks


def in_queue() -> dict[str, str] | None:
    """This user's tasks in SLURM's queue, 12_3 in an array, with their states, those that ended a while ago too; None
    where SLURM does not answer."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return dict(line.split() for line in answer.stdout.splitlines() if line.strip())
    return None


@contextmanager
def _threads(at_once: int) -> Iterator[None]:
    """Processes that are started meanwhile share out the cores, unless OMP_NUM_THREADS says otherwise."""
    said = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_once)))
    try:
        yield
    finally:
        if not said:
            del os.environ["OMP_NUM_THREADS"]

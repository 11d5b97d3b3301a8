"""Jobs as tasks of Ray, on this machine or on a cluster whose machines see the same folder."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from robode.config.jobs import Job
from robode.errors import BadInput
from robode.files import make_folder
from robode.launch.board import Board, Do

TO_END = 10.0
"""Seconds that interrupted jobs have to mark their runs."""
ALONE: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 2**27}
"""How Ray is started on this machine: what it carries is small, and nobody looks at its web page."""


class Ray:
    """As many jobs at the same time as there are cores and GPUs for; the keys of its YAML file are the arguments.

    address: "local" for this machine alone, or a cluster as `ray.init` calls it. options: of each task, as `ray.remote`
    calls them.

    Raises:
        BadInput: options that Ray does not understand, more cores than there are, or no cluster at the address.
    """

    def __init__(self, address: str, **options: Any):
        import ray

        self.address = address
        self.options = {key: value for key, value in options.items() if value is not None}
        cores, here = self.options.get("num_cpus", 1), os.cpu_count() or 1
        if isinstance(cores, bool) or not isinstance(cores, int | float) or cores <= 0:
            raise BadInput(f"hydra.launcher.num_cpus={cores}: expected a number > 0")
        if address == "local" and cores > here:
            raise BadInput(f"hydra.launcher.num_cpus={cores}: a job asks for more cores than this machine's {here}")
        try:
            self.task = ray.remote(**self.options)(_do)
            if address != "local":
                with self._connected():
                    pass
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise BadInput(f"hydra/launcher=ray: {' '.join(str(error).split())}") from error

    def run(self, do: Do, jobs: Sequence[Job], folder: Path, board: Board) -> None:
        """Have all jobs run; back when each has told how it ended, or is gone. folder: for what the jobs print."""
        import ray

        make_folder(folder)
        first, here = len(list(folder.glob("*.log"))), (Path.cwd(), _ours(os.environ))
        logs = [folder.resolve() / f"{first + number}.log" for number in range(len(jobs))]
        with self._connected():
            self._look(ray.nodes())
            waiting = {self.task.remote(do, job, log, *here): job for job, log in zip(jobs, logs, strict=True)}
            try:
                while waiting:
                    (ended, *_), _ = ray.wait([*waiting])
                    job = waiting.pop(ended)
                    state = outcome.state if (outcome := board.told(job)) else "its process is gone"
                    print(f"{len(jobs) - len(waiting)} of {len(jobs)}, {' '.join(job.overrides)}: {state}", flush=True)
            finally:
                for task in waiting:
                    ray.cancel(task)
                if waiting:
                    ray.wait([*waiting], num_returns=len(waiting), timeout=TO_END)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells its makers of its use
        before = signal.getsignal(signal.SIGTERM)
        more = ALONE if self.address == "local" else {}
        ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, **more)
        with suppress(ValueError):  # in a thread
            signal.signal(signal.SIGTERM, before)  # Ray puts its own there
        try:
            yield
        finally:
            ray.shutdown()

    def _look(self, machines: Sequence[Mapping[str, Any]]) -> None:
        """Whether a machine has what a job asks for: Ray would wait for one, and a cluster that grows gets one."""
        asked = {"CPU": self.options.get("num_cpus", 1), "GPU": self.options.get("num_gpus", 0)}
        have = [machine["Resources"] for machine in machines if machine["Alive"]]
        if any(all(each.get(name, 0) >= much for name, much in asked.items()) for each in have):
            return
        said = f"num_cpus={asked['CPU']} num_gpus={asked['GPU']} of a job"
        if self.address == "local":
            raise BadInput(f"this machine has less than the {said}")
        print(f"No machine of the cluster has the {said} by now; waiting for one", flush=True)


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith("ROBODE_")}


def _do(do: Do, job: Job, log: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """What a task runs. Its process has the folder, environment and signals of whoever started Ray on its machine: in
    the background of a script that is deaf to the interrupt by which Ray cancels."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update(environment)
    with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        print(f"robode {job.verb} {' '.join(job.overrides)}")
        do(job)

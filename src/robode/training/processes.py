"""Several processes on one machine that train together (DDP).

Process 0 is the one that the user started. It starts the others as `python -m robode.training.worker`, which
read the run folder's config.yaml: no command line is repeated, so sweeps and calls from Python work as well.
Only process 0 writes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

import robode
from robode.runs.run import Run

RUN_DIR, RESUMED = "ROBODE_RUN_DIR", "ROBODE_RESUMED"
SECONDS_TO_FINISH = 30.0


class Workers:
    """The other processes. Between entering and leaving `together` this process is number 0 of `count`."""

    def __init__(self, count: int):
        self.count = count
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, run: Run, resumed: bool) -> None:
        """Start them on the run's configuration. resumed: from last.ckpt."""
        source = str(Path(robode.__file__).parents[1])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        for rank in range(1, self.count):
            environment = os.environ | {
                "LOCAL_RANK": str(rank),
                "PYTHONPATH": path,
                RUN_DIR: str(run.folder.resolve()),
                RESUMED: str(int(resumed)),
            }
            command = [sys.executable, "-m", "robode.training.worker"]
            # Its own session: Ctrl-C reaches process 0, which ends the others when it has saved its state.
            self._started.append(subprocess.Popen(command, env=environment, start_new_session=True))

    def finish(self, failed: bool) -> None:
        """Wait for them, or end them where process 0 failed or they hang."""
        for process in self._started:
            if failed:
                process.kill()
            try:
                process.wait(SECONDS_TO_FINISH)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def together(count: int) -> Iterator[Workers]:
    """Room for `count` processes; with one, nothing happens. Ends the others whatever happens in the body."""
    workers = Workers(count)
    if count == 1:
        yield workers
        return
    ours = {"LOCAL_RANK": "0", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    ours |= {"MASTER_PORT": str(find_free_network_port()), "WORLD_SIZE": str(count)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    failed = True
    try:
        yield workers
        failed = False
    finally:
        workers.finish(failed)
        if torch.distributed.is_initialized():
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

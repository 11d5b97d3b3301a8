"""Lightning's Trainer as robode uses it: quiet, whole checkpoints, on the machine that conf/trainer names.

Several processes on one machine can train together (DDP). Process 0 is the one that the user started. It starts the
others as `python -m robode.training.assembly`, which read the run folder's config.yaml: no command line is repeated, so
sweeps and calls from Python work as well. Only process 0 writes.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port
from lightning.fabric.utilities.exceptions import MisconfigurationException

import robode
from robode.config.config import TrainerConfig
from robode.config.instantiate import inside
from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.foreign import reason
from robode.runs.code import LIBRARIES
from robode.runs.run import Run
from robode.training.checkpoints import WholeFiles
from robode.training.module import Training

RUN_DIR, RESUMED = "ROBODE_RUN_DIR", "ROBODE_RESUMED"
SECONDS_TO_FINISH = 30.0


def prepare_machine(config: TrainerConfig, threads: int | None = None) -> None:
    """Set torch's threads and see that the accelerator is there.

    threads: what to use where the section says null (a resumed run must use as many as before: the number changes the
    last bits).

    Raises:
        BadInput: a GPU is asked for and there is none.
    """
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise BadInput(f"trainer={config.name}: torch sees no GPU; use trainer=cpu, or ddp_sim for two processes")
    # Lightning has torch ask the driver's library in every optimiser step whether there are GPUs: 0.2 ms each.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    wanted = config.threads if config.threads is not None else threads
    if wanted is None and config.accelerator == "cpu" and processes(config) > 1:
        wanted = max(1, (os.cpu_count() or 1) // processes(config))
    if wanted is not None:
        torch.set_num_threads(wanted)


def processes(config: TrainerConfig) -> int:
    """How many processes train together."""
    if isinstance(config.devices, int) and config.devices > 0:
        return config.devices
    return torch.cuda.device_count() if config.strategy != "auto" else 1


def build_trainer(config: TrainerConfig, epochs: int, callbacks: Sequence[lightning.Callback]) -> lightning.Trainer:
    """Raises `BadInput` for keys or values that Lightning refuses."""
    _quiet()
    options: dict[str, Any] = dict(config.more)
    if config.fast_dev_run:  # Lightning's own would switch off everything that writes, which is what wants testing
        options |= {"limit_train_batches": 1, "limit_val_batches": 1}
        epochs = min(epochs, 1)
    try:
        return lightning.Trainer(
            accelerator=config.accelerator,
            devices=processes(config),
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            callbacks=list(callbacks),
            plugins=[WholeFiles(), LightningEnvironment()],
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            inference_mode=False,  # validation may differentiate with respect to its input
            use_distributed_sampler=False,  # TensorBatches gives each process its share
            **options,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise BadInput(f"trainer={config.name}: {str(error).splitlines()[0]}") from error


def fit(trainer: lightning.Trainer, module: Training, data: DataModule, checkpoint: Path | None = None) -> None:
    """Train to `max_epochs`, from the beginning or from a checkpoint.

    Raises:
        JobFailed: loss not finite, disk, another process stopped, or anything else that was raised.
        KeyboardInterrupt: on Ctrl-C, which Lightning would turn into SystemExit(1) and a process deaf to
        Ctrl-C.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except (BadInput, JobFailed, OSError):  # one line already
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and trainer.world_size > 1:
            raise JobFailed(
                f"one of {trainer.world_size} processes stopped, see its line above ({reason(error)})"
            ) from error
        raise JobFailed(_told(error, module)) from error
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


def _told(error: Exception, module: Training) -> str:
    """When a training ended by an exception, of which class, and what to try."""
    name = _class_of(error) or "training"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        remedy = "try a smaller batch_size, depth or model.width"
    elif name.partition(".")[0] not in ("training", "robode"):
        remedy = "look at that class: it is not of robode"
    else:
        remedy = "if it had diverged, a smaller lr, step or horizon helps"
    return f"{module.place}: {name} failed ({reason(error)}); {remedy}; ROBODE_DEBUG=1 shows the traceback"


def _class_of(error: Exception) -> str:
    """The class, not of a library, in a method of which an exception was raised last; empty where there is none."""
    libraries = (*LIBRARIES, "torchdiffeq", *sys.stdlib_module_names)
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        kind = type(frame.f_locals.get("self"))
        if kind.__module__.partition(".")[0] not in libraries and not inside(kind.__module__, ("robode.training",)):
            found = f"{kind.__module__}.{kind.__qualname__}"
    return found


def _quiet() -> None:
    """Silence what a user of robode can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")


class Workers:
    """The other processes. Between entering and leaving `worker_processes` this process is number 0 of `count`."""

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
            command = [sys.executable, "-m", "robode.training.assembly"]
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
def worker_processes(count: int) -> Iterator[Workers]:
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

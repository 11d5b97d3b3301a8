"""Lightning's Trainer as robode uses it: quiet, whole checkpoints, the machine that conf/trainer names."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException

from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.training.checkpoints import WholeFiles
from robode.training.module import Training

OURS = ("name", "threads", "fast_dev_run")  # keys of conf/trainer that are not arguments of Lightning's Trainer
HALF = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")


def prepare_machine(node: Mapping[str, Any], threads: int | None = None) -> None:
    """Set torch's threads and see that the accelerator is there.

    node: the `trainer` section. threads: what to use where the section says null (a resumed run must use as
    many as before: the number changes the last bits).

    Raises:
        BadInput: a GPU is asked for and there is none, the precision is half throughout, or threads is not a
        positive number.
    """
    if node["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise BadInput(f"trainer={node['name']}: torch sees no GPU; use trainer=cpu, or ddp_sim for two processes")
    if str(node.get("precision")) in HALF:
        raise BadInput(
            f"trainer.precision={node['precision']}: rounds gamma and h, which the guarantees need in float64; "
            "choose 32-true, 64-true, bf16-mixed or 16-mixed"
        )
    # Lightning has torch ask the driver's library in every optimiser step whether there are GPUs: 0.2 ms each.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    wanted = node["threads"] if node["threads"] is not None else threads
    if wanted is None and node["accelerator"] == "cpu" and processes(node) > 1:
        wanted = max(1, (os.cpu_count() or 1) // processes(node))
    if wanted is not None:
        if not isinstance(wanted, int) or wanted < 1:
            raise BadInput(f"trainer.threads: expected a whole number >= 1 or null, got {wanted}")
        torch.set_num_threads(wanted)


def processes(node: Mapping[str, Any]) -> int:
    """How many processes train together."""
    devices = node["devices"]
    if node["accelerator"] == "gpu" and devices in ("auto", -1):
        return torch.cuda.device_count() if node["strategy"] != "auto" else 1
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise BadInput(f"trainer.devices: expected a whole number >= 1 (or auto on GPUs), got {devices}")
    return devices


def build_trainer(node: Mapping[str, Any], epochs: int, callbacks: Sequence[lightning.Callback]) -> lightning.Trainer:
    """node: the `trainer` section; keys other than OURS go to Lightning.

    Raises:
        BadInput: keys or values that Lightning refuses.
    """
    _quiet()
    options = {key: value for key, value in node.items() if key not in OURS}
    options["devices"] = processes(node)
    if node["fast_dev_run"]:  # Lightning's own would switch off everything that writes, which is what wants testing
        options |= {"limit_train_batches": 1, "limit_val_batches": 1}
        epochs = 1
    try:
        return lightning.Trainer(
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
        raise BadInput(f"trainer={node['name']}: {str(error).splitlines()[0]}") from error


def fit(trainer: lightning.Trainer, module: Training, data: DataModule, checkpoint: Path | None = None) -> None:
    """Train to `max_epochs`, from the beginning or from a checkpoint.

    Raises:
        JobFailed: loss not finite, disk, or another process stopped.
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
    except RuntimeError as error:
        if trainer.world_size == 1:
            raise
        reason = str(error).splitlines()[0]
        raise JobFailed(f"one of {trainer.world_size} processes stopped, see its line above ({reason})") from error
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


def _quiet() -> None:
    """Silence what a user of robode can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")

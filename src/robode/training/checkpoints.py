"""Checkpoints: plain containers, written whole or not at all, read without running code."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from robode.errors import BadInput, JobFailed
from robode.training.module import Training

PREFIX = "network."
EARLIER = {"lift.": "encoder.", "readout.": "head."}


class WholeFiles(TorchCheckpointIO):
    """Writes beside the target and renames, so that last.ckpt is always whole; reads plain data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise JobFailed(f"cannot write {target}: {str(error).splitlines()[0]}") from error
        finally:
            with suppress(OSError):
                draft.unlink()

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content, on the CPU. Raises `BadInput` if it is damaged or holds anything but plain data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and the disk each raise their own
        raise BadInput(f"{path}: damaged, or not a checkpoint of robode ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise BadInput(f"{path}: expected a checkpoint of robode, got other data")
    content["state_dict"] = {_named(key): value for key, value in content["state_dict"].items()}
    return content


def load_weights(path: Path, network: nn.Module) -> None:
    """Weights and buffers of the checkpoint into `network`.

    Raises:
        BadInput: the file is damaged, or holds a network of another shape.
    """
    saved = read_checkpoint(path)["state_dict"]
    state = {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = lines[1] if len(lines) > 1 else lines[0]
        raise BadInput(f"{path}: holds another network than config.yaml describes ({reason})") from error


def _named(key: str) -> str:
    """What a tensor is called now; runs of earlier versions had a lift and a readout."""
    for before, now in EARLIER.items():
        if key.startswith(PREFIX + before):
            return PREFIX + now + key.removeprefix(PREFIX + before)
    return key


class Checkpoints(Checkpoint):
    """last.ckpt after every epoch; best.ckpt when the score on validation data is better than ever (first of equals).

    Without validation data there is no best.ckpt. Lightning calls checkpoint callbacks last, so what they
    save includes everything that the others did in this epoch. status.json follows.

    last.ckpt knows the step that was best. A job may end between last.ckpt and best.ckpt; if the best step is
    last.ckpt's own, a resumed run copies it again.
    """

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_step = -1
        self._last_step: int | None = None  # of the last.ckpt that the run is resumed from

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        self._last_step = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        if self.best_step == self._last_step and trainer.is_global_zero:
            replace_by_copy(module.run.last, module.run.best)

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        task = module.network.info.task
        score = trainer.callback_metrics.get(f"validation/{task.score_name}")
        is_best = score is not None and (self.best is None or task.is_better(float(score), self.best))
        if score is not None and is_best:
            self.best, self.best_step = float(score), trainer.global_step
        trainer.save_checkpoint(module.run.last)  # on every process: Lightning synchronises here
        if not trainer.is_global_zero:
            return
        if is_best:
            replace_by_copy(module.run.last, module.run.best)
        module.run.update(epoch=trainer.current_epoch + 1, step=trainer.global_step)


def replace_by_copy(source: Path, target: Path) -> None:
    """Copy, then rename: readers of `target` see the old file or the new one. Raises `JobFailed`."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, draft)
        os.replace(draft, target)
    except OSError as error:
        raise JobFailed(f"cannot write {target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            draft.unlink()

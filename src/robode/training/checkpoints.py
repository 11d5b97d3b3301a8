"""Checkpoints: plain containers, written whole or not at all, read without running code."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from robode.files import replace_by_copy, write_whole
from robode.runs.checkpoints import Saved, read_checkpoint
from robode.training.module import Training


class WholeFiles(TorchCheckpointIO):
    """Writes beside the target and renames, so that last.ckpt is always whole; reads plain data only."""

    def save_checkpoint(self, checkpoint: Saved, path: Path | str, storage_options: object = None) -> None:
        """The whole file or none. Raises `JobFailed` where the disk refuses."""

        def write(draft: Path) -> None:
            try:
                with draft.open("wb") as file:  # a path would be written into it
                    torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's writer complains of what it could not write, too
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0]) from error

        write_whole(Path(path), write)

    def load_checkpoint(self, path: Path | str, map_location: object = None, weights_only: bool | None = True) -> Saved:
        """The content, on the CPU. Raises `BadInput` if it is damaged or holds code."""
        return read_checkpoint(Path(path))


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

    def state_dict(self) -> Saved:
        """The best score so far and its step."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: Saved) -> None:
        """Those of the run that goes on."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_load_checkpoint(self, trainer: Trainer, module: lightning.LightningModule, checkpoint: Saved) -> None:
        """Notes at which step the run goes on."""
        self._last_step = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Copies best.ckpt again where the job ended before it was written."""
        if self.best_step == self._last_step and trainer.is_global_zero:
            replace_by_copy(module.run.last, module.run.best)

    def on_fit_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Weights of another run that are trained for no epoch are saved as they are, projected."""
        if trainer.max_epochs == 0:
            trainer.save_checkpoint(module.run.last)

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Writes last.ckpt, best.ckpt where it is the best, and status.json."""
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

"""Robustness while training: the run's suite on validation data, every n epochs."""

from __future__ import annotations

from lightning import Callback, Trainer

from robode.errors import BadInput
from robode.evaluation.measure import build_measurement
from robode.runs.records import append_rows, widen
from robode.training.module import Training


class RobustnessSweep(Callback):
    """Appends rows (with `epoch`, counted from 0) to robustness_sweep.csv, from which the figure is drawn.

    every_n_epochs: how often; the last epoch is always measured. repeats: noisy copies per level. The test
    set is never looked at. Random generators and the network are left as they were. Without validation data
    (data.validation=0) it measures nothing.
    """

    def __init__(self, every_n_epochs: int = 1, repeats: int = 1):
        for key, value in (("every_n_epochs", every_n_epochs), ("repeats", repeats)):
            if value < 1:
                raise BadInput(f"callbacks.robustness_sweep.{key}: expected a whole number >= 1, got {value}")
        self.every_n_epochs, self.repeats = every_n_epochs, repeats

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        epoch = trainer.current_epoch
        due = (epoch + 1) % self.every_n_epochs == 0 or epoch + 1 == trainer.max_epochs
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not due or not trainer.is_global_zero or not data.has_validation:
            return
        measurement = build_measurement(module.config, data.info, repeats=self.repeats)
        x, target = data.split("validation", module.device)
        about = measurement.about(
            module.run, module.network, split="validation", checkpoint="training", digest=data.digest
        )
        rows = measurement.rows(about, module.network, x, target)
        path = module.run.folder / "robustness_sweep.csv"
        widen(path)  # a run that goes on may have been begun by an earlier version
        append_rows(path, [{**row, "epoch": epoch} for row in rows])

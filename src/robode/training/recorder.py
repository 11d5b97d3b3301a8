"""What is measured while training, when, and the log that it is written to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from robode.data.module import DataModule
from robode.ode.flow import Flow
from robode.runs.table import METRICS
from robode.training.module import OfStep, Training

SECONDS_BETWEEN_WRITES = 5.0


class MetricsLog(Logger):
    """metrics.csv in `save_dir`, columns of METRICS. Rows wait in memory for at most five seconds.

    A replayed step (resumed after an interruption in mid-epoch) is appended again: readers take the last row
    of a (step, name). Raises `JobFailed` if the file cannot be written.
    """

    def __init__(self, save_dir: str):
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._waiting: list[dict[str, str | float | None]] = []
        self._written = time.monotonic()

    @property
    def name(self) -> str:
        """For Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """For Lightning; a run has none."""
        return ""

    def log_hyperparams(self, *given: object, **named: object) -> None:
        """config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """metrics: name -> value, and "epoch", which counts from 0. step: optimiser steps taken."""
        epoch = metrics.get("epoch", 0)
        self._waiting += [
            {"epoch": int(epoch), "step": step, "name": name, "value": value}
            for name, value in metrics.items()
            if name != "epoch"
        ]
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Writes what has waited."""
        rows, self._waiting = self._waiting, []
        self._written = time.monotonic()
        METRICS.append(self.path, rows)

    def finalize(self, status: str) -> None:
        """Writes what has waited."""
        self.save()


class Recorder(Callback):
    """Sends measurements to the loggers every `every` optimiser steps and at the end of each epoch.

    train/*: means over the samples since the previous row. flow/*: the flow's properties; at epoch ends also
    its certificates and their factors. validation/*: at epoch ends. An epoch's means over all its batches go
    to `module.epoch_means`.
    """

    def __init__(self, every: int = 50):
        self.every = every

    def on_train_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """The properties of the initial flow."""
        if trainer.global_step == 0:
            flow = module.network.flow
            send(trainer, 0, flow_values(flow, flow.certificate_table()))

    def on_train_batch_end(self, trainer: Trainer, module: Training, *step: OfStep) -> None:  # type: ignore[override]
        """A row every `every` optimiser steps."""
        if trainer.global_step % self.every == 0:
            send(trainer, trainer.current_epoch, self._step_values(trainer, module) | flow_values(module.network.flow))

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """The rows of the epoch, and everything onto the disk."""
        means = module.whole_epoch.means(trainer)
        if not means:  # Lightning closes the last epoch a second time when it resumes
            return
        module.epoch_means = means
        flow = module.network.flow
        values = self._step_values(trainer, module) | _validation(trainer) | flow_values(flow, flow.certificate_table())
        send(trainer, trainer.current_epoch, values)
        for logger in trainer.loggers:
            logger.save()

    def _step_values(self, trainer: Trainer, module: Training) -> dict[str, float]:
        values = {f"train/{name}": value for name, value in module.window.means(trainer).items()}
        return values | {"lr": module.optimizer.param_groups[0]["lr"]}


def _validation(trainer: Trainer) -> dict[str, float]:
    """What the last validation has found."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("validation/")}


def log_untrained(trainer: Trainer, module: Training, data: DataModule) -> None:
    """What an epoch would have logged, of a network that is trained for none: its score on validation data, by which
    settings are compared, and the certificates of its flow."""
    if data.has_validation:
        trainer.validate(module, datamodule=data, verbose=False)
    flow = module.network.flow
    send(trainer, 0, _validation(trainer) | flow_values(flow, flow.certificate_table()))
    for logger in trainer.loggers:
        logger.save()


def flow_values(flow: Flow, certificates: Mapping[str, float] | None = None) -> dict[str, float]:
    """What is logged of a flow: flow/<property>, and its `certificate_table` where it is given."""
    return {f"flow/{name}": value for name, value in (flow.properties() | dict(certificates or {})).items()}


def send(trainer: Trainer, epoch: int, values: dict[str, float]) -> None:
    """To every logger, as of the steps taken so far. epoch: counts from 0."""
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": epoch}, trainer.global_step)

"""What is measured while training, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Callback, Trainer

from robode.ode.flow import Flow
from robode.training.module import Training


class Recorder(Callback):
    """Sends measurements to the loggers every `every` optimiser steps and at the end of each epoch.

    train/*: means over the samples since the previous row. flow/*: the flow's properties; at epoch ends also
    its certificates and their factors. validation/*: at epoch ends. An epoch's means over all its batches go
    to `module.epoch_means`.
    """

    def __init__(self, every: int = 50):
        self.every = every

    def on_train_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        if trainer.global_step == 0:
            flow = module.network.flow
            _send(trainer, 0, flow_values(flow, flow.certificate_table()))

    def on_train_batch_end(self, trainer: Trainer, module: Training, *batch: Any) -> None:  # type: ignore[override]
        if trainer.global_step % self.every == 0:
            _send(trainer, trainer.current_epoch, self._step_values(trainer, module) | flow_values(module.network.flow))

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        means = module.whole_epoch.means(trainer)
        if not means:  # Lightning closes the last epoch a second time when it resumes
            return
        module.epoch_means = means
        validation = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation/")}
        flow = module.network.flow
        values = self._step_values(trainer, module) | validation | flow_values(flow, flow.certificate_table())
        _send(trainer, trainer.current_epoch, values)
        for logger in trainer.loggers:
            logger.save()

    def _step_values(self, trainer: Trainer, module: Training) -> dict[str, float]:
        values = {f"train/{name}": value for name, value in module.window.means(trainer).items()}
        return values | {"lr": module.optimizer.param_groups[0]["lr"]}


def flow_values(flow: Flow, certificates: Mapping[str, float] | None = None) -> dict[str, float]:
    """What is logged of a flow: flow/<property>, and its `certificate_table` where it is given."""
    return {f"flow/{name}": value for name, value in (flow.properties() | dict(certificates or {})).items()}


def _send(trainer: Trainer, epoch: int, values: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": epoch}, trainer.global_step)

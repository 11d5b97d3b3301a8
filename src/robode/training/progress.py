"""What a user sees while a job runs: a live bar in a terminal, one line per epoch everywhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lightning import Callback, Trainer
from rich import progress
from rich.console import Console
from torch import Tensor

from robode.runs.progress import bar
from robode.training.module import OfStep, Training

SECONDS_BETWEEN_UPDATES = 0.2


class ProgressBar(Callback):
    """A bar over the batches of the running epoch, and a line that stays for each finished one."""

    every = 0  # any end of a block will do (`training.captured`)

    def __init__(self, console: Console):
        self.console = console
        self._bar: progress.Progress | None = None
        self._next = 0.0

    def on_train_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Begins the bar."""
        if trainer.is_global_zero:
            self._bar = bar(self.console)
            self._bar.start()
            self._task = self._bar.add_task("", total=None, note="")

    def on_train_epoch_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """The bar begins anew with each epoch."""
        self._began = time.perf_counter()
        if self._bar is not None:
            title = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar.reset(self._task, total=trainer.num_training_batches, description=title)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Training, outputs: Mapping[str, Tensor], batch: OfStep, batch_idx: int
    ) -> None:
        """Moves the bar, at most five times a second."""
        now = time.perf_counter()
        if self._bar is not None and now > self._next:
            self._next = now + SECONDS_BETWEEN_UPDATES
            note = f"loss {float(outputs['loss']):.4g}{_validation(trainer, module)}"
            self._bar.update(self._task, completed=batch_idx + 1, note=note)

    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Prints the line of the epoch."""
        means = module.epoch_means
        if self._bar is None or means is None:
            return
        seconds = time.perf_counter() - self._began
        measure = module.network.info.task.measure
        train = f"  train {measure.text(means[measure.score_name], 2)}" if measure.score_name in means else ""
        self.console.print(
            f"epoch {trainer.current_epoch + 1:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"
            f"  loss {means['loss']:.4g}{train}{_validation(trainer, module)}  {seconds:.1f} s",
            highlight=False,
        )

    def teardown(self, trainer: Trainer, module: Training, stage: str) -> None:  # type: ignore[override]
        """The bar goes."""
        self._stop()

    def on_exception(self, trainer: Trainer, module: Training, exception: BaseException) -> None:  # type: ignore[override]
        """The bar goes."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _validation(trainer: Trainer, module: Training) -> str:
    measure = module.network.info.task.measure
    score = trainer.callback_metrics.get(f"validation/{measure.score_name}")
    return "" if score is None else f"  validation {measure.text(float(score), 2)}"

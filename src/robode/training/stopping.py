"""What early stopping does to a run is said: when it ends one, and when a run goes on that it has ended before."""

from __future__ import annotations

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from rich.console import Console

from robode.training.module import Training


class Stopping(Callback):
    """Says that the training stopped before its last epoch, and why. A run that goes on has the patience that it is
    asked for now, though Lightning's checkpoints hold the one that it had."""

    def __init__(self, console: Console, stops: list[EarlyStopping]):
        self.console, self.stops = console, stops
        self._patience = [each.patience for each in stops]

    def on_fit_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """The patience that is asked for now, and a line where it is used up already."""
        for each, patience in zip(self.stops, self._patience, strict=True):
            each.patience = patience
            if each.wait_count >= patience and trainer.current_epoch < (trainer.max_epochs or 0):
                self._say(trainer, f"goes on, but {_why(each)}: unless it improves now, the run ends again; {WAYS}")

    def on_train_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Says after which epoch it stopped and why."""
        if trainer.current_epoch < (trainer.max_epochs or 0):
            done = f"stopped after epoch {trainer.current_epoch} of {trainer.max_epochs}"
            why = [_why(each) for each in self.stops if each.wait_count >= each.patience]
            self._say(trainer, f"{done}: {'; '.join(why) or 'a callback asked for it'}")

    def _say(self, trainer: Trainer, line: str) -> None:
        if trainer.is_global_zero:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


WAYS = (
    "callbacks=[default,early_stopping] callbacks.early_stopping.patience=N beside resume makes it wait longer, "
    "callbacks=default takes early stopping off"
)


def _why(stop: EarlyStopping) -> str:
    return f"{stop.monitor} has not improved for {stop.wait_count} epochs (early stopping, patience {stop.patience})"

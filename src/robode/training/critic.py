"""What a generator and its critic have come to, while they train against each other."""

from __future__ import annotations

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only

from robode.errors import BadInput
from robode.quantities.generator import distances
from robode.training.module import Training
from robode.training.recorder import send


class CriticLogger(Callback):
    """wasserstein/proven and wasserstein/exact (`robode.quantities.generator.distances`) of the test set at epoch ends.
    It is looked at and decides nothing. every_n_epochs: how often; the last epoch is always measured.
    """

    def __init__(self, every_n_epochs: int = 10):
        if every_n_epochs < 1:
            raise BadInput(f"callbacks.critic.every_n_epochs: expected a whole number >= 1, got {every_n_epochs}")
        self.every_n_epochs = every_n_epochs

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Every so many epochs, and after the last one."""
        done = trainer.current_epoch + 1
        if done % self.every_n_epochs and done != trainer.max_epochs:
            return
        x, labels = trainer.datamodule.split("test", module.device)  # type: ignore[attr-defined]
        proven, exact = distances(module.network, x, labels)
        send(trainer, trainer.current_epoch, {"wasserstein/proven": proven, "wasserstein/exact": exact})

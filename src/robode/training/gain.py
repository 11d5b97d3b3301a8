"""The gain of a field, lowered while training finds directions and raised where they do not suffice."""

from __future__ import annotations

import torch
from lightning import Callback, Trainer
from torch import Tensor

from robode.errors import BadInput
from robode.training.module import OfStep, Training

PUBLISHED = 54.6 / 120
"""Share of the training within which the published factor, .9999 in each of 844 steps an epoch, takes 100 to 1."""


class GainSchedule(Callback):
    """Moves `flow.gain` after each optimiser step by the share q of violated conditions that an objective notes
    (`lyapunov_violated`, `barrier_violated`):

        up to the epoch turn * epochs: where q < fall_below and gain > least, gain *= factor
        after it: where q > rise_above and gain < most, gain /= factor

    As LyaNet's training does it, with factor = .9999 (there gain *= 1.0001 upwards). factor: "auto" is that of a
    training of any length which takes gain from 100 to 1 in the same share of its steps. The gain is in the flow's
    state dict and in the log (flow/gain); nothing is read from the device.

    Raises:
        BadInput: least > most, or (at the start) a flow without a gain, or no objective that notes a violation.
    """

    def __init__(
        self,
        factor: float | str = "auto",
        turn: float = 0.5,
        least: float = 1.0,
        most: float = 100.0,
        fall_below: float = 0.7,
        rise_above: float = 0.1,
    ):
        if least > most:
            raise BadInput(
                f"callbacks.gain_schedule.least: expected at most callbacks.gain_schedule.most={most}, got {least}"
            )
        self.factor, self.turn, self.least, self.most = factor, turn, least, most
        self.fall_below, self.rise_above = fall_below, rise_above

    def on_fit_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        if not isinstance(getattr(module.network.flow, "gain", None), Tensor):
            name = type(module.network.flow).__name__
            raise BadInput(f"callbacks.gain_schedule: expected a model with a gain (data_node, lyanet), got {name}")

    def on_train_batch_end(self, trainer: Trainer, module: Training, *step: OfStep) -> None:  # type: ignore[override]
        violated = violation(module)
        gain: Tensor = module.network.flow.gain  # type: ignore[assignment]
        factor = self._factor(trainer)
        if trainer.current_epoch <= self.turn * (trainer.max_epochs or 0):
            moves, by = (violated < self.fall_below) & (gain > self.least), factor
        else:
            moves, by = (violated > self.rise_above) & (gain < self.most), 1 / factor
        with torch.no_grad():
            gain.mul_(torch.where(moves, by, 1.0))

    def _factor(self, trainer: Trainer) -> float:
        if not isinstance(self.factor, str):
            return self.factor
        return float((self.least / self.most) ** (1 / max(1.0, PUBLISHED * float(trainer.estimated_stepping_batches))))


def violation(module: Training) -> Tensor:
    """What the objectives noted of the last step. Raises `BadInput` where none does."""
    for objective in module.objectives.values():
        for name, value in objective.notes().items():
            if name.endswith("_violated"):
                return value
    names = ", ".join(module.objectives)
    raise BadInput(
        f"callbacks.gain_schedule: expected objective=lyapunov_mc or barrier, which note what they find violated, got "
        f"{names}; set callbacks=[default,robustness_sweep]"
    )

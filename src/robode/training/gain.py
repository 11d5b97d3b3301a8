"""The gain of a field, lowered while training finds directions and raised where they do not suffice."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning import Callback, Trainer
from torch import Tensor

from robode.errors import BadInput
from robode.families.data_node import DataNode
from robode.network import Network
from robode.objectives.objective import Objective
from robode.training.module import OfStep, Training

PUBLISHED = 54.6 / 120
"""Share of the training within which the published factor, .9999 in each of 844 steps an epoch, takes 100 to 1."""


class GainSchedule(Callback):
    """Moves `flow.gain` after each optimiser step by the share q of violated conditions that an objective notes
    (`lyapunov_violated`, `barrier_violated`):

        up to the epoch turn * epochs: where q < fall_below and gain > least, gain *= factor
        after it: where q > rise_above and gain < most, gain /= factor

    most: null is the gain that the flow begins with. As LyaNet's training does it, with factor = .9999 (there gain
    *= 1.0001 upwards). factor: "auto" is that of a training of any length which takes the gain from `most` to `least`
    in the same share of its steps. The gain is in the flow's state dict and in the log (flow/gain); nothing is read
    from the device.

    Raises:
        BadInput: least > most; a flow without a gain, or one that begins below least, or no objective that notes a
            violation (`check`).
    """

    def __init__(
        self,
        factor: float | str = "auto",
        turn: float = 0.5,
        least: float = 1.0,
        most: float | None = None,
        fall_below: float = 0.7,
        rise_above: float = 0.1,
    ):
        if most is not None and least > most:
            raise BadInput(f"callbacks.gain_schedule.least: expected at most most={most}, got {least}")
        self.factor, self.turn, self.least, self.most = factor, turn, least, most
        self.fall_below, self.rise_above = fall_below, rise_above

    def check(self, network: Network, objectives: Mapping[str, Objective]) -> None:
        """Raises `BadInput` for a network, or objectives, that it makes no sense for."""
        if not isinstance(network.flow, DataNode):
            name = type(network.flow).__name__
            raise BadInput(f"callbacks.gain_schedule: expected a model with a gain (lyanet, data_node), got {name}")
        if not any(each.violation for each in objectives.values()):
            raise BadInput(
                "callbacks.gain_schedule: expected objective=lyapunov_mc or barrier, which note what is violated, got "
                f"{', '.join(objectives)}; choose callbacks=[default,robustness_sweep]"
            )
        if self.least > network.flow.first_gain:
            raise BadInput(
                f"callbacks.gain_schedule.least: expected at most model.gain={network.flow.first_gain:g}, where it "
                f"begins, got {self.least:g}"
            )

    def on_train_start(self, trainer: Trainer, module: Training) -> None:  # type: ignore[override]
        """Works out the factor of one step."""
        flow = module.network.flow
        assert isinstance(flow, DataNode)  # `check`
        self._top = flow.first_gain if self.most is None else self.most
        if isinstance(self.factor, str):
            steps = max(1.0, PUBLISHED * float(trainer.estimated_stepping_batches))
            self._step = float(max(1.0, self._top / self.least) ** (-1 / steps))
        else:
            self._step = self.factor

    def on_train_batch_end(self, trainer: Trainer, module: Training, *step: OfStep) -> None:  # type: ignore[override]
        """Moves the gain after each optimiser step."""
        gain: Tensor = module.network.flow.gain  # type: ignore[assignment]
        violated = violation(module.objectives)
        if trainer.current_epoch <= self.turn * (trainer.max_epochs or 0):
            moves, by = (violated < self.fall_below) & (gain > self.least), self._step
        else:
            moves, by = (violated > self.rise_above) & (gain < self._top), 1 / self._step
        with torch.no_grad():
            gain.mul_(torch.where(moves, by, 1.0))


def violation(objectives: Mapping[str, Objective]) -> Tensor:
    """What the first objective that has one noted of the last step, 0-d."""
    return next(each.notes()[each.violation] for each in objectives.values() if each.violation)

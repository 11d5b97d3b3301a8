"""What an attack on a classifier climbs, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from robode.errors import BadInput
from robode.tasks.losses import cross_entropy, dlr, dlr_targeted, fallen, margin, margin_targeted
from robode.tasks.task import Task

__all__ = ["LOSSES", "Loss", "cross_entropy", "dlr", "dlr_targeted", "failing", "fallen", "loss_named", "margin",
           "margin_targeted"]  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: Mapping[str, Loss] = MappingProxyType({"ce": cross_entropy, "margin": margin, "dlr": dlr})


def loss_named(name: str | None, task: Task | None = None) -> Loss:
    """One of the task's losses; the first one for None. task: None for classification. Raises BadInput for another."""
    losses = LOSSES if task is None else task.attack_losses
    if name is None:
        return next(iter(losses.values()))
    if not isinstance(name, str) or name not in losses:
        whose = "" if task is None else f" for a {task.name} task"
        raise BadInput(f"loss={name}: expected one of {', '.join(losses)}{whose}")
    return losses[name]


def failing(task: Task | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """(output, target) -> where there is nothing left to do, (B,) bool. task: None for classification."""
    return fallen if task is None else task.failed

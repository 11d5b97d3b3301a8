"""What an attack climbs: one number for each sample, larger is worse for the network.

Sources: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020 (DLR); Carlini and Wagner 2017 (margin).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from robode.errors import BadInput
from robode.tasks.task import Task

Loss = Callable[[Tensor, Tensor], Tensor]

TINY = 1e-12
"""Keeps the quotient of DLR finite where the logits are all equal."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)_y: (B,). Vanishes, with its gradient, where the network is sure of itself."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y: (B,), positive exactly for wrong answers."""
    return _best_other(logits, labels) - _own(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, (max_{j != y} z_j - z_y) / (z_(1) - z_(3)): (B,), blind to shift and scale.

    z_(k): the k-th largest logit. Raises BadInput for fewer than 3 classes.
    """
    _need(logits, 3, "dlr")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2): (B,). Raises BadInput for fewer than 4 classes."""
    _need(logits, 4, "targeted dlr")
    top = logits.topk(4, dim=1).values
    return margin_targeted(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y: (B,). For data with too few classes for `dlr_targeted`."""
    return _own(logits, targets) - _own(logits, labels)


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


def fallen(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the answer is wrong, (B,) bool; logits that are not finite are wrong answers."""
    return (logits.argmax(dim=1) != labels) | ~logits.isfinite().all(dim=1)


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


def _best_other(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)


def _need(logits: Tensor, classes: int, name: str) -> None:
    if logits.shape[1] < classes:
        raise BadInput(f"loss: {name} needs at least {classes} classes, got {logits.shape[1]}; use margin")

"""What an attack on a classifier climbs: one number for each sample, larger is worse for the network.

Sources: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020 (DLR); Carlini and Wagner 2017 (margin).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from robode.errors import BadInput

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

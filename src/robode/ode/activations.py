"""Activations with the slope bound S that Theorem 1 needs: 0 <= sigma'(z) <= S for every z."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robode.errors import BadInput

LEAK = 0.01


@dataclass(frozen=True)
class Activation:
    """An elementwise activation sigma, its derivative and the sharp bound S on its slope."""

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    slope_bound: float

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)


def _leaky_slope(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, LEAK))


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("tanh", torch.tanh, lambda z: 1 - torch.tanh(z).square(), 1.0),
        Activation("relu", F.relu, lambda z: (z > 0).to(z.dtype), 1.0),
        Activation("leaky_relu", lambda z: F.leaky_relu(z, LEAK), _leaky_slope, 1.0),
        Activation("sigmoid", torch.sigmoid, lambda z: torch.sigmoid(z) * torch.sigmoid(-z), 0.25),
        Activation("softplus", F.softplus, torch.sigmoid, 1.0),
    )
}


def named_activation(name: str) -> Activation:
    """The activation of that name. Raises `BadInput` listing the choices."""
    if name not in ACTIVATIONS:
        raise BadInput(f"model.activation: expected one of {', '.join(ACTIVATIONS)}, got '{name}'")
    return ACTIVATIONS[name]

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
class Kernel:
    """sigma(z) = p s(a z) + q with a function s that is cheap and may overwrite its argument."""

    s: Callable[[Tensor], Tensor]
    a: float = 1.0
    p: float = 1.0
    q: float = 0.0


@dataclass(frozen=True)
class Activation:
    """An elementwise activation sigma, its derivative, the sharp bound S on its slope, and the kernel of its layers."""

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    slope_bound: float
    kernel: Kernel

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)


def _tanh_slope(z: Tensor) -> Tensor:
    return 4 * torch.sigmoid(2 * z) * torch.sigmoid(-2 * z)


def _leaky_slope(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, LEAK))


def _sigmoid_slope(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


# On a CPU torch's tanh takes eight times as long as its sigmoid and tanh(z) = 2 sigmoid(2 z) - 1; a layer can absorb
# the three constants into its matrices.
TANH_KERNEL = Kernel(torch.sigmoid_, a=2.0, p=2.0, q=-1.0)

ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("tanh", torch.tanh, _tanh_slope, 1.0, TANH_KERNEL),
        Activation("relu", F.relu, lambda z: (z > 0).to(z.dtype), 1.0, Kernel(torch.relu_)),
        Activation(
            "leaky_relu", lambda z: F.leaky_relu(z, LEAK), _leaky_slope, 1.0, Kernel(lambda z: F.leaky_relu_(z, LEAK))
        ),
        Activation("sigmoid", torch.sigmoid, _sigmoid_slope, 0.25, Kernel(torch.sigmoid_)),
        Activation("softplus", F.softplus, torch.sigmoid, 1.0, Kernel(F.softplus)),
    )
}


def named_activation(name: str) -> Activation:
    """The activation of that name. Raises `BadInput` listing the choices."""
    if name not in ACTIVATIONS:
        raise BadInput(f"model.activation: expected one of {', '.join(ACTIVATIONS)}, got '{name}'")
    return ACTIVATIONS[name]

"""The antiderivatives sigma~ of the activations, sigma~' = sigma: what energies are made of (CH-NODE paper, Eq. 8)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.special import spence
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.activations import Activation


def _log_cosh(z: Tensor) -> Tensor:
    return z.abs() + torch.log1p(torch.exp(-2 * z.abs())) - math.log(2)


def _of_softplus(z: Tensor) -> Tensor:
    """-Li_2(-e^z), by its reflection z^2/2 + pi^2/6 + Li_2(-e^-z) for z > 0."""
    below = torch.from_numpy(-spence(1 + torch.exp(-z.abs()).cpu().numpy())).to(z)
    return torch.where(z > 0, z.square() / 2 + math.pi**2 / 6 - below, below)


POTENTIALS: dict[str, Callable[[Tensor, Activation], Tensor]] = {
    "tanh": lambda z, sigma: _log_cosh(z),
    "relu": lambda z, sigma: z * sigma(z) / 2,
    "leaky_relu": lambda z, sigma: z * sigma(z) / 2,
    "sigmoid": lambda z, sigma: torch.logaddexp(z, torch.zeros_like(z)),
    "softplus": lambda z, sigma: _of_softplus(z),
}


def potential(sigma: Activation, z: Tensor) -> Tensor:
    """sigma~(z), elementwise, up to a constant; z in float64. Raises `BadInput` for an activation whose antiderivative
    is not known here."""
    if sigma.name not in POTENTIALS:
        raise BadInput(f"model.activation: expected one of {', '.join(POTENTIALS)} for an energy, got {sigma.name}")
    return POTENTIALS[sigma.name](z, sigma)

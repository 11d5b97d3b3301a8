"""Leaky activations: their slopes lie in [alpha, 1], so that sigma(A u) - sigma(A v) = D A (u - v) with a diagonal D of
entries in [alpha, 1]. They are what the log-norm of a field sigma(A u + b) can be controlled with (docs/theory.md,
section 20)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from robode.errors import BadInput
from robode.linalg.activations import Activation, Kernel


def smooth_leaky(alpha: float) -> Activation:
    """alpha z + (1 - alpha) log(1 + e^z), infinitely smooth."""

    def sigma(z: Tensor) -> Tensor:
        return alpha * z + (1 - alpha) * F.softplus(z)

    def turning(slope: Tensor) -> tuple[Tensor]:
        return (torch.logit(((slope - alpha) / max(1 - alpha, 1e-300)).clamp(0.0, 1.0)),)

    return Activation(
        "smooth_leaky", sigma, lambda z: alpha + (1 - alpha) * torch.sigmoid(z), (alpha, 1.0), Kernel(sigma), turning,
        jump=(1 - alpha) * 1e-8,  # of torch's softplus, see `ACTIVATIONS`
    )  # fmt: skip


def leaky_tanh(alpha: float) -> Activation:
    """z for z >= 0, tanh z down to -z0 with tanh'(-z0) = alpha, and from there the line of slope alpha: once
    continuously differentiable."""
    root = math.sqrt(1 - alpha)
    z0 = math.atanh(root) if alpha < 1 else 0.0
    offset = alpha * z0 - root

    def sigma(z: Tensor) -> Tensor:
        return torch.where(z >= 0, z, torch.where(z >= -z0, torch.tanh(z), alpha * z + offset))

    def derivative(z: Tensor) -> Tensor:
        inner = 4 * torch.sigmoid(2 * z) * torch.sigmoid(-2 * z)
        return torch.where(z >= 0, torch.ones_like(z), torch.where(z >= -z0, inner, torch.full_like(z, alpha)))

    def turning(slope: Tensor) -> tuple[Tensor]:
        return (-torch.acosh(slope.clamp(max(alpha, 1e-300), 1.0).rsqrt()),)

    return Activation("leaky_tanh", sigma, derivative, (alpha, 1.0), Kernel(sigma), turning)


def leaky_relu(alpha: float) -> Activation:
    """z for z >= 0, alpha z below: difference quotients lie in [alpha, 1] across the kink too."""

    def sigma(z: Tensor) -> Tensor:
        return F.leaky_relu(z, alpha)

    def derivative(z: Tensor) -> Tensor:
        return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, alpha))

    return Activation(
        "leaky_relu", sigma, derivative, (alpha, 1.0), Kernel(sigma), lambda slope: (torch.zeros_like(slope),)
    )


LEAKY: dict[str, Callable[[float], Activation]] = {
    "smooth_leaky": smooth_leaky,
    "leaky_tanh": leaky_tanh,
    "leaky_relu": leaky_relu,
}


def leaky_activation(name: str, alpha: float) -> Activation:
    """The leaky activation of that name with slopes in [alpha, 1].

    Raises:
        BadInput: an unknown name, or alpha outside (0, 1].
    """
    if name not in LEAKY:
        raise BadInput(f"model.activation: expected one of {', '.join(LEAKY)}, got '{name}'")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 1:
        raise BadInput(f"model.alpha: expected a number in (0, 1], the least slope of the activation, got {alpha}")
    return LEAKY[name](float(alpha))

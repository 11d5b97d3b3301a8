"""Activations: what layers of robode compute, with the range of their slopes and what enclosures need to know of them;
and the steepest slopes of torch's activation modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
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
    """An elementwise activation sigma and its derivative.

    slopes: (lo, hi), lo <= sigma'(z) <= hi for every z, both sharp. Certificates allow for slopes from 0 to hi, the S
    of Theorem 1. kernel: how its layers compute it.
    turning: the t with sigma'(t) = slope, for slopes in [0, hi], or where sigma' jumps past it. With the ends of an
    interval they are the only places where sigma(t) - slope t can be extreme; None: not known, no enclosure.
    jump: by how much torch's function jumps, at most.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    slopes: tuple[float, float]
    kernel: Kernel
    turning: Callable[[Tensor], Sequence[Tensor]] | None = None
    jump: float = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    @property
    def slope_bound(self) -> float:
        """S, the largest slope."""
        return self.slopes[1]


def _tanh_slope(z: Tensor) -> Tensor:
    return 4 * torch.sigmoid(2 * z) * torch.sigmoid(-2 * z)


def _leaky_slope(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, LEAK))


def _sigmoid_slope(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _both(t: Tensor) -> tuple[Tensor, Tensor]:
    """For even derivatives that fall with |t|."""
    return t, -t


def _kink(slope: Tensor) -> tuple[Tensor]:
    return (torch.zeros_like(slope),)


# On a CPU torch's tanh takes eight times as long as its sigmoid and tanh(z) = 2 sigmoid(2 z) - 1; a layer can absorb
# the three constants into its matrices.
TANH_KERNEL = Kernel(torch.sigmoid_, a=2.0, p=2.0, q=-1.0)

ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "tanh", torch.tanh, _tanh_slope, (0.0, 1.0), TANH_KERNEL,
            lambda slope: _both(torch.acosh(slope.clamp(1e-300, 1.0).rsqrt())),
        ),
        Activation("relu", F.relu, lambda z: (z > 0).to(z.dtype), (0.0, 1.0), Kernel(torch.relu_), _kink),
        Activation(
            "leaky_relu", lambda z: F.leaky_relu(z, LEAK), _leaky_slope, (LEAK, 1.0),
            Kernel(lambda z: F.leaky_relu_(z, LEAK)), _kink,
        ),
        Activation(
            "sigmoid", torch.sigmoid, _sigmoid_slope, (0.0, 0.25), Kernel(torch.sigmoid_),
            lambda slope: _both(2 * torch.acosh((4 * slope.clamp(1e-300, 0.25)).rsqrt())),
        ),
        Activation(
            "softplus", F.softplus, torch.sigmoid, (0.0, 1.0), Kernel(F.softplus),
            lambda slope: (torch.logit(slope.clamp(0.0, 1.0)),),
            jump=1e-8,  # torch replaces softplus(z) by z above 20, which is a jump of 2e-9
        ),
    )
}  # fmt: skip


def named_activation(name: str) -> Activation:
    """The activation of that name. Raises `BadInput` listing the choices."""
    if name not in ACTIVATIONS:
        raise BadInput(f"model.activation: expected one of {', '.join(ACTIVATIONS)}, got '{name}'")
    return ACTIVATIONS[name]


# ---- torch's modules: the steepest slope of each, for its parameters ------------------------------------------------

SOFTPLUS_LEAST, SOFTPLUS_MOST = 15.0, 88.0  # thresholds with a constant; see `_softplus`


def _softplus(layer: nn.Softplus) -> float:
    """1, the supremum of sigmoid(beta x), the slope of log(1 + exp(beta x))/beta.

    torch gives x itself where beta x > threshold and so jumps down there, by log(1 + exp(-threshold))/beta: 2.1e-9/beta
    at its default 20. Across a jump quotients have no bound; this constant is of the function without it, and the jump
    is neglected as float32's rounding is. From 15 on it is less than that: exp(-15)/15 = 2.0e-8 of the value, below the
    half unit in the last place 2^-25, so that both sides of the threshold are the same float32 function, up to its
    rounding. Above 88 exp(beta x) exceeds float32 short of the threshold and the layer gives inf.
    """
    if 0 < layer.beta < math.inf and SOFTPLUS_LEAST <= layer.threshold <= SOFTPLUS_MOST:
        return 1.0
    raise BadInput(
        f"expected Softplus with beta > 0 and a threshold from {SOFTPLUS_LEAST:g} to {SOFTPLUS_MOST:g} (below it jumps "
        f"by more than float32 rounds, above it overflows), got beta={layer.beta:g}, threshold={layer.threshold:g}"
    )


def _always(slope: float) -> Callable[[nn.Module], float]:
    return lambda layer: slope


# sup |sigma'|, rounded up in the last digit; all of them are continuous. Written max(parameter, 1.0), nan stays nan.
STEEPEST: dict[type[nn.Module], Callable[[Any], float]] = {
    nn.ReLU: _always(1.0),
    nn.ReLU6: _always(1.0),
    nn.Hardtanh: _always(1.0),
    nn.Tanh: _always(1.0),
    nn.Softsign: _always(1.0),
    nn.LogSigmoid: _always(1.0),
    nn.Sigmoid: _always(0.25),
    nn.SELU: _always(1.758099341),
    nn.SiLU: _always(1.099839321),  # at the root of 2 + x (1 - 2 sigmoid(x)) = 0, x = 2.399
    # Phi(x) + x phi(x) is largest at x = sqrt 2; the tanh approximation's slope is at most 1.128994
    nn.GELU: lambda layer: 1.128904146 if layer.approximate == "none" else 1.129,
    nn.Softplus: _softplus,
    nn.LeakyReLU: lambda layer: max(abs(layer.negative_slope), 1.0),
    nn.PReLU: lambda layer: max(float(layer.weight.abs().max()), 1.0),
    nn.ELU: lambda layer: max(abs(layer.alpha), 1.0),
}

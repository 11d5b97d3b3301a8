"""Certified Lipschitz constants of torch's activations: the steepest slope of each, for its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from robode.errors import BadInput

SOFTPLUS_LEAST, SOFTPLUS_MOST = 15.0, 88.0  # thresholds with a constant; see `_softplus`


def _softplus(layer: Any) -> float:
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


def _always(slope: float) -> Callable[[Any], float]:
    return lambda layer: slope


# sup |sigma'|, rounded up in the last digit; all of them are continuous. Written max(parameter, 1.0), nan stays nan.
ACTIVATIONS: dict[type, Callable[[Any], float]] = {
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

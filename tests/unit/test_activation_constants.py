"""Certified constants of torch's activations: no difference quotient is steeper, and one is as steep."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from robode.certificates.lipschitz import lipschitz
from robode.errors import BadInput
from robode.linalg.activations import SOFTPLUS_LEAST, SOFTPLUS_MOST

ACCEPTED = [
    nn.ReLU(), nn.ReLU6(), nn.Tanh(), nn.Softsign(), nn.LogSigmoid(), nn.Sigmoid(), nn.SELU(), nn.SiLU(), nn.GELU(),
    nn.GELU(approximate="tanh"), nn.Hardtanh(), nn.Hardtanh(-2.0, 0.3), nn.LeakyReLU(), nn.LeakyReLU(0.3),
    nn.LeakyReLU(3.0), nn.LeakyReLU(-2.0), nn.PReLU(), nn.PReLU(init=1.7), nn.PReLU(init=-1.7), nn.ELU(), nn.ELU(2.5),
    nn.ELU(-2.5), nn.ELU(0.1), nn.Softplus(), nn.Softplus(beta=3.0), nn.Softplus(0.2, 40.0),
    nn.Softplus(threshold=SOFTPLUS_LEAST),
]  # fmt: skip


def steepest_quotient(activation: nn.Module) -> float:
    """Over neighbours on a grid with every kink and jump between two of its points, in float64."""
    z = torch.cat([torch.linspace(-110, 110, 110_001), torch.linspace(-3, 3, 60_001)]).double().unique()
    values = activation.double()(z[:, None])[:, 0].detach()
    return float((values.diff() / z.diff()).abs().max())


@pytest.mark.parametrize("activation", ACCEPTED, ids=str)
def test_activations_have_their_steepest_quotient(activation: nn.Module) -> None:
    steepest = steepest_quotient(activation)
    assert steepest <= lipschitz(activation, (1,)) * (1 + 1e-9) and lipschitz(activation, (1,)) <= steepest * (1 + 3e-4)


@pytest.mark.parametrize(
    "softplus",
    [nn.Softplus(threshold=0.0), nn.Softplus(threshold=8.0), nn.Softplus(-1.0), nn.Softplus(math.nan),
     nn.Softplus(threshold=200.0), nn.Softplus(threshold=math.nan), nn.Softplus(0.0), nn.Softplus(math.inf)],
    ids=str,
)  # fmt: skip
def test_a_softplus_that_jumps_or_overflows_has_no_constant(softplus: nn.Softplus) -> None:
    with pytest.raises(BadInput, match="layer Softplus: expected Softplus with beta > 0 and a threshold from 15 to"):
        lipschitz(softplus, (1,))


def neighbours(x: float, count: int = 300) -> Tensor:
    """(2 count + 1,) consecutive float32 numbers around x."""
    bits = torch.tensor(x).view(torch.int32) + torch.arange(-count, count + 1, dtype=torch.int32)
    return bits.view(torch.float32)


def furthest(beta: float, threshold: float) -> float:
    """The largest |softplus(x) - x| around the threshold as float32 has it, in units in the last place."""
    x = neighbours(threshold / beta)
    return float((nn.Softplus(beta, threshold)(x) - x).abs().max() / x.diff().max())


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_jump_that_softplus_is_forgiven_is_float32_rounding(beta: float) -> None:
    for threshold in (SOFTPLUS_LEAST, 20.0, SOFTPLUS_MOST):
        assert furthest(beta, threshold) <= 1
    assert furthest(beta, 10.0) > 10 and furthest(beta, SOFTPLUS_MOST + 1) == math.inf
    assert steepest_quotient(nn.Softplus(threshold=0.0)) > 100


@pytest.mark.parametrize("activation", [nn.Hardshrink(), nn.Threshold(0.1, 20.0)], ids=str)
def test_other_activations_that_jump_are_refused(activation: nn.Module) -> None:
    assert steepest_quotient(activation) > 100
    with pytest.raises(BadInput, match="no certified constant is known"):
        lipschitz(activation, (1,))


@pytest.mark.parametrize("activation", [nn.LeakyReLU(math.nan), nn.ELU(math.nan), nn.PReLU(init=math.nan)], ids=str)
def test_a_slope_that_is_no_number_certifies_nothing(activation: nn.Module) -> None:
    assert lipschitz(activation, (1,)) == math.inf

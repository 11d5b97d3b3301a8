"""Leaky activations: slopes in [alpha, 1], both ends attained, across kinks too; derivatives by differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robode.errors import BadInput
from robode.linalg.leaky import LEAKY, leaky_activation
from robode.ode.enclosure import Enclosure

ALPHAS = (1e-6, 0.1, 0.5, 1.0)


@pytest.mark.parametrize("name", LEAKY)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_quotients_lie_between_alpha_and_1_and_reach_both(name: str, alpha: float) -> None:
    sigma = leaky_activation(name, alpha)
    z = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    quotients = sigma(z).diff() / z.diff()
    assert alpha - 1e-9 <= float(quotients.min()) <= alpha + 1e-9
    assert 1 - 1e-9 <= float(quotients.max()) <= 1 + 1e-9
    assert sigma.slopes == (alpha, 1.0)


@pytest.mark.parametrize("name", LEAKY)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_derivative_is_that_of_the_function(name: str, alpha: float) -> None:
    sigma = leaky_activation(name, alpha)
    z = torch.linspace(-8, 8, 1601, dtype=torch.float64) + 1e-3 * math.pi  # no kink within the differences
    h = 1e-6
    assert torch.allclose((sigma(z + h) - sigma(z - h)) / (2 * h), sigma.derivative(z), atol=1e-6)


@pytest.mark.parametrize("name", LEAKY)
def test_the_kernel_is_the_function(name: str) -> None:
    sigma, z = leaky_activation(name, 0.1), torch.linspace(-5, 5, 101)
    k = sigma.kernel
    assert torch.equal(k.p * k.s((k.a * z).clone()) + k.q, sigma(z))


@pytest.mark.parametrize("name", LEAKY)
@given(alpha=st.sampled_from(ALPHAS), centre=st.floats(-6, 6), radius=st.floats(1e-4, 8), seed=st.integers(0, 10_000))
def test_enclosures_hold_every_value(name: str, alpha: float, centre: float, radius: float, seed: int) -> None:
    sigma = leaky_activation(name, alpha)
    c = torch.tensor([[centre]], dtype=torch.float64)
    box = Enclosure(c, torch.full((1, 1, 1), radius, dtype=torch.float64), torch.zeros_like(c)).activated(sigma)
    t = centre + radius * (2 * torch.rand(2000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1)
    low, high = float(box.centre - box.radius), float(box.centre + box.radius)
    assert low - 1e-12 <= float(sigma(t).min()) and float(sigma(t).max()) <= high + 1e-12


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5, math.nan, True, "half"])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(BadInput, match=r"model.alpha: expected a number in \(0, 1\]"):
        leaky_activation("smooth_leaky", alpha)


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(BadInput, match="expected one of smooth_leaky, leaky_tanh, leaky_relu, got 'relu'"):
        leaky_activation("relu", 0.1)

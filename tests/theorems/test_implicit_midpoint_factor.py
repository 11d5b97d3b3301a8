"""The exact implicit midpoint step is nonexpansive where the field's logarithmic norm is at most 0, and stretches by at
most (1 + h mu/2)/(1 - h mu/2) where it is mu > 0 (docs/theory.md, section 10)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import eye, norm2, randn, random_field, skew_matrix, smallest_gamma

from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.linalg.activations import named_activation
from robode.ode.field import OneLayerField

SEEDS, METHOD = st.integers(0, 10**6), ImplicitMidpoint(tolerance=1e-10)
RELU = named_activation("relu")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.sampled_from([2, 4]), h=st.floats(0.01, 20), above=st.floats(1, 3))
def test_it_is_nonexpansive_where_the_ode_does_not(seed: int, n: int, h: float, above: float) -> None:
    J = skew_matrix("random", n, seed=seed)
    field = random_field(n, seed, J=J, scale=0.5)
    m, M = field.hessian_bounds()
    field = random_field(n, seed, J=J, scale=0.5, gamma=above * smallest_gamma(m, M, J))
    step = METHOD.step(field, 0.0, h)
    y = 3 * randn(n, 20, seed=seed + 3)
    bound = step.lipschitz()
    assert bound <= 1 and norm2(step.jacobian(y)) <= bound * (1 + 1e-7)
    quotients = (step(y[:, :10]) - step(y[:, 10:])).norm(dim=0) / (y[:, :10] - y[:, 10:]).norm(dim=0)
    assert float(quotients.max()) <= bound * (1 + 1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(2, 4), share=st.floats(0.05, 0.95))
def test_where_the_ode_is_not_its_constant_is_no_more_than_its_factor(seed: int, n: int, share: float) -> None:
    field = OneLayerField(randn(n, n, seed=seed), randn(n, 1, seed=seed + 1), named_activation("tanh"))
    h = 2 * share / field.lognorm()
    step = METHOD.step(field, 0.0, h)
    assert step.lipschitz() == pytest.approx((1 + share) / (1 - share), rel=1e-9)
    assert norm2(step.jacobian(randn(n, 20, seed=seed + 2))) <= step.lipschitz() * (1 + 1e-7)


def test_both_factors_are_attained() -> None:
    """f(y) = y where all entries are positive: h mu = 1 gives 3. A rotation keeps every length: 1."""
    growing = OneLayerField(eye(2), torch.zeros(2, 1).double(), RELU)
    step = METHOD.step(growing, 0.0, 1.0)
    assert norm2(step.jacobian(torch.ones(2, 1).double())) == pytest.approx(step.lipschitz()) == pytest.approx(3)
    turning = random_field(2, 0, gamma=0.0, scale=0.0, kappa=1.0)
    step = METHOD.step(turning, 0.0, 5.0)
    assert norm2(step.jacobian(randn(2, 3, seed=0))) == pytest.approx(1) == pytest.approx(step.lipschitz())


def test_from_h_mu_2_on_nothing_is_certified() -> None:
    field = OneLayerField(eye(2), torch.zeros(2, 1).double(), RELU)
    assert METHOD.step(field, 0.0, 2.0).lipschitz() == math.inf

"""Two solutions separate no faster than exp(t mu), mu the field's logarithmic norm, and some separate as fast
(docs/theory.md, section 2)."""

import itertools
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import randn, rk4

from robode.linalg.activations import named_activation
from robode.ode.field import OneLayerField

SEEDS = st.integers(0, 10**6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(2, 5), name=st.sampled_from(["tanh", "relu", "softplus"]))
def test_solutions_separate_no_faster_than_the_logarithmic_norm_says(seed: int, n: int, name: str) -> None:
    field = OneLayerField(randn(n, n, seed=seed), randn(n, 1, seed=seed + 1), named_activation(name))
    start = 2 * randn(n, 60, seed=seed + 2)
    end = rk4(lambda y: field(0.0, y), start, 0.5, 200)
    growth = (end[:, :30] - end[:, 30:]).norm(dim=0) / (start[:, :30] - start[:, 30:]).norm(dim=0)
    assert float(growth.max()) <= math.exp(0.5 * field.lognorm()) * (1 + 1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(2, 4))
def test_for_a_short_time_some_separate_as_fast(seed: int, n: int) -> None:
    """With ReLU a field is linear around a state with the worst slopes."""
    K, b = randn(n, n, seed=seed), randn(n, 1, seed=seed + 1)
    field = OneLayerField(K, b, named_activation("relu"))
    best, d, y = -math.inf, b, b
    for slopes in itertools.product((0.0, 1.0), repeat=n):
        D = torch.tensor(slopes, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(0.5 * (D[:, None] * K + (D[:, None] * K).T))
        if float(values[-1]) > best:
            best, d = float(values[-1]), vectors[:, -1:]
            y = torch.linalg.solve(K, torch.where(D > 0, 1.0, -1.0).double()[:, None] - b)
    speed = 1 + float(field(0.0, y).norm()) + float(torch.linalg.matrix_norm(K, 2))
    T, d = 1e-3 / speed**2, 1e-3 / speed * d  # so short that nothing leaves its linear piece
    apart = rk4(lambda z: field(0.0, z), torch.cat([y, y + d], 1), T, 10)
    rate = math.log(float((apart[:, 0] - apart[:, 1]).norm() / d.norm())) / T
    assert abs(rate - field.lognorm()) <= 1e-2 * speed

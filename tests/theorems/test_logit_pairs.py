"""The difference of two logits changes by at most sqrt(2) L |x' - x|, by |w_i - w_j| L behind a last matrix W, and no
smaller constants would do (docs/theory.md, section 15)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import norm2, randn
from torch import nn

from robode.certificates.radius import constants, row_distances

SEEDS = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS, classes=st.integers(2, 6), n=st.integers(1, 6), scale=st.floats(0.01, 100))
def test_rows_are_no_further_apart_than_sqrt_2_times_the_norm(seed: int, classes: int, n: int, scale: float) -> None:
    W = scale * randn(classes, n, seed=seed)
    found = row_distances(W)
    assert float(found.max()) <= math.sqrt(2) * norm2(W) * (1 + 1e-9)
    d = randn(n, 100, seed=seed + 1)
    moved = (W @ d)[:, None] - (W @ d)[None]
    assert bool((moved.abs() <= found[:, :, None] * d.norm(dim=0)).all())


def test_opposite_rows_attain_sqrt_2() -> None:
    W = torch.tensor([[3.0, 4.0], [-3.0, -4.0]]).double()
    assert float(row_distances(W)[0, 1]) == pytest.approx(10) == pytest.approx(math.sqrt(2) * norm2(W))


def test_two_logits_behind_no_last_matrix_attain_sqrt_2() -> None:
    """ReLU passes both on, so nothing of the product is lost: the pair's constant is that of opposite rows."""
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]))
        layer.bias.fill_(100)
        network = nn.Sequential(layer, nn.ReLU())
        x = torch.tensor([[0.0, 0.0], [0.6, 0.8]]).double()
        z = network(x)
    assert float((z[1] - z[0]) @ torch.tensor([1.0, -1.0]).double()) == pytest.approx(10)
    assert float(constants(network, (2,)).pairs[0, 1]) == pytest.approx(10)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_two_inputs_stay_below_the_pairs_of_a_chain_with_and_without_a_last_matrix(seed: int) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)]
    for network in (nn.Sequential(*layers), nn.Sequential(*layers, nn.ReLU())):
        network = network.double()
        pairs = constants(network, (3,)).pairs
        x, y = randn(200, 3, seed=seed), randn(200, 3, seed=seed + 1)
        with torch.no_grad():
            change = network(x) - network(y)
        differences = (change[:, :, None] - change[:, None, :]).abs()
        assert bool((differences <= pairs * (x - y).norm(dim=1)[:, None, None] * (1 + 1e-12)).all())

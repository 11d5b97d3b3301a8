"""Proximal gradient methods on the equations of a data set: what is said of them is true of their exact solutions."""

import numpy as np
import pytest
import torch
from small_runs import composed
from test_lecture_and_poster import collected

from robode.data.sparse_regression import SparseRegression
from robode.errors import BadInput
from robode.papers.figures.proximal import Settled
from robode.quantities.proximal import Proximal, duality_gap, iterations, minimiser, off_by
from robode.training.assembly import build_data

GAMMA = 0.05
SHAPES = {"overdetermined": (200, 50), "underdetermined": (40, 100)}


def equations(n, d):
    train, _ = SparseRegression(n, d).load()
    return train.x.double(), train.target[:, 0].double()


def ended(name, K, y, count):
    return iterations(K, y, GAMMA)[name].proven().run(torch.ones(1, K.shape[1], dtype=torch.float64), count).x[0]


def lasso_of_coordinates(K, y, sweeps=3000):
    """The minimiser by coordinate descent, which shares no line with ISTA."""
    w, squares = torch.zeros(K.shape[1], dtype=torch.float64), K.square().sum(0)
    residual = y.clone()
    for _ in range(sweeps):
        for j in range(len(w)):
            inner = float(K[:, j] @ residual + squares[j] * w[j])
            new = np.sign(inner) * max(abs(inner) - GAMMA, 0) / float(squares[j])
            residual += K[:, j] * (float(w[j]) - new)
            w[j] = new
    return w


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_proven_rate_of_ridge_is_that_of_its_eigenvalues(shape):
    K, y = equations(*shape)
    eigenvalues = np.linalg.eigvalsh(K.numpy().T @ K.numpy()).clip(0) + GAMMA
    iteration = iterations(K, y, GAMMA)["ridge"]
    assert iteration.T.lipschitz == pytest.approx(1 - eigenvalues[0] / eigenvalues[-1], abs=1e-9)
    assert off_by("ridge", K, y, ended("ridge", K, y, 2000), GAMMA) <= 20 * iteration.T.lipschitz**2000 + 1e-13


def test_without_strong_convexity_only_the_averaged_theorem_is_used():
    K, y = equations(*SHAPES["underdetermined"])
    assert {name: each.theorem for name, each in iterations(K, y, GAMMA).items()} == {
        "ridge": "contraction", "box": "averaged", "lasso": "averaged",
    }  # fmt: skip


def test_projected_gradient_ends_in_the_exact_minimiser_of_the_box():
    K, y = equations(*SHAPES["overdetermined"])
    w, least = ended("box", K, y, 2000), minimiser("box", K, y, GAMMA)
    assert float((w - least).norm()) <= 1e-10 and 0 <= float(w.min()) and float(w.max()) <= 1
    assert off_by("box", K, y, torch.full_like(w, 0.5), GAMMA) > 0.01


def test_ista_ends_in_the_minimiser_that_coordinate_descent_finds_and_the_gap_says_so():
    K, y = equations(60, 15)
    w = ended("lasso", K, y, 4000)
    assert float((w - lasso_of_coordinates(K, y, 200)).norm()) <= 1e-9
    gradient = K.mT @ (K @ w - y)
    active = w != 0
    assert 0 < int(active.sum()) < 15
    assert float((gradient + GAMMA * w.sign())[active].abs().max()) <= 1e-10
    assert float(gradient[~active].abs().max()) <= GAMMA
    assert abs(duality_gap(K, y, w, GAMMA)) <= 1e-12


def test_the_gap_is_never_below_what_is_missing_to_the_minimum():
    K, y = equations(*SHAPES["underdetermined"])
    best = ended("lasso", K, y, 20_000)

    def loss(w):
        return float((K @ w - y).square().sum() / 2 + GAMMA * w.abs().sum())

    generator = torch.Generator().manual_seed(0)
    for size in (0.0, 1e-3, 0.1, 2.0):
        w = best + size * torch.randn(100, dtype=torch.float64, generator=generator)
        assert duality_gap(K, y, w, GAMMA) >= loss(w) - loss(best) - 1e-12


def test_it_is_measured_and_drawn(tmp_path):
    config = composed("data=sparse_regression", "data.source.n=40", "data.source.d=10", "model=mlp", "depth=1")
    data = build_data(config)
    data.prepare()
    quantity = Proximal(steps=300)
    assert quantity.refusal(data.info) is None
    numbers = {row["quantity"]: row["value"] for row in quantity.measure(None, data, tmp_path)}
    assert set(numbers) == set(quantity.gives)
    assert numbers["ridge_rate_seen"] <= numbers["ridge_rate"] * (1 + 1e-9) < 1
    assert numbers["rotation"] == pytest.approx(2 * np.sin(0.5)) and numbers["rotation_averaged"] < 1e-3
    with np.load(tmp_path / "proximal.npz") as file:
        for name in ("ridge", "box", "lasso"):
            assert (file[f"{name}_steps"] <= file[f"{name}_bound"] * (1 + 1e-6) + 1e-12).all()
    ((_, figure, _, _),) = Settled().draw(collected(tmp_path))
    assert len(figure.axes) == 2
    assert Settled(seed=2).draw(collected(tmp_path)) == []


def test_what_makes_no_sense_is_refused():
    with pytest.raises(BadInput, match=r"data\.source\.nonzero: expected at most data\.source\.d=4, got 8"):
        SparseRegression(10, 4)
    with pytest.raises(BadInput, match="gamma > 0"):
        Proximal(gamma=0.0)
    data = build_data(composed("data=double_moons", "model=mlp"))
    assert "sparse_regression" in Proximal().refusal(data.info)

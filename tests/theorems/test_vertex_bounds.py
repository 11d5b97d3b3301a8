"""Extremal slopes: the constants of a field or layer with one hidden layer sit at slopes that are all 0 or S, no state
exceeds them, and with ReLU some states attain them (docs/theory.md, section 11)."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import eye, norm2, randn, skew_matrix
from torch import Tensor

from robode.families.residual import ResidualField
from robode.linalg.activations import ACTIVATIONS, named_activation
from robode.linalg.skew import Skew
from robode.ode.field import GradientField, OneLayerField
from robode.ode.layer import Layer

SEEDS, WIDTHS = st.integers(0, 10**6), st.integers(2, 5)
NEURONS = st.integers(1, 6)
RELU = named_activation("relu")


def corners(n: int) -> list[Tensor]:
    return [torch.tensor(d, dtype=torch.float64) for d in itertools.product((0.0, 1.0), repeat=n)]


def state_with_slopes(D: Tensor, K: Tensor, b: Tensor) -> Tensor:
    """A state at which ReLU has the slopes D, well inside: K y + b = 1 or -1 in each entry. (n, 1)"""
    return torch.linalg.solve(K, torch.where(D > 0, 1.0, -1.0).double()[:, None] - b)


def inside(n: int, seed: int) -> Tensor:
    """Slopes from all of the unit box, (200, n)."""
    return torch.rand(200, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, n=WIDTHS, k=NEURONS, name=st.sampled_from(sorted(ACTIVATIONS)))
def test_no_slopes_and_no_two_states_exceed_the_constant_of_a_layer(seed: int, n: int, k: int, name: str) -> None:
    shapes = (n, n), (n, k), (k, n), (k, 1)
    A, B, K, b = (randn(*shape, seed=seed + i) for i, shape in enumerate(shapes))
    layer = Layer(A, B, K, b, named_activation(name))
    (lo, hi), bound = layer.activation.slopes, layer.lipschitz()
    assert norm2(A + B @ torch.diag_embed(lo + (hi - lo) * inside(k, seed)) @ K) <= bound
    x, y = (torch.logspace(-2, 1, 300, dtype=torch.float64) * randn(n, 300, seed=seed + i) for i in (5, 6))
    assert float(((layer(x) - layer(y)).norm(dim=0) / (x - y).norm(dim=0)).max()) <= bound * (1 + 1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, n=WIDTHS)
def test_two_states_attain_the_constant_of_a_relu_layer(seed: int, n: int) -> None:
    A, B, K, b = (randn(n, m, seed=seed + i) for i, m in enumerate((n, n, n, 1)))
    layer = Layer(A, B, K, b, RELU)
    D = max(corners(n), key=lambda D: norm2(A + B @ torch.diag(D) @ K))
    y = state_with_slopes(D, K, b)
    d = torch.linalg.svd(A + B @ torch.diag(D) @ K).Vh[0][:, None] * 0.5 / norm2(K)
    quotient = float((layer(y + d) - layer(y)).norm() / d.norm())
    assert abs(quotient / layer.lipschitz() - 1) <= 1e-6


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=SEEDS, n=WIDTHS, k=NEURONS)
def test_the_constants_of_two_matrices_are_those_of_their_worst_slopes(seed: int, n: int, k: int) -> None:
    """A^T sigma(B y + b) with ReLU, all 2^k slopes enumerated here; its Euler step stretches as far as they say."""
    A, B, b = randn(k, n, seed=seed), randn(k, n, seed=seed + 1), randn(k, 1, seed=seed + 2)
    field = ResidualField(A, B, b, RELU)
    every = [A.T @ torch.diag(D) @ B for D in corners(k)]
    worst = max(float(torch.linalg.eigvalsh(0.5 * (J + J.T))[-1]) for J in every)
    assert abs(field.lognorm() - worst) <= 1e-9 * (1 + abs(worst))
    assert abs(field.lipschitz() - max(map(norm2, every))) <= 1e-9 * field.lipschitz()
    step = field.euler(0.0, 0.3)
    assert abs(step.lipschitz() - max(norm2(eye(n) + 0.3 * J) for J in every)) <= 1e-9 * step.lipschitz()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, n=WIDTHS, gamma=st.floats(0, 3))
def test_the_logarithmic_norm_of_a_field_is_that_of_its_worst_slopes(seed: int, n: int, gamma: float) -> None:
    """From above over slopes inside the box, from below by the Jacobian at a state; for sigma(K y + b) and F grad V."""
    K, b = randn(n, n, seed=seed), randn(n, 1, seed=seed + 1)
    Q = 0.2 * eye(n)
    J = skew_matrix("random", n, seed=seed + 2)
    one, gradient = OneLayerField(K, b, RELU), GradientField(Skew(J), gamma, K, b, Q, RELU, 1.0)
    F = J - gamma * eye(n)
    for field, jacobian in (
        (one, lambda D: torch.diag_embed(D) @ K),
        (gradient, lambda D: F @ (K.T @ torch.diag_embed(D) @ K + Q)),
    ):
        bound = field.lognorm()
        assert steepest(jacobian(inside(n, seed))) <= bound
        D = max(corners(n), key=lambda D, jacobian=jacobian: steepest(jacobian(D)))
        attained = steepest(field.jacobian(0.0, state_with_slopes(D, K, b)))
        assert abs(attained - bound) <= 1e-7 * (1 + abs(bound))


def steepest(A: Tensor) -> float:
    """max lambda_max((A + A^T)/2) over a batch."""
    return float(torch.linalg.eigvalsh(0.5 * (A + A.mT))[..., -1].max())

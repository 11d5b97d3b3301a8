"""The worst case of a layer y -> A y + B sigma(K y + b), and the field constants, from both sides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from problems import eye, norm2, randn, random_field, skew_matrix
from torch import Tensor

from robode.families.node import MLPField
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.integrator import Integrator, SpectralIntegrator
from robode.linalg.activations import ACTIVATIONS, LEAK, Activation, named_activation
from robode.ode.field import OneLayerField
from robode.ode.layer import Layer, vertices, weighted_products

# An argument where the slope is at its supremum, and one where it is (almost) zero, for each activation.
STEEP_AND_FLAT = {"tanh": (0.0, 40.0), "relu": (1.0, -1.0), "sigmoid": (0.0, 90.0), "softplus": (60.0, -90.0)}


def corners(n: int) -> Iterator[Tensor]:
    return (torch.tensor(d, dtype=torch.float64) for d in itertools.product((0.0, 1.0), repeat=n))


def top_of_symmetric_part(A: Tensor) -> float:
    """Largest eigenvalue of (A + A^T)/2 over a batch."""
    return float(torch.linalg.eigvalsh(0.5 * (A + A.mT))[..., -1].max())


def enumerated(A: Tensor, B: Tensor, K: Tensor, S: float) -> tuple[float, Tensor]:
    """max ||A + B D K|| over D in {0, S}^n by plain enumeration, and where."""
    best, where = -1.0, torch.zeros(0)
    for corner in corners(K.shape[0]):
        value = norm2(A + B @ torch.diag(S * corner) @ K)
        if value > best:
            best, where = value, corner
    return best, where


def random_states(n: int, seed: int, count: int = 3000) -> Tensor:
    return randn(n, count, seed=seed) * torch.logspace(-2, 2, count, dtype=torch.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("integrator", [ETD(), IMEX(), Euler()])
def test_no_state_exceeds_the_layers_constant(activation: str, integrator: SpectralIntegrator) -> None:
    for n, h, scale in ((3, 0.4, 1.0), (4, 5.0, 0.2), (2, 0.01, 10.0), (12, 0.3, 0.5)):
        J = skew_matrix("j2", n)
        field = random_field(n, seed=n, J=J, gamma=1.3, activation=activation, scale=scale)
        found = norm2(integrator.step(field, 0.0, h).jacobian(random_states(n, seed=5)))
        layer = integrator.step(field, 0.0, h)
        assert found <= layer.lipschitz()
        assert found <= integrator.step(field, 0.0, h).lipschitz() <= layer.lipschitz()


@pytest.mark.parametrize("activation", STEEP_AND_FLAT)
@pytest.mark.parametrize("integrator", [ETD(), Euler()])
def test_the_constant_is_the_enumerated_one_and_is_attained(activation: str, integrator: SpectralIntegrator) -> None:
    for n, h in ((2, 0.5), (4, 0.1), (5, 2.0)):
        field = random_field(n, seed=n, J=skew_matrix("random", n, seed=1), gamma=0.9, activation=activation)
        layer = integrator.step(field, 0.0, h)
        S = field.activation.slope_bound
        expected, D = enumerated(layer.A, layer.B, layer.K, S)
        assert layer.lipschitz() == pytest.approx(expected, rel=1e-9) and layer.lipschitz() >= expected
        steep, flat = STEEP_AND_FLAT[activation]
        z = torch.where(D > 0, steep, flat)[:, None]
        y = torch.linalg.solve(layer.K, z - layer.b)
        assert norm2(integrator.step(field, 0.0, h).jacobian(y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_slopes_and_bounds(name: str) -> None:
    act: Activation = named_activation(name)
    z = torch.linspace(-30, 30, 20001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(act(z).sum(), z)
    # 1e-8: torch's softplus is linear past 20
    torch.testing.assert_close(act.derivative(z.detach()), slope, rtol=0, atol=1e-8)
    assert float(slope.min()) >= 0
    assert 0.999 * act.slope_bound <= float(slope.max()) <= act.slope_bound
    if name == "leaky_relu":
        assert float(slope.min()) == LEAK


def test_jacobian_is_autograds() -> None:
    field = random_field(4, seed=1)
    for integrator in (ETD(), IMEX(), Euler()):
        y = randn(4, 5, seed=2)
        expected = torch.autograd.functional.jacobian(lambda x, i=integrator: i.step(field, 0.0, 0.3)(x), y)
        for m in range(5):
            got = integrator.step(field, 0.0, 0.3).jacobian(y)[m]
            torch.testing.assert_close(got, expected[:, m, :, m], rtol=1e-10, atol=1e-12)


def test_wide_layers_get_a_cheaper_bound_that_still_holds() -> None:
    B, K, b = randn(14, 14, seed=1), randn(14, 14, seed=2), randn(14, 1, seed=3)
    layer = Layer(0.5 * eye(14), B, K, b, named_activation("tanh"))
    found = norm2(layer.jacobian(random_states(14, seed=4)))
    assert found <= layer.lipschitz() <= 0.5 + norm2(layer.B) * norm2(layer.K) * (1 + 1e-9)


def test_weighted_products_and_vertices() -> None:
    B, D, K = randn(3, 5, seed=1), randn(5, 7, seed=2), randn(5, 3, seed=3)
    expected = torch.stack([B @ torch.diag(D[:, m]) @ K for m in range(7)])
    torch.testing.assert_close(weighted_products(B, D, K), expected, rtol=1e-12, atol=1e-12)
    assert sorted(map(tuple, vertices(3, (0.1, 1.0)).tolist())) == sorted(itertools.product((0.1, 1.0), repeat=3))
    assert vertices(1, (0.0, 0.25)).tolist() == [[0.0], [0.25]]


@pytest.mark.parametrize("n", [2, 4, 13])
def test_one_layer_field_constants_hold_and_are_attained(n: int) -> None:
    field = OneLayerField(randn(n, n, seed=1), randn(n, 1, seed=2), named_activation("tanh"))
    y = random_states(n, seed=3)
    assert top_of_symmetric_part(field.jacobian(0.0, y)) <= field.lognorm()
    assert norm2(field.jacobian(0.0, y)) <= field.lipschitz()
    if n > 10:
        return
    best = max(top_of_symmetric_part(torch.diag(D) @ field.K) for D in corners(n))
    assert field.lognorm() == pytest.approx(best, rel=1e-8)
    assert field.lipschitz() == pytest.approx(norm2(field.K), rel=1e-8)


@pytest.mark.parametrize(("gamma", "n"), [(0.0, 4), (1.0, 4), (6.0, 4), (2.0, 13)])
def test_gradient_field_constants_hold_and_are_attained(gamma: float, n: int) -> None:
    field = random_field(n, seed=4, J=skew_matrix("j2", n), gamma=gamma, scale=0.7)
    y = random_states(n, seed=3)
    assert top_of_symmetric_part(field.jacobian(0.0, y)) <= field.lognorm()
    assert norm2(field.jacobian(0.0, y)) <= field.lipschitz()
    m, M = field.hessian_bounds()
    eigenvalues = torch.linalg.eigvalsh(field.hessian(y))
    assert m <= float(eigenvalues.min()) + 1e-12 and float(eigenvalues.max()) <= M
    if n <= 10:
        hessians = (field.K.T @ torch.diag(D) @ field.K + field.Q for D in corners(n))
        best = max(top_of_symmetric_part(field.F @ H) for H in hessians)
        assert field.lognorm() == pytest.approx(best, rel=1e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_field_bounds_lie_above_finite_differences(activation: str) -> None:
    sizes = [3, 9, 7, 3]
    weights = [randn(b, a, seed=i) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
    biases = [randn(b, 1, seed=10 + i) for i, b in enumerate(sizes[1:])]
    field = MLPField(weights, biases, named_activation(activation))
    y, d = random_states(3, seed=1), 1e-3 * randn(3, 3000, seed=2)
    difference = field(0.0, y + d) - field(0.0, y)
    assert float((difference.norm(dim=0) / d.norm(dim=0)).max()) <= field.lipschitz()
    assert float(((difference * d).sum(0) / d.square().sum(0)).max()) <= field.lognorm()
    assert Euler().step(field, 0.0, 0.3).lipschitz() >= norm2(eye(3) + 0.3 * field.jacobian(0.0, y))
    expected = torch.autograd.functional.jacobian(lambda x: field(0.0, x), y[:, :1])[:, 0, :, 0]
    torch.testing.assert_close(field.jacobian(0.0, y[:, :1])[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", [ETD(), IMEX(), Euler()], ids=lambda m: m.name)
def test_steps_through_several_fields_are_those_through_each_bit_by_bit(method: Integrator) -> None:
    """Matrices that are worked out at once, also where a field comes twice; with different gammas, one by one."""
    gamma, other_gamma, c, d = torch.tensor([1.1, 0.3, 0.9, 0.7], dtype=torch.float64)
    one = replace(random_field(4, seed=1, J=skew_matrix("j2", 4)), gamma=gamma, c=c)
    two = replace(random_field(4, seed=2), skew=one.skew, gamma=gamma, c=d)
    other = replace(two, gamma=other_gamma)
    y = randn(4, 5, seed=3)
    for fields in ([one, two, one], [one, other], [two]):
        found = method.steps(fields, 0.4)
        alone = [method.step(field, 0.0, 0.4) for field in fields]
        assert all(torch.equal(a(y), b(y)) for a, b in zip(found, alone, strict=True))
        assert [a.lipschitz() for a in found] == [b.lipschitz() for b in alone]

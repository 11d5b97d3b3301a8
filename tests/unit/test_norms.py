"""Certified norms: never below the truth, and close to it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import randn

from robode.linalg.norms import gram_norm_squared, largest_eigenvalue, smallest_eigenvalue, spectral_norms


def known(n: int, singular: list[float], seed: int) -> torch.Tensor:
    U, V = (torch.linalg.qr(randn(n, n, seed=seed + k)).Q for k in (0, 1))
    return U @ torch.diag(torch.tensor(singular, dtype=torch.float64)) @ V


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(-12, 12), min_size=1, max_size=8), st.integers(0, 1000))
def test_all_norms_bound_known_singular_values(exponents: list[float], seed: int) -> None:
    singular = [10**e for e in exponents]
    A = known(len(singular), singular, seed)
    top, n = max(singular) ** 2, len(singular)
    assert top * (1 - 1e-12) <= float(largest_eigenvalue(A)) <= top * (1 + 1e-9)
    assert top * (1 - 1e-12) <= float(gram_norm_squared(A)) <= top * n ** (1 / 2**9) * (1 + 1e-9)
    assert float(spectral_norms(A)) == pytest.approx(max(singular), rel=1e-12)
    rounding = 1e-14 * max(singular)
    assert float(smallest_eigenvalue(A)) <= (min(singular) + rounding) ** 2


def test_gram_bound_is_tight_for_one_direction_and_worst_for_the_identity() -> None:
    assert float(gram_norm_squared(known(8, [3.0] + [0.0] * 7, 1))) == pytest.approx(9, rel=1e-6)
    assert float(gram_norm_squared(torch.eye(8))) == pytest.approx(8 ** (1 / 512), rel=1e-6)
    assert 8 ** (1 / 512) < 1.0041


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1.0, 1e6, 1e15])
def test_gram_bound_does_not_overflow_and_is_homogeneous(scale: float) -> None:
    K = randn(3, 6, 6, seed=2)
    torch.testing.assert_close(gram_norm_squared(scale * K), scale**2 * gram_norm_squared(K), rtol=1e-9, atol=0)


def test_gram_bound_has_the_gradient_of_its_value_also_at_multiple_singular_values() -> None:
    for A in (randn(4, 4, seed=1), 2 * torch.eye(4, dtype=torch.float64)):
        assert torch.autograd.gradcheck(gram_norm_squared, (A.requires_grad_(),), eps=1e-6, atol=1e-5)


def test_gram_bound_of_zero_is_zero_with_a_finite_gradient() -> None:
    K = torch.zeros(2, 4, 4, requires_grad=True)
    value = gram_norm_squared(K)
    value.sum().backward()
    assert float(value.detach().abs().max()) < 1e-100
    assert K.grad is not None and bool(K.grad.isfinite().all())


def test_float32_weights_are_bounded_in_float64() -> None:
    K = torch.randn(50, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.svdvals(K.double())[:, 0].square()
    for bound in (largest_eigenvalue(K), gram_norm_squared(K)):
        assert bound.dtype == torch.float64
        assert bool((bound >= exact).all())


def test_smallest_eigenvalue_of_an_ill_conditioned_matrix_keeps_its_digits() -> None:
    A = torch.diag(torch.tensor([1.0, 1e-7], dtype=torch.float64))
    assert math.isclose(float(smallest_eigenvalue(A)), 1e-14, rel_tol=1e-6)
    assert float(smallest_eigenvalue(A)) <= 1e-14

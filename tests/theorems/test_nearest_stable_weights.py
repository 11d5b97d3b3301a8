"""The nearest weights with delta(W) <= target: certified after rounding, no farther than the optimum of cutting planes
allows, and the optimum is one (docs/theory.md, section 21)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import norm2
from slopes import delta, weights
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.definite import norm_above
from robode.ode import projection_cuts
from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm import euler_lipschitz
from robode.ode.lognorm_exact import maximum
from robode.ode.lognorm_upper import certified, upper_bound
from robode.ode.projection import METHODS, Certificate, stabilise

SEEDS = st.integers(0, 10**6)
WITHIN = 1.07  # of the smallest change, what one theta may cost


def gaussian(d: int, seed: int) -> Tensor:
    return weights("gaussian", d, seed).float()


@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=SEEDS, d=st.integers(2, 5), share=st.sampled_from([-0.5, 0.0, 0.1, 0.5, 0.95]))
@pytest.mark.parametrize("method", ["lmi", "scaling", "shift"])
def test_every_method_meets_the_target_and_its_certificate_survives_float32(
    method: str, seed: int, d: int, share: float
) -> None:
    A, alpha = gaussian(d, seed), 0.2
    target = share * delta(A, alpha)
    if method == "scaling" and target <= 0:
        return
    found = stabilise(A, target, alpha, method)
    assert found.W.dtype == torch.float32 and delta(found.W, alpha) <= found.bound <= target
    assert found.certificate is not None and found.certificate.bound(found.W, alpha) == found.bound
    assert found.distance == pytest.approx(float((found.W.double() - A.double()).norm()), rel=1e-12)
    again = stabilise(found.W, target, alpha, method, warm=found.certificate)
    assert torch.equal(again.W, found.W) and again.distance == 0


def test_weights_that_are_certified_come_back_bit_by_bit():
    A = gaussian(5, 0)
    for method in METHODS:
        kept = stabilise(A, delta(A, 0.2) + 0.05, 0.2, method)
        assert torch.equal(kept.W, A) and kept.distance == 0 and kept.bound <= delta(A, 0.2) + 0.05


def test_after_a_shift_theta_alone_need_not_certify_but_the_triple_does():
    A = gaussian(6, 1)
    target = -0.4 * delta(A, 0.1)
    found = stabilise(A, target, 0.1, "shift")
    assert found.certificate is not None and found.certificate.shift > 0
    assert found.certificate.bound(found.W, 0.1) <= target
    assert float(certified(scaled_rows(found.W, 0.1), found.certificate.theta[None])) > target
    assert Certificate(found.certificate.theta).bound(found.W, 0.1) > target
    for shift in (-3.0, 0.0, 2.0):  # any triple certifies
        for W in (found.W, A):
            assert Certificate(found.certificate.theta, shift).bound(W, 0.1) >= delta(W, 0.1)
    lifted = Certificate(
        torch.full((1,), 2.0, dtype=torch.float64), -3.0
    )  # 1 = (1 - 3) + 3: the slope that counts is 1
    assert lifted.bound(torch.ones(1, 1), 0.1) >= 1


def test_the_change_is_within_7_percent_of_the_smallest() -> None:
    compare_with_cutting_planes(gaussian(4, 0), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("d", [10, 16])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_change_is_within_7_percent_of_the_smallest_up_to_width_16(d: int, alpha: float, seed: int) -> None:
    compare_with_cutting_planes(gaussian(d, seed), alpha)


def compare_with_cutting_planes(A: Tensor, alpha: float) -> None:
    target = 0.5 * maximum(scaled_rows(A, alpha)).lower
    lmi, cuts = (stabilise(A, target, alpha, method) for method in ("lmi", "cuts"))
    for found in (lmi, cuts):
        assert maximum(scaled_rows(found.W, alpha)).upper <= target + 1e-6 and found.bound <= target
    assert maximum(scaled_rows(cuts.W, alpha)).lower >= target - 1e-4  # the target is attained
    assert 0.9995 * cuts.distance <= cuts.least <= cuts.distance <= lmi.distance <= WITHIN * cuts.distance
    scaling = stabilise(A, target, alpha, "scaling")
    assert lmi.distance < scaling.distance


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["skew", "negative definite", "orthogonal"])
def test_structured_weights_are_stabilised_too(kind: str) -> None:
    A = weights(kind, 8, 0)
    target = 0.5 * maximum(scaled_rows(A, 0.1)).lower
    lmi, cuts = (stabilise(A, target, 0.1, method) for method in ("lmi", "cuts"))
    assert delta(lmi.W, 0.1) <= target and delta(cuts.W, 0.1) <= target
    assert cuts.least <= cuts.distance <= lmi.distance <= 1.5 * cuts.distance


@pytest.mark.parametrize("method", ["lmi", "cuts", "two_level"])
def test_with_one_slope_the_eigenvalues_of_the_symmetric_part_are_clipped(method: str) -> None:
    """alpha = 1: delta is mu_2, and the projection has a closed form."""
    A, target = weights("gaussian", 5, 0), 0.2
    values = torch.linalg.eigvalsh(0.5 * (A + A.T))
    found = stabilise(A, target, 1.0, method)
    assert found.distance == pytest.approx(float((values - target).clamp_min(0).norm()), rel=2e-3)
    assert float(torch.linalg.eigvalsh(0.5 * (found.W + found.W.T))[-1]) <= target


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e12])
def test_weights_of_any_size_are_treated_alike(size: float) -> None:
    A = gaussian(4, 5)
    one, other = stabilise(A, 0.3, 0.1), stabilise(size * A.double(), size * 0.3, 0.1)
    assert other.distance == pytest.approx(size * one.distance, rel=2e-3) and other.bound <= size * 0.3
    nothing = stabilise(torch.zeros(3, 3), -0.5, 0.1).W
    torch.testing.assert_close(nothing, -5 * torch.eye(3), rtol=1e-4, atol=1e-6)


def test_no_admissible_weights_are_nearer_than_the_bound_of_cutting_planes():
    """Along segments from the optimum to other admissible weights, the set being convex, and even for few planes."""
    A = weights("gaussian", 4, 3)
    target = 0.5 * delta(A, 0.1)
    optimum = projection_cuts.nearest(A, target, 0.1)
    assert optimum.closed and delta(optimum.W, 0.1) <= target + 1e-4
    stopped = projection_cuts.nearest(A, target, 0.1, seconds=0.0)
    assert not stopped.closed and stopped.least <= optimum.least * (1 + 1e-9)
    for method in ("lmi", "scaling", "shift"):
        other = stabilise(A, target, 0.1, method).W
        assert float((other - A).norm()) >= optimum.least * (1 - 1e-9)
        middle = 0.5 * (other + optimum.W)
        assert delta(middle, 0.1) <= target + 1e-4
        # the variational inequality of a projection
        assert float(((A - optimum.W) * (other - optimum.W)).sum()) <= 1e-3 * float((other - optimum.W).norm())


def test_the_two_level_flow_comes_near_the_smallest_change_and_is_repaired():
    A = gaussian(5, 2)
    target = 0.5 * delta(A, 0.1)
    flow, cuts = (stabilise(A, target, 0.1, method) for method in ("two_level", "cuts"))
    assert delta(flow.W, 0.1) <= flow.bound <= target and flow.certificate is None
    assert cuts.least <= flow.distance <= 1.1 * cuts.distance


def test_a_warm_start_finds_what_a_cold_one_does():
    A = weights("gaussian", 5, 0)
    first = stabilise(A, 0.5, 0.1)
    moved = first.W + 0.02 * weights("gaussian", 5, 1) + 0.02 * torch.eye(5, dtype=torch.float64)
    assert delta(moved, 0.1) > 0.5
    proof = first.certificate
    warm, cold = stabilise(moved, 0.5, 0.1, warm=proof), stabilise(moved, 0.5, 0.1)
    assert warm.bound <= 0.5 and warm.distance <= 1.03 * cold.distance
    assert torch.equal(warm.W, stabilise(moved, 0.5, 0.1, warm=proof).W)
    elsewhere = stabilise(A, 0.5, 0.1, warm=Certificate(10 * first.certificate.theta.flip(0)))
    assert elsewhere.distance <= 1.03 * first.distance  # a bad start costs time alone


def test_a_stabilised_euler_network_stretches_no_more_than_the_target_says():
    A, target, steps = gaussian(6, 4), 0.1, 10
    found = stabilise(A, target, 0.1)
    W = found.W.double()
    bound = euler_lipschitz(found.bound, float(norm_above(W[None])), 1 / steps, steps)
    product = torch.eye(6, dtype=torch.float64).expand(300, 6, 6)
    for step in range(steps):
        D = 0.1 + 0.9 * torch.rand(300, 6, 1, generator=torch.Generator().manual_seed(step)).round().double()
        product = product + (D * W) @ product / steps
    assert (
        norm2(product)
        <= bound
        < euler_lipschitz(float(upper_bound(scaled_rows(A, 0.1)).value), norm2(A.double()), 0.1, 10)
    )


def test_what_cannot_be_stabilised_is_refused_in_one_line():
    A = gaussian(4, 0)
    for arguments, words in (
        ((A, 0.1, 0.0), "alpha: expected"),
        ((A, math.nan, 0.1), "delta: expected a finite target, got nan"),
        ((A, -0.1, 0.1, "scaling"), "delta: scaling reaches targets above 0, got -0.1"),
        ((A, -1e39, 0.1, "shift"), "delta: expected a target of at least -1.7e.37, which torch.float32 reaches"),
        ((A, 0.1, 0.1, "newton"), "method: expected one of lmi, cuts, scaling, shift, two_level, got 'newton'"),
        ((torch.zeros(40, 40), 0.1, 0.1, "cuts"), "method: cuts takes widths up to 32, got 40"),
        ((A / 0, 0.1, 0.1), "finite weights"),
        ((A[None], 0.1, 0.1), "one square matrix"),
    ):
        with pytest.raises(BadInput, match=words) as refused:
            stabilise(*arguments)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("target", [-1.0, 0.0, 0.5])
def test_weights_of_zeros_are_stabilised_too(alpha: float, target: float) -> None:
    """model.init_std=0 is a legal value."""
    found = stabilise(torch.zeros(4, 4), target, alpha)
    assert found.bound <= target and found.distance <= 1.01 * 2 * max(0.0, -target) / alpha
    assert found.certificate is not None and found.certificate.bound(found.W, alpha) == found.bound

"""The log-norm of a convolutional field: bounds by frequencies are never below what slopes on small images attain, in
spite of rounding, and neither is what follows for networks (docs/theory.md, sections 20 and 21)."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import norm2, randn, rk4
from slopes import delta
from torch import Tensor

from robode.errors import BadInput
from robode.families.conv_stable_node import ConvStableNode
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4, Midpoint
from robode.linalg.convolution import Convolution, Symbol, conv_norm
from robode.ode.conv_lognorm import ConvJacobians, conv_lower_bound, conv_upper_bound
from robode.ode.conv_projection import conv_stabilise, identity_kernel
from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_upper import certified, upper_bound
from robode.ode.projection import stabilise

SEEDS, ALPHAS = st.integers(0, 10**6), st.sampled_from([0.05, 0.1, 0.5, 0.9, 1.0])
TINY = [(1, 3, 3), (1, 1, 4), (1, 2, 4), (2, 2, 2), (2, 1, 4), (3, 1, 3)]  # channels and pixels: at most 512 vertices


def dense(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The matrix of a zero-padded convolution on images of that size."""
    n = kernel.shape[0] * size[0] * size[1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, kernel.shape[0], *size)
    return Convolution(kernel.double())(basis).flatten(1).T


def circular(J: ConvJacobians) -> Tensor:
    """The matrix of the circular convolution on the torus that belongs to J, for kernels 3 x 3."""
    rows, columns = J.size[0] + 1, J.size[1] + 1
    n = len(J.kernel) * rows * columns
    basis = torch.eye(n, dtype=torch.float64).reshape(n, -1, rows, columns)
    wide = torch.nn.functional.pad(basis, (1, 1, 1, 1), mode="circular")
    return torch.nn.functional.conv2d(wide, J.kernel).flatten(1).T


def exact(J: ConvJacobians) -> float:
    """By enumeration of all slopes of all pixels."""
    return delta(dense(J.kernel, J.size), J.alpha)


def example(seed: int, shape: tuple[int, int, int], alpha: float, taps: tuple[int, int] = (3, 3)) -> ConvJacobians:
    return ConvJacobians(randn(shape[0], shape[0], *taps, seed=seed), shape[1:], alpha)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, shape=st.sampled_from(TINY), alpha=ALPHAS, taps=st.sampled_from([(3, 3), (5, 5), (1, 3), (1, 1)]))
def test_the_bounds_enclose_the_maximum_over_slopes(
    seed: int, shape: tuple[int, int, int], alpha: float, taps: tuple[int, int]
) -> None:
    J = example(seed, shape, alpha, taps)
    value, upper = exact(J), conv_upper_bound(J)
    below = conv_lower_bound(J, upper.theta)
    assert below.value <= value + 1e-14 * abs(value) and value <= upper.value
    T, x = dense(J.kernel, J.size), below.vector.flatten()
    assert float(x @ (below.slopes.flatten() * (T @ x)) / (x @ x)) == pytest.approx(below.value, rel=1e-12, abs=1e-12)
    assert float(below.slopes.min()) >= alpha and float(below.slopes.max()) <= 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, shape=st.sampled_from(TINY), alpha=ALPHAS, spread=st.floats(-3, 3))
def test_any_theta_certifies(seed: int, shape: tuple[int, int, int], alpha: float, spread: float) -> None:
    J = example(seed, shape, alpha)
    theta = (spread * randn(shape[0], seed=seed + 1)).exp()
    assert exact(J) <= J.certified(theta)


@pytest.mark.parametrize("entry", [0.0, -0.5, math.nan, math.inf])
def test_no_other_theta_does(entry: float) -> None:
    J = example(0, (2, 2, 2), 0.1)
    theta = J.balanced()
    theta[1] = entry
    assert J.certified(theta) == math.inf
    phi = ConvStableNode(2, 2, Euler(), stabilise="none")  # what a damaged checkpoint may hold
    phi.build((2, 2, 2))
    free = phi.fields()[0].lognorm()
    phi.theta[0, 1] = entry
    assert phi.fields()[0].lognorm() == free


def test_the_bound_is_that_of_norms_or_better_and_tends_to_the_truth_as_images_grow() -> None:
    """c mu_2 + r ||A|| (UB0) is proved by the first theta; on larger images less is lost at their edges."""
    gaps = []
    for side in (3, 6, 12):
        J = example(5, (2, side, side), 0.1)
        A = J.symbol(J.kernel)
        mu = float(torch.linalg.eigvalsh(0.5 * (A + A.mH))[:, -1].max())
        norms = 0.55 * mu + 0.45 * float(conv_norm(J.kernel, side, side))
        first, found = J.certified(J.balanced()), conv_upper_bound(J)
        assert mu <= found.value <= first <= norms * (1 + 1e-9)
        gaps.append(found.value - conv_lower_bound(J, found.theta).value)
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] <= 0.06 * conv_upper_bound(J).value


def test_one_theta_a_channel_proves_what_one_a_pixel_proves_on_the_torus() -> None:
    J = example(3, (2, 2, 2), 0.2)
    each = scaled_rows(circular(J), 0.2)
    mine = conv_upper_bound(J)
    assert mine.value == pytest.approx(float(upper_bound(each).value), rel=1e-3)
    assert mine.value == pytest.approx(float(certified(each, mine.theta.repeat_interleave(9)[None])), rel=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=SEEDS, size=st.tuples(st.integers(1, 9), st.integers(1, 9)), taps=st.sampled_from([(3, 3), (5, 3), (1, 7)]))
def test_the_symbol_is_the_exact_sum_up_to_the_error_that_it_states(
    seed: int, size: tuple[int, int], taps: tuple[int, int]
) -> None:
    """Against mpmath, at one frequency; its norms are those that `conv_norm` finds by FFT."""
    kernel = 10 * randn(2, 2, *taps, seed=seed)
    symbol = Symbol.of(taps, size)
    found = symbol(kernel)
    rows, columns = symbol.torus
    place = seed % len(found)
    a, b = divmod(place, columns // 2 + 1)
    with mpmath.workdps(40):
        off = 0.0
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            total = mpmath.mpc(0)
            for s, t in itertools.product(*map(range, taps)):
                turn = mpmath.mpf(a * (s - taps[0] // 2)) / rows + mpmath.mpf(b * (t - taps[1] // 2)) / columns
                total += mpmath.mpf(float(kernel[i, j, s, t])) * mpmath.expjpi(2 * turn)
            off += float(abs(mpmath.mpc(complex(found[place, i, j])) - total)) ** 2
    assert math.sqrt(off) <= symbol.error(kernel) <= 1e-12 * float(kernel.abs().sum())
    assert float(torch.linalg.matrix_norm(found, 2).max()) == pytest.approx(float(conv_norm(kernel, *size)), rel=1e-9)


# ---- networks -------------------------------------------------------------------------------------------------------


def flow(delta: float = 0.0, shape: tuple[int, int, int] = (2, 4, 3), depth: int = 4, **keys: Any) -> ConvStableNode:
    torch.manual_seed(0)
    phi = ConvStableNode(shape[0], depth, Euler(), delta=delta, **keys)
    phi.build(shape)
    return phi


@pytest.mark.parametrize("bound", [0.5, 0.0, -0.3])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_no_jacobian_of_the_euler_network_exceeds_its_bound(bound: float, shared: bool) -> None:
    phi = flow(bound, shared=shared).exact()
    certificate = phi.certificate()
    expected = math.prod(math.sqrt(1 + 2 * f.lognorm() / 4 + (f.lipschitz() / 4) ** 2) for f in phi.fields())
    plain = math.prod(1 + f.lipschitz() / 4 for f in phi.fields())
    assert certificate["flow_discrete"] == pytest.approx(expected, rel=1e-9) and expected < plain
    assert certificate["flow_ode"] <= math.exp(bound)
    for y in 3 * randn(12, 2, 4, 3, seed=1):
        J = torch.autograd.functional.jacobian(phi, y[None]).reshape(24, 24)  # type: ignore[no-untyped-call]
        assert norm2(J) <= certificate["flow_discrete"]


@pytest.mark.parametrize("bound", [0.3, -0.2])
def test_solutions_of_the_ode_separate_by_no_more_than_the_log_norm_allows(bound: float) -> None:
    phi = flow(bound, activation="leaky_relu").exact()
    (field,) = set(phi.fields())
    y, z = 3 * randn(2, 40, 2, 4, 3, seed=4)
    z = y + 0.1 * z
    with torch.no_grad():
        apart = rk4(partial(field, 0.0), y, 1.0, 200) - rk4(partial(field, 0.0), z, 1.0, 200)
    grown = apart.flatten(1).norm(dim=1) / (y - z).flatten(1).norm(dim=1)
    assert float(grown.max()) <= phi.certificate()["flow_ode"] * (1 + 1e-6)


def test_there_is_no_such_bound_for_other_integrators() -> None:
    """Runge-Kutta steps that no circle of contractivity holds have the bound of their stages, above that of Euler."""
    for method in (Midpoint(), RK4()):
        torch.manual_seed(0)
        other = ConvStableNode(2, 4, method)
        other.build((2, 4, 3))
        assert other.certificate()["flow_discrete"] > flow().certificate()["flow_discrete"]


# ---- projection -----------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=SEEDS,
    shape=st.sampled_from([(1, 3, 3), (2, 2, 2), (3, 1, 3)]),
    alpha=st.sampled_from([0.1, 0.5, 1.0]),
    share=st.sampled_from([0.7, 0.2, 0.0, -0.3]),
)
def test_projected_kernels_meet_the_target_by_enumeration_and_as_float32(
    seed: int, shape: tuple[int, int, int], alpha: float, share: float
) -> None:
    J = replace(example(seed, shape, alpha), kernel=randn(shape[0], shape[0], 3, 3, seed=seed).float())
    known = conv_upper_bound(J)
    target = share * known.value
    found = conv_stabilise(J, target)
    there = replace(J, kernel=found.kernel)
    assert found.kernel.dtype == torch.float32 and exact(there) <= there.certified(found.theta) == found.bound <= target
    again = conv_stabilise(there, target, found.theta)
    assert torch.equal(again.kernel, found.kernel) and again.distance == 0
    change = (found.kernel.double() - J.exact).norm()
    assert found.distance == pytest.approx(float(change), rel=1e-12)
    shift = (known.value - target) / alpha * math.sqrt(shape[0])
    scaling = (1 - share) * float(J.exact.norm()) if target > 0 else math.inf
    assert found.distance <= min(shift, scaling) * (1 + 1e-3)


@pytest.mark.parametrize(("share", "gain"), [(0.9, 0.8), (0.5, 0.8), (0.0, 0.5)])
def test_the_change_is_well_below_scaling_and_shift_and_near_the_least(share: float, gain: float) -> None:
    """Images of 2 x 2 pixels have a torus of 3 x 3, all of which a kernel of 3 x 3 reaches: then the dense projection
    of the circular convolution, with a theta for each pixel, is one of kernels."""
    J = example(11, (2, 2, 2), 0.2)
    known = conv_upper_bound(J)
    found = conv_stabilise(J, share * known.value)
    shift = (1 - share) * known.value / 0.2 * math.sqrt(2)
    assert found.distance <= gain * min(shift, (1 - share) * float(J.exact.norm()) if share > 0 else math.inf)
    least = stabilise(circular(J), share * known.value, 0.2).distance / 3
    assert least * 0.95 <= found.distance <= 1.05 * least


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=SEEDS, shift=st.floats(0, 5), alpha=ALPHAS)
def test_theta_plus_s_certifies_a_shift_by_s(seed: int, shift: float, alpha: float) -> None:
    """lambda_max(M(A - s I, theta + s)) <= lambda_max(M(A, theta)) - alpha s."""
    J = example(seed, (2, 3, 3), alpha)
    theta = randn(2, seed=seed + 1).exp()
    lower = replace(J, kernel=J.kernel - shift * identity_kernel(J.kernel))
    assert lower.certified(theta + shift) <= J.certified(theta) - alpha * shift + 1e-9 * (1 + shift)


def test_a_target_that_float32_does_not_reach_is_bad_input() -> None:
    J = replace(example(0, (2, 3, 3), 0.1), kernel=randn(2, 2, 3, 3, seed=0).float())
    with pytest.raises(BadInput, match="delta: torch.float32 weights reach"):
        conv_stabilise(J, -1e38)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("target", [-1.0, 0.0, 0.5])
def test_a_kernel_of_zeros_has_log_norm_0_and_a_nearest_one(channels: int, alpha: float, target: float) -> None:
    """model.init_std=0 is a legal value."""
    J = ConvJacobians(torch.zeros(channels, channels, 3, 3), (2, 2), alpha)
    bound = conv_upper_bound(J)
    assert bound.value == 0 == conv_lower_bound(J, bound.theta).value
    found = conv_stabilise(J, target)
    assert found.bound <= target and found.distance <= 1.01 * max(0.0, -target) / alpha * math.sqrt(channels)
    assert replace(J, kernel=found.kernel).certified(found.theta) == found.bound

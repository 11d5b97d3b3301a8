"""The largest logarithmic norm over slopes: bounds hold on both sides, in spite of rounding, and branch and bound
closes them (docs/theory.md, section 20)."""

import math
from fractions import Fraction

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import eye, norm2, randn, rk4, skew_matrix
from slopes import KINDS, delta, largest, vertices, weights
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.activations import named_activation
from robode.linalg.definite import eigenvalue_above, norm_above
from robode.linalg.skew import Skew
from robode.ode.field import GradientField, OneLayerField
from robode.ode.jacobians import JacobianSet, jacobian_set, scaled_rows
from robode.ode.lognorm import euler_lipschitz, lognorm
from robode.ode.lognorm_exact import maximum
from robode.ode.lognorm_lower import attained, best_change, lower_bound
from robode.ode.lognorm_upper import certified, norm_bound, quadratic, scalar_bound, upper_bound
from robode.ode.stable_interval import stable_interval

SEEDS, ALPHAS = st.integers(0, 10**6), st.sampled_from([0.05, 0.1, 0.5, 0.9, 1.0])


def random_set(n: int, k: int, seed: int) -> JacobianSet:
    C, B, K = randn(n, n, seed=seed), randn(n, k, seed=seed + 1), randn(k, n, seed=seed + 2)
    ends = randn(2, k, seed=seed + 3).sort(0).values  # of either sign
    return jacobian_set(C, B, K, *ends)


def exact(J: JacobianSet) -> float:
    """By enumeration of the vertices of the only layer."""
    return float(largest(J.C[0], J.B[0], J.K[0], vertices(J.lo[0], J.hi[0])).max())


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(1, 5), k=st.integers(1, 6))
def test_the_bounds_enclose_the_maximum_over_slopes(seed: int, n: int, k: int) -> None:
    """For any C, B, K and ranges; slopes inside the box are no worse than vertices."""
    J = random_set(n, k, seed)
    value = exact(J)
    below, u0, u1, u2 = lower_bound(J)[0], norm_bound(J), scalar_bound(J), upper_bound(J)
    assert below.value <= value + 1e-14 * abs(value) and value <= float(u2.value)
    assert float(u2.value) <= float(u1.value) <= float(u0)
    inside = J.lo + (J.hi - J.lo) * torch.rand(
        100, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    assert float(largest(J.C[0], J.B[0], J.K[0], inside).max()) <= value * (1 + 1e-12) + 1e-12
    attains = largest(J.C[0], J.B[0], J.K[0], below.slopes[None])
    assert abs(float(attains) - below.value) <= 1e-10 * (1 + abs(below.value))


@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(2, 4), name=st.sampled_from(["relu", "tanh", "leaky_relu", "sigmoid"]))
def test_fields_with_one_hidden_layer_are_of_that_form(seed: int, n: int, name: str) -> None:
    """sigma(K y + b) and F grad V(y) have the exact bounds of section 11, or better ones where slopes stay above 0."""
    K, b, Q, activation = randn(n, n, seed=seed), randn(n, 1, seed=seed + 1), 0.2 * eye(n), named_activation(name)
    F = skew_matrix("random", n, seed=seed + 2) - 0.3 * eye(n)
    gradient = GradientField(Skew(F + 0.3 * eye(n)), 0.3, K, b, Q, activation, 1.0)
    for field, C, B in ((OneLayerField(K, b, activation), 0 * K, eye(n)), (gradient, F @ Q, F @ K.T)):
        S = activation.slope_bound
        (over,) = lognorm(C, B, K, 0.0, S, seconds=20)
        (within,) = lognorm(C, B, K, *activation.slopes, seconds=20)
        known = field.lognorm()  # for potentials the smaller of the exact bound and that of their class
        assert over.closed and known - over.upper <= 1e-8 * (1 + abs(known)) and over.lower >= known - 1e-7 * (1 + S)
        assert within.upper <= over.upper + 1e-6
        y = 3 * randn(n, 50, seed=seed + 3)
        steepest = largest_symmetric(field.jacobian(0.0, y))
        assert steepest <= within.upper


def largest_symmetric(J: Tensor) -> float:
    return float(torch.linalg.eigvalsh(0.5 * (J + J.mT))[:, -1].max())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(1, 5), spread=st.floats(-8, 8))
def test_every_theta_certifies(seed: int, n: int, spread: float) -> None:
    J = random_set(n, n, seed)
    theta = torch.exp(spread * randn(1, n, seed=seed + 9))
    assert exact(J) <= float(certified(J, theta))


@pytest.mark.parametrize("entry", [0.0, -0.5, math.nan, math.inf])
def test_no_other_theta_does(entry: float) -> None:
    J = scaled_rows(weights("gaussian", 6, 0), 0.1)
    theta = torch.ones(1, 6, dtype=torch.float64)
    theta[0, 2] = entry
    assert float(certified(J, theta)) == math.inf
    assert float(certified(scaled_rows(J.K, 1.0), theta)) >= exact(scaled_rows(J.K, 1.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "alpha"), [(3, 0.5), (6, 0.1), (7, 1.0)])
def test_branch_and_bound_is_enumeration(kind: str, d: int, alpha: float) -> None:
    A = weights(kind, d, seed=d)
    found, value = maximum(scaled_rows(A, alpha)), delta(A, alpha)
    assert found.closed
    assert found.lower <= value + 1e-14 and value <= found.upper <= value + 1e-6


@pytest.mark.parametrize("kind", ["gaussian", "skew"])
def test_a_decision_needs_less_and_a_search_out_of_time_certifies_too(kind: str) -> None:
    J, value = scaled_rows(weights(kind, 7, 2), 0.1), delta(weights(kind, 7, 2), 0.1)
    for threshold, above in ((value + 1e-3, False), (value - 1e-3, True)):
        decided = maximum(J, threshold=threshold)
        assert decided.closed and (decided.lower > threshold) == above and (decided.upper <= threshold) != above
    stopped = maximum(J, seconds=0.0)
    assert stopped.lower <= value + 1e-14 and stopped.upper >= value
    assert stopped.closed == (stopped.upper - stopped.lower < 1e-6) and (stopped.closed or kind == "skew")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [10, 14])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_branch_and_bound_is_enumeration_of_all_vertices_up_to_width_14(kind: str, d: int, alpha: float) -> None:
    for seed in range(3):
        A = weights(kind, d, seed)
        found, value = maximum(scaled_rows(A, alpha)), delta(A, alpha)
        assert found.lower <= value + 1e-14 and value <= found.upper <= value + 1e-6


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=SEEDS, d=st.integers(2, 6), kind=st.sampled_from(KINDS))
def test_delta_is_convex_homogeneous_and_falls_with_alpha(seed: int, d: int, kind: str) -> None:
    A, B = weights(kind, d, seed), weights("gaussian", d, seed + 1)
    middle = delta(0.3 * A + 0.7 * B, 0.2)
    assert middle <= 0.3 * delta(A, 0.2) + 0.7 * delta(B, 0.2) + 1e-12
    assert abs(delta(2.5 * A, 0.2) - 2.5 * delta(A, 0.2)) <= 1e-12
    assert delta(A - 3 * torch.eye(d, dtype=A.dtype), 0.2) <= delta(A, 0.2) - 0.2 * 3 + 1e-12
    values = [delta(A, alpha) for alpha in (0.1, 0.3, 0.5, 1.0)]
    assert values == sorted(values, reverse=True) and values[1] <= 0.5 * (values[0] + values[2]) + 1e-12


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(1, 6), size=st.floats(-6, 6), multiple=st.booleans())
def test_the_factorisation_bounds_the_exact_eigenvalue_of_the_exact_matrix(
    seed: int, n: int, size: float, multiple: bool
) -> None:
    """Against 60 digits, for eigenvalues of very different size or all alike."""
    Q = torch.linalg.qr(randn(n, n, seed=seed)).Q
    spectrum = torch.ones(n, dtype=torch.float64) if multiple else randn(n, seed=seed + 1).exp() ** 4
    M = 10**size * (Q * spectrum @ Q.T)
    M = 0.5 * (M + M.T)
    with mpmath.workdps(60):
        true = max(mpmath.eigsy(mpmath.matrix(M.tolist()), eigvals_only=True))
        bound = mpmath.mpf(float(eigenvalue_above(M[None])))
        assert true <= bound <= true + 1e-11 * abs(true)


def test_what_theta_certifies_holds_for_the_exact_m_of_theta():
    """M(theta) in rational arithmetic, from the float weights and the exact centre of the box."""
    J = random_set(4, 5, 3)
    theta = torch.exp(randn(1, 5, seed=4))
    C, B, K, lo, hi, t = (
        [[Fraction(x) for x in row] for row in each.tolist()] for each in (J.C[0], J.B[0], J.K[0], J.lo, J.hi, theta)
    )
    M = mpmath.matrix(4, 4)
    with mpmath.workdps(60):
        for i in range(4):
            for j in range(4):
                total = (C[i][j] + C[j][i]) / 2
                for p in range(5):
                    c, r = (lo[0][p] + hi[0][p]) / 2, (hi[0][p] - lo[0][p]) / 2
                    total += c * (B[i][p] * K[p][j] + B[j][p] * K[p][i]) / 2
                    total += r * (t[0][p] * B[i][p] * B[j][p] + K[p][i] * K[p][j] / t[0][p]) / 2
                M[i, j] = mpmath.mpf(total.numerator) / total.denominator
        true = max(mpmath.eigsy(M, eigvals_only=True))
        bound = mpmath.mpf(float(certified(J, theta)))
        assert true <= bound <= true + 1e-11 * abs(true)


def test_matrices_that_are_not_finite_have_no_bound_and_spoil_no_other():
    M = torch.stack([torch.eye(3), torch.full((3, 3), math.nan), 1e38 * torch.ones(3, 3)]).double()
    bounds = eigenvalue_above(M)
    assert 1 <= float(bounds[0]) <= 1 + 1e-13 and math.isinf(bounds[1]) and bounds[2] >= 3e38 * (1 - 1e-6)
    assert norm2(M[0]) <= float(norm_above(M[:1])) <= 1 + 1e-12


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(2, 5), k=st.integers(2, 6))
def test_the_secular_equation_finds_the_best_change_of_one_slope(seed: int, n: int, k: int) -> None:
    J = random_set(n, k, seed)
    choice = torch.randint(2, (1, k), generator=torch.Generator().manual_seed(seed)).bool()
    D = torch.where(choice, J.lo, J.hi)
    values, Q = torch.linalg.eigh(J.symmetric(D))
    flips = D.repeat(k, 1)
    flips[range(k), range(k)] = (J.lo + J.hi - D)[0]
    after = largest(J.C[0], J.B[0], J.K[0], flips)
    changed, better = best_change(J, D, values, Q)
    assert bool(better[0]) == bool(after.max() > values[0, -1] + 1e-7)
    if better[0]:
        assert abs(float(largest(J.C[0], J.B[0], J.K[0], changed)) - float(after.max())) <= 1e-6


def test_layers_are_bounded_together_as_one_by_one_and_warm_as_cold():
    A = torch.stack([weights(kind, 6, 1) for kind in ("gaussian", "skew")])
    together = lognorm(torch.zeros(6, 6), torch.eye(6), A, 0.1, 1.0)
    proofs = torch.stack([each.theta for each in together])
    warm = lognorm(torch.zeros(6, 6), torch.eye(6), A, 0.1, 1.0, theta=proofs)
    for each, again, weight in zip(together, warm, A, strict=True):
        (alone,) = lognorm(torch.zeros(6, 6), torch.eye(6), weight, 0.1, 1.0)
        assert alone.lower == pytest.approx(each.lower, abs=1e-12)
        assert alone.upper == pytest.approx(each.upper, rel=1e-4) and again.upper <= each.upper
        (closed,) = lognorm(torch.zeros(6, 6), torch.eye(6), weight, 0.1, 1.0, seconds=20)
        assert closed.closed and closed.upper - closed.lower <= 1e-6
        assert each.lower <= closed.upper and closed.lower <= each.upper


@settings(max_examples=2, deadline=None, derandomize=True)
@given(seed=SEEDS, d=st.integers(3, 5), level=st.floats(0, 0.3))
def test_newton_finds_the_largest_stable_interval_of_slopes(seed: int, d: int, level: float) -> None:
    A = weights("gaussian", d, seed)
    A = A - (delta(A, 1.0) - level + 0.05) * torch.eye(d, dtype=torch.float64)  # mu_2(A) = level - .05
    found = stable_interval(A, level, seconds=20)
    assert 0 <= found.lower <= found.upper <= min(1.0, found.lower + 1e-5)
    assert delta(A, max(found.upper, 1e-9)) <= level + 1e-9
    assert found.lower == 0 or delta(A, found.lower - min(1e-4, found.lower / 2)) > level


def test_an_interval_ends_where_it_must():
    A = weights("skew", 4, 0)
    assert stable_interval(A, level=0.05).lower > 0.5
    assert stable_interval(A, level=1e3).upper == 0.0  # every slope will do
    assert stable_interval(A - torch.eye(4), level=0.0, seconds=20).upper < 0.9
    with pytest.raises(BadInput, match="a level of at least mu_2"):
        stable_interval(A, level=-0.1)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=SEEDS, d=st.integers(2, 6), steps=st.integers(1, 8), damping=st.floats(0, 2))
def test_no_euler_network_with_slopes_of_the_range_exceeds_its_bound(
    seed: int, d: int, steps: int, damping: float
) -> None:
    """Products of I + h D A over slopes of the moment, where u' = sigma(A u + b) is sampled, and freely chosen ones."""
    alpha, h = 0.1, 1 / steps
    A, b = weights("gaussian", d, seed) - damping * torch.eye(d, dtype=torch.float64), randn(d, 1, seed=seed + 1)
    (both,) = lognorm(torch.zeros(d, d), torch.eye(d), A, alpha, 1.0)
    bound = euler_lipschitz(both.upper, float(norm_above(A[None])), h, steps)
    u = 3 * randn(d, 200, seed=seed + 2)
    sampled, free = (torch.eye(d, dtype=torch.float64).expand(200, d, d) for _ in range(2))
    for step in range(steps):
        z = A @ u + b
        D = torch.where(z > 0, 1.0, alpha).double()
        sampled = sampled + h * (D.T[:, :, None] * A) @ sampled
        u = u + h * torch.where(z > 0, z, alpha * z)
        chosen = alpha + (1 - alpha) * torch.rand(200, d, 1, generator=torch.Generator().manual_seed(step)).double()
        free = free + h * (chosen * A) @ free
    assert max(norm2(sampled), norm2(free)) <= bound
    assert bound <= (1 + h * norm2(A)) ** steps * (1 + 1e-10)


def test_the_euler_bound_is_attained_by_one_step_and_tends_to_that_of_the_ode():
    A = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)  # I + h A stretches all alike
    assert euler_lipschitz(0.0, 1.0, 0.5) == pytest.approx(norm2(torch.eye(2) + 0.5 * A), rel=1e-14)
    assert euler_lipschitz(0.7, 2.0, 1e-6, 10**6) == pytest.approx(math.exp(0.7), rel=1e-5)
    assert euler_lipschitz(-0.5, 0.5, 1.0) == pytest.approx(0.5) and euler_lipschitz(-2.0, 2.0, 0.5) < 1e-6
    assert euler_lipschitz(-1.0, 1.0, 1.0) > 0  # rounded up
    assert math.isinf(euler_lipschitz(1.0, 1e200, 1.0, 4))
    with pytest.raises(BadInput, match="step: expected h >= 0"):
        euler_lipschitz(1.0, 1.0, -0.1)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=SEEDS, d=st.integers(2, 4))
def test_solutions_of_the_one_layer_ode_separate_no_faster_than_delta(seed: int, d: int) -> None:
    A, b = weights("gaussian", d, seed), randn(d, 1, seed=seed + 1)
    start = 2 * randn(d, 60, seed=seed + 2)
    end = rk4(lambda u: torch.where(A @ u + b > 0, A @ u + b, 0.1 * (A @ u + b)), start, 1.0, 200)
    growth = (end[:, :30] - end[:, 30:]).norm(dim=0) / (start[:, :30] - start[:, 30:]).norm(dim=0)
    (both,) = lognorm(torch.zeros(d, d), torch.eye(d), A, 0.1, 1.0)
    assert float(growth.max()) <= math.exp(both.upper) * (1 + 1e-4)


def test_what_cannot_be_bounded_is_refused():
    A = randn(3, 3, seed=0)
    for alpha in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(BadInput, match="alpha: expected the smallest slope, 0 < alpha <= 1"):
            scaled_rows(A, alpha)
    with pytest.raises(BadInput, match="finite weights, got nan or inf"):
        scaled_rows(torch.where(A > 0, math.nan, A), 0.1)
    with pytest.raises(BadInput, match=r"square weights .*, got \(3, 2\)"):
        scaled_rows(A[:, :2], 0.1)
    with pytest.raises(BadInput, match="finite slopes lo <= hi"):
        jacobian_set(A, A, A, 1.0, 0.5)
    assert attained(scaled_rows(A, 1.0), torch.ones(3).double(), A[0]).value <= delta(A, 1.0)
    assert float(torch.linalg.eigvalsh(quadratic(scaled_rows(A, 1.0), torch.ones(1, 3).double()))[0, -1]) == (
        pytest.approx(delta(A, 1.0), rel=1e-12)
    )

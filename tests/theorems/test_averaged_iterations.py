"""docs/theory.md, section 27: constants of composed maps, and what iterations of them do."""

import math

import pytest
import torch

from robode.errors import BadInput
from robode.iterations import Iteration, Map, clip, composed, gradient_step, prox, relaxed, soft_threshold

D = 6
THETAS = (0.2, 0.5, 0.9)


def rotation(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def linear(A: torch.Tensor, averaged: float, name: str = "linear") -> Map:
    return Map(name, lambda x: x @ A.mT, averaged=averaged)


def averaged_matrix(R: torch.Tensor, theta: float) -> torch.Tensor:
    return (1 - theta) * torch.eye(len(R), dtype=torch.float64) + theta * R


def excess(A: torch.Tensor, theta: float) -> float:
    """||(A - (1 - theta) I)/theta|| - 1, at most 0 if and only if A is theta-averaged."""
    R = (A - (1 - theta) * torch.eye(len(A), dtype=torch.float64)) / theta
    return float(torch.linalg.matrix_norm(R, 2)) - 1


def quadratic(generator: torch.Generator, mu: float, L: float):
    """f(x) = x^T A x/2 - b^T x with mu I <= A <= L I, both attained: its gradient, and its minimiser."""
    Q = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=generator))[0]
    A = Q @ torch.diag(torch.linspace(mu, L, D, dtype=torch.float64)) @ Q.T
    b = A @ torch.randn(D, dtype=torch.float64, generator=generator)
    return lambda x: x @ A.mT - b, torch.linalg.lstsq(A, b[:, None]).solution[:, 0]


def test_the_constant_of_a_composition_holds_for_random_averaged_maps():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        factors = [torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=generator))[0] for _ in THETAS]
        matrices = [averaged_matrix(R, theta) for R, theta in zip(factors, THETAS, strict=True)]
        T = composed(*(linear(A, theta) for A, theta in zip(matrices, THETAS, strict=True)))
        assert excess(T(torch.eye(D, dtype=torch.float64)).T, T.averaged) <= 1e-12


def test_no_smaller_constant_of_a_composition_holds():
    """Rotations whose angles are small and proportional to 1/(1 - theta_i) attain it."""
    T = composed(*(linear(averaged_matrix(rotation(1e-3 / (1 - t)), t), t) for t in THETAS))
    A = T(torch.eye(2, dtype=torch.float64)).T
    assert excess(A, T.averaged) <= 1e-12 < excess(A, 0.999 * T.averaged)


def test_two_maps_have_the_constant_of_ogura_and_yamada():
    a, b = 0.3, 0.7
    found = composed(linear(torch.eye(2), a), linear(torch.eye(2), b)).averaged
    assert found == pytest.approx((a + b - 2 * a * b) / (1 - a * b), rel=1e-12)


@pytest.mark.parametrize("tau", [0.3, 1.0, 1.9, 2.0])
def test_a_gradient_step_is_averaged_by_tau_L_half(tau):
    gradient, _ = quadratic(torch.Generator().manual_seed(1), 0.0, 1.0)
    step = gradient_step(gradient, tau, 1.0)
    zero = torch.zeros(D, dtype=torch.float64)
    A = step(torch.eye(D, dtype=torch.float64)).T - step(zero)[:, None]
    assert step.averaged == pytest.approx(tau / 2)
    assert excess(A, step.averaged) <= 1e-12 < excess(A, 0.999 * step.averaged)
    # and a longer step than 2/L is not nonexpansive
    assert gradient_step(gradient, 2.01, 1.0).averaged == math.inf


def test_prox_and_projections_are_firmly_nonexpansive():
    """||T x - T y||^2 <= <T x - T y, x - y>, which is 1/2-averaged."""
    generator = torch.Generator().manual_seed(2)
    x, y = (3 * torch.randn(2000, D, dtype=torch.float64, generator=generator) for _ in range(2))
    for T in (soft_threshold(0.7), clip(0.0, 1.0)):
        moved = T(x) - T(y)
        assert T.averaged == 0.5
        assert float((moved.square().sum(1) - (moved * (x - y)).sum(1)).max()) <= 1e-12


@pytest.mark.parametrize("tau", [0.2, 1.0, 1.8])
def test_strong_convexity_gives_a_contraction_whose_rate_is_attained(tau):
    mu, L = 0.1, 1.0
    gradient, minimiser = quadratic(torch.Generator().manual_seed(3), mu, L)
    iteration = Iteration(gradient_step(gradient, tau, L, mu)).proven()
    q = max(abs(1 - tau * mu), abs(1 - tau * L))
    assert (iteration.theorem, iteration.T.lipschitz) == ("contraction", pytest.approx(q))
    x = torch.randn(4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    steps = iteration.run(x, 60).steps
    for sample in range(4):
        bound = iteration.bound(torch.arange(60), float(steps[0, sample]))
        assert bool((steps[:, sample] <= bound * (1 + 1e-9) + 1e-14).all())
    assert float((steps[59] / steps[58]).max()) == pytest.approx(q, abs=0.02)
    last = iteration.run(x, 2000).x
    assert float((last - minimiser).norm(dim=1).max()) <= 1e-8


def test_steps_never_grow_and_stay_below_the_bound_without_strong_convexity():
    gradient, minimiser = quadratic(torch.Generator().manual_seed(5), 0.0, 1.0)
    iteration = Iteration(gradient_step(gradient, 1.5, 1.0), prox("identity", lambda x: x), fixed_point=True).proven()
    assert iteration.theorem == "averaged"
    x = torch.randn(3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    steps = iteration.run(x, 400).steps
    assert bool((steps[1:] <= steps[:-1] + 1e-14).all())
    for sample in range(3):
        far = float((x[sample] - minimiser).norm())
        bound = iteration.bound(torch.arange(400), float(steps[0, sample]), far)
        assert bool((steps[:, sample] <= bound + 1e-14).all())


@pytest.mark.parametrize("theta", THETAS)
def test_the_bound_of_averaged_iterations_is_too_large_by_less_than_two(theta):
    """A slow rotation, whose angle is chosen for the last step, comes within exp(-1/2) of it."""
    K = 1000
    angle = 2 * math.asin((4 * theta * (1 - theta) * K) ** -0.5)
    iteration = Iteration(relaxed(linear(rotation(angle), 1.0), theta), fixed_point=True)
    steps = iteration.run(torch.tensor([[1.0, 0.0]], dtype=torch.float64), K).steps[:, 0]
    bound = iteration.bound(torch.arange(K), math.inf, 1.0)
    assert bool((steps <= bound).all())
    assert float(steps[-1] / bound[-1]) == pytest.approx(math.exp(-0.5), rel=0.01)


def test_a_rotation_turns_for_ever_and_its_average_converges():
    turn = linear(rotation(1.0), 1.0, "rotation")
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    bare = Iteration(turn, fixed_point=True)
    assert bare.theorem == "none"
    assert float(bare.run(x, 500).steps[-1]) == pytest.approx(2 * math.sin(0.5))
    iteration = Iteration(relaxed(turn, 0.5), fixed_point=True).proven()
    assert iteration.T.averaged == 0.5
    assert float(iteration.run(x, 500).x.norm()) <= 1e-12


def test_an_averaged_map_without_a_fixed_point_runs_away():
    shift = Map("shift", lambda x: x + 1, averaged=0.5)
    with pytest.raises(BadInput, match="only where there is a fixed point; clip"):
        Iteration(shift).proven()
    assert float(Iteration(shift).run(torch.zeros(1, 1), 50).x) == 50
    assert Iteration(shift, clip(0, 1)).proven().theorem == "averaged"
    assert float(Iteration(shift, clip(0, 1)).run(torch.zeros(1, 1), 50).x) == 1


def test_a_contraction_lends_its_factor_to_nonexpansive_maps_behind_it():
    gradient, _ = quadratic(torch.Generator().manual_seed(7), 0.5, 1.0)
    free = Map("network", lambda x: x.flip(1), averaged=1.0)
    iteration = Iteration(gradient_step(gradient, 1.0, 1.0, 0.5), free).proven()
    assert (iteration.theorem, iteration.T.lipschitz) == ("contraction", 0.5)
    assert Iteration(gradient_step(gradient, 1.0, 1.0), free).theorem == "none"


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ([Map("network", lambda x: x, averaged=1.0)], "'network' is nonexpansive and no more"),
        ([clip(0, 1), Map("network", lambda x: x)], "'network' is not proven nonexpansive"),
        ([gradient_step(lambda x: x, 2.5, 1.0), clip(0, 1)], "'gradient step' is not proven nonexpansive"),
    ],
)
def test_what_is_not_proven_is_refused_in_one_line(maps, said):
    with pytest.raises(BadInput, match=said) as refusal:
        Iteration(*maps).proven()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: gradient_step(lambda x: x, 0.0, 1.0),
        lambda: gradient_step(lambda x: x, 1.0, 1.0, 2.0),
        lambda: clip(1.0, 0.0),
        lambda: relaxed(clip(0, 1), 1.5),
        lambda: Map("network", lambda x: x, averaged=1.5),
        lambda: Iteration(),
        lambda: Iteration(clip(0, 1)).run(torch.zeros(1, 1), 0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadInput):
        wrong()


def test_an_unproven_factor_leaves_nothing_proven_even_behind_a_constant_map():
    gradient, _ = quadratic(torch.Generator().manual_seed(8), 1.0, 1.0)
    T = composed(gradient_step(gradient, 1.0, 1.0, 1.0), Map("network", lambda x: x))
    assert (T.lipschitz, T.averaged) == (math.inf, math.inf)


def test_the_precision_is_kept_and_every_iterate_is_seen():
    seen = []
    halve = Map("halve", lambda x: x / 2, 0.5)
    found = Iteration(halve).run(torch.ones(2, 1, 2, 2), 3, lambda k, x: seen.append((k, float(x[0, 0, 0, 0]))))
    assert seen == [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.125)]
    assert (found.x.dtype, found.steps.dtype, found.steps.shape) == (torch.float32, torch.float64, (3, 2))
    assert found.steps[:, 0].tolist() == [1.0, 0.5, 0.25]

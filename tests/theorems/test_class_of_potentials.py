"""All potentials with m I <= Hess V <= M I, seen by two points: the ball of gradient differences, and what one step can
make of it (docs/theory.md, sections 3 and 6)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import eye, norm2, randn, random_field, reflection, skew_matrix, worst_hessian

from robode.linalg.skew import Skew
from robode.ode import bounds

SEEDS = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(1, 6), kappa=st.floats(0.01, 2))
def test_differences_of_gradients_lie_in_the_ball(seed: int, n: int, kappa: float) -> None:
    """|grad V(x) - grad V(y) - c d| <= r |d| with c, r from the certified Hessian bounds (Eq. 15)."""
    field = random_field(n, seed, J=eye(n), kappa=kappa)  # J plays no part in the gradient
    m, M = field.hessian_bounds()
    x, y = (10 ** randn(1, 50, seed=seed + k) * randn(n, 50, seed=seed + 2 + k) for k in (0, 7))
    d, difference = x - y, field.gradient(x) - field.gradient(y)
    excess = (difference - 0.5 * (M + m) * d).norm(dim=0) / d.norm(dim=0)
    assert float(excess.max()) <= 0.5 * (M - m) * (1 + 1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(1, 6), m=st.floats(0, 1), width=st.floats(0.01, 10))
def test_every_point_of_its_sphere_is_the_difference_of_some_potential(
    seed: int, n: int, m: float, width: float
) -> None:
    """Hess V = c I + r W with a reflection W that takes d to w."""
    d, w = (v / v.norm() for v in (randn(n, seed=seed), randn(n, seed=seed + 1)))
    if n == 1:
        w = d if seed % 2 else -d
    c, r = m + width / 2, width / 2
    S = c * eye(n) + r * reflection(d, w)
    torch.testing.assert_close(S @ d, c * d + r * w, rtol=1e-9, atol=1e-9)
    eigenvalues = torch.linalg.eigvalsh(S)
    assert m - 1e-9 <= float(eigenvalues[0]) and float(eigenvalues[-1]) <= m + width + 1e-9


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=SEEDS,
    n=st.sampled_from([2, 4, 6]),
    m=st.floats(0.01, 1),
    width=st.floats(0.1, 10),
    parts=st.lists(st.floats(-2, 2), min_size=6, max_size=6),
)
def test_the_one_step_constant_is_the_largest_stretch_over_the_class(
    seed: int, n: int, m: float, width: float, parts: list[float]
) -> None:
    """Both sides, for any multipliers g_k on the modes of F: no potential exceeds the bound, and one comes near it."""
    skew = Skew(skew_matrix("random", n, seed=seed))
    multipliers = [(parts[2 * k], parts[2 * k + 1]) for k in range(len(skew.omegas))]
    bound = bounds.one_step_lipschitz(m, m + width, [complex(*pair) for pair in multipliers])
    G = skew.function(list(multipliers), torch.float64)
    found = norm2(eye(n) + G @ worst_hessian(m, m + width, G))
    assert found <= bound * (1 + 1e-9)
    assert found >= 0.98 * bound

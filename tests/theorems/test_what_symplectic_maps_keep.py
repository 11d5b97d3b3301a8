"""What a learned map that is symplectic keeps when it is iterated, and what it need not keep.

docs/theory.md, section 24.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import eye, norm2, randn
from torch import Tensor

from robode.families.residual import Residual
from robode.families.sympflow import SympFlow
from robode.families.sympnet import SympNet
from robode.integrators.euler import Euler
from robode.linalg.activations import ACTIVATIONS
from robode.linalg.skew import canonical
from robode.ode.shear import LinearShear

STEPS = 400


def rotation(angle: float) -> Tensor:
    """Clockwise: the flow of q' = p, p' = -q after that time."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s], [-s, c]], dtype=torch.float64)


def shear(upper: bool, slope: float) -> LinearShear:
    """q + slope p, or p - slope q."""
    return LinearShear(upper, *(torch.tensor([[each]], dtype=torch.float64) for each in (slope, 0.0)))


def product(*shears: LinearShear) -> Tensor:
    """The matrix of shears in turn, the first one first."""
    y = eye(2)
    for each in shears:
        y = each(y)
    return y


def iterates(A: Tensor, y: Tensor, count: int = STEPS) -> Tensor:
    """y (2, M) and its images: (count + 1, 2, M)."""
    states = [y]
    for _ in range(count):
        states.append(A @ states[-1])
    return torch.stack(states)


def energy(y: Tensor) -> Tensor:
    """Of the oscillator: (..., 2, M) -> (..., M)."""
    return y.square().sum(-2) / 2


def form(A: Tensor) -> tuple[float, float]:
    """Angle and condition number of the invariant form of A with |tr A| < 2 sqrt(det A)."""
    A = A / torch.linalg.det(A).sqrt()
    (a, b), (c, d) = A.tolist()
    angle = math.acos((a + d) / 2)
    Q = torch.tensor([[-c, (a - d) / 2], [(a - d) / 2, b]], dtype=torch.float64) * (1 if b > 0 else -1)
    Q = Q / math.sin(angle)
    assert float((A.T @ Q @ A - Q).abs().max()) <= 1e-10 * norm2(Q) * norm2(A) ** 2
    low, high = torch.linalg.eigvalsh(Q).tolist()
    assert low > 0 and low * high == pytest.approx(1, rel=1e-6), "a positive definite form of determinant 1"
    return angle, high / low


elliptic = st.builds(
    lambda x, y, z: product(shear(True, x), shear(False, y), shear(True, z)),
    st.floats(-3.0, 3.0), st.floats(0.05, 3.0), st.floats(-3.0, 3.0),
).filter(lambda A: abs(float(A.trace())) < 1.99)  # fmt: skip


# ---- linear maps of the plane ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(elliptic, st.floats(0.9985, 1.0015), st.integers(0, 2**20))
def test_energy_of_a_turning_linear_map_follows_its_determinant_within_the_condition_of_its_form(
    A: Tensor, stretch: float, seed: int
) -> None:
    """det^k / kappa <= E_k / E_0 <= det^k kappa: without drift if and only if det = 1."""
    _, kappa = form(A)
    E = energy(iterates(stretch * A, randn(2, 5, seed=seed)))
    det = stretch ** (2 * torch.arange(STEPS + 1, dtype=torch.float64))
    ratio = E / E[0] / det[:, None]
    assert float(ratio.max()) <= kappa * (1 + 1e-8) and float(ratio.min()) >= (1 - 1e-8) / kappa


def test_the_condition_of_the_form_is_attained() -> None:
    A = product(shear(True, 0.7), shear(False, 0.4))
    _, kappa = form(A)
    angles = torch.linspace(0, math.pi, 400, dtype=torch.float64)
    E = energy(iterates(A, torch.stack([angles.cos(), angles.sin()]), 3000))
    assert float((E / E[0]).max()) == pytest.approx(kappa, rel=1e-3) and kappa > 1.3


@settings(max_examples=60, deadline=None)
@given(elliptic, st.integers(0, 2**20))
def test_the_phase_of_a_turning_linear_map_runs_away_linearly(A: Tensor, seed: int) -> None:
    """The angle after k steps is k theta up to less than half a turn, so that beside a solution that turns by dt the
    error is k |theta - dt|, up to as much."""
    theta, _ = form(A)
    clockwise = 1 if float(A[0, 1]) > 0 else -1
    path = iterates(A, randn(2, 4, seed=seed))
    turns = torch.atan2(-path[:, 1], path[:, 0])  # clockwise
    steps = turns.diff(dim=0) * clockwise
    assert float(A[0, 1]) != 0 and torch.det(A) == pytest.approx(1, abs=1e-9)
    advance = (steps % (2 * math.pi)).cumsum(0)  # no step turns by a whole turn, nor backwards
    k = torch.arange(1, STEPS + 1, dtype=torch.float64)[:, None]
    assert float((advance - k * theta).abs().max()) < math.pi


def test_a_map_within_eps_of_the_exact_one_may_lose_all_bounds_though_it_is_symplectic() -> None:
    """After half a period, dt = pi, a product of six shears that errs by eps at (1, 0) multiplies energy by (1 + eps)^2
    a step: however small eps is, energy has no bound."""
    for eps in (0.1, 0.01, 0.001):
        s = 1 + eps
        A = product(*(shear(j % 2 == 0, each) for j, each in enumerate((1.0, 1.0, 1.0))))
        A = product(shear(True, s), shear(False, 1 / s), shear(True, s)) @ A
        J = canonical(2)
        assert float((A.T @ J @ A - J).abs().max()) <= 1e-12
        assert norm2(A - rotation(math.pi)) == pytest.approx(eps, rel=1e-9)
        steps = math.ceil(math.log(10) / math.log(s))
        E = energy(iterates(A, torch.tensor([[1.0], [0.0]], dtype=torch.float64), steps))
        assert float(E[-1]) >= 100 * float(E[0])


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 1.5), st.floats(0.0, 0.999), st.integers(0, 2**20))
def test_near_a_rotation_by_less_than_half_a_turn_linear_symplectic_maps_turn(
    dt: float, share: float, seed: int
) -> None:
    """||A - Phi|| < 1 - cos dt is enough for |tr A| < 2, hence for energy without drift. Here A = exp(s B) Phi with
    tr B = 0 and the largest s in [0, 1] that is near enough."""
    eps, Phi = share * (1 - math.cos(dt)), rotation(dt)
    B = randn(2, 2, seed=seed)
    B = B - B.trace() / 2 * eye(2)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        near = norm2(torch.linalg.matrix_exp(middle * B) @ Phi - Phi) <= eps
        low, high = (middle, high) if near else (low, middle)
    A = torch.linalg.matrix_exp(low * B) @ Phi
    assert norm2(A - Phi) <= eps * (1 + 1e-9) and float(torch.det(A)) == pytest.approx(1, abs=1e-9)
    assert abs(float(A.trace())) < 2


# ---- any map --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.floats(0.01, 1.0), st.floats(0.0005, 0.05), st.integers(0, 2**20))
def test_no_map_errs_by_more_than_its_largest_one_step_error_times_the_steps(
    symplectic: bool, dt: float, size: float, seed: int
) -> None:
    """The exact map being an isometry; so sqrt(2 E) drifts by no more than that, for a residual network too."""
    torch.manual_seed(seed)
    shears = SympNet(2, 1, Euler(), step=size, hidden=4).double().requires_grad_(False)
    disturb = Residual(2, 1, Euler(), hidden=4).double().requires_grad_(False)
    Phi = rotation(dt)

    def step(y: Tensor) -> Tensor:
        """y: (2, M)."""
        z = Phi @ y
        return shears(z.T).T if symplectic else z + size * (disturb(z.T).T - z)

    x = y = randn(2, 6, seed=seed)
    worst = torch.zeros(6, dtype=torch.float64)
    for k in range(1, 101):
        worst = torch.maximum(worst, (step(y) - Phi @ y).norm(dim=0))
        x, y = Phi @ x, step(y)
        apart = (y - x).norm(dim=0)
        assert bool((apart <= k * worst * (1 + 1e-9) + 1e-12).all())
        assert bool(((y.norm(dim=0) - x.norm(dim=0)).abs() <= k * worst * (1 + 1e-9) + 1e-12).all())


def test_the_steps_times_the_error_are_attained_by_a_turn_that_is_too_fast() -> None:
    """Symplecticity improves nothing here: a rotation by dt + delta keeps all energies and errs by k eps at first."""
    delta = 1e-5
    y = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    one, many = (float((iterates(rotation(0.1 + delta), y, k) - iterates(rotation(0.1), y, k))[-1].norm())
                 for k in (1, 1000))  # fmt: skip
    assert one == pytest.approx(delta, rel=1e-6) and many == pytest.approx(1000 * one, rel=1e-4)


# ---- SympFlow -------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.sampled_from(sorted(ACTIVATIONS.keys() - {"relu", "leaky_relu"})), st.integers(0, 2**20))
def test_a_sympflow_is_the_flow_of_a_hamiltonian_that_depends_on_time(d: int, activation: str, seed: int) -> None:
    """X(t, y) = d/dt phi_t at phi_t^-1(y) has J^-1 DX symmetric, so it is J grad H(t, y)."""
    torch.manual_seed(seed)
    flow = SympFlow(2 * d, 2, Euler(), hidden=4, activation=activation).double().requires_grad_(False)
    J = canonical(2 * d)
    for t in (0.0, 0.7):
        for y in randn(3, 2 * d, seed=seed):
            DX = torch.func.jacrev(lambda z, t=t: velocity(flow, z, t))(y)
            H = J.T @ DX
            assert float((H - H.T).abs().max()) <= 1e-9 * max(1.0, norm2(H))


def velocity(flow: SympFlow, y: Tensor, t: float) -> Tensor:
    """X(t, y): (2 d,) -> (2 d,)."""
    now = torch.full((1, 1), t, dtype=torch.float64)
    x = flow.inverse(y[None], now)
    return torch.func.jvp(lambda s: flow(x, s), (now,), (torch.ones_like(now),))[1][0]


def test_a_sympflow_is_no_flow_of_an_energy_of_its_own() -> None:
    """phi_2t is not phi_t after phi_t, so nothing is kept when it is applied again and again, by being a SympFlow."""
    torch.manual_seed(3)
    flow, y = SympFlow(2, 2, Euler()).double().requires_grad_(False), randn(20, 2, seed=4)
    t = torch.full((20, 1), 0.5, dtype=torch.float64)
    assert float((flow(y, 2 * t) - flow(flow(y, t), t)).abs().max()) > 0.05

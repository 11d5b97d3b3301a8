"""The energy of F grad H along solutions, and in one step of a method (docs/theory.md, section 25)."""

import cmath
import math
from collections.abc import Callable

import pytest
import torch
from problems import TANH, eye, norm2, randn, random_field, rk4, skew_matrix, smallest_gamma, tanh_energy, tanh_gradient
from torch import Tensor

from robode.families.hdnn import HDNN
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.linalg.skew import Skew
from robode.ode.field import GradientField

SPIN = skew_matrix("canonical", 4)


def solution(field: GradientField, y: Tensor, time: float, steps: int = 400) -> Tensor:
    """The reference solution of y' = (J - gamma I) grad H, with the gradient written here."""
    F = field.skew.J - float(field.gamma) * eye(len(y))
    return rk4(lambda z: F @ tanh_gradient(field, z), y, time, steps)


def quadratic(eigenvalues: list[float], J: Tensor, gamma: float) -> GradientField:
    """H = sum of eigenvalue y_i^2/2: no neurons."""
    n = len(eigenvalues)
    zero = torch.zeros(n, n, dtype=torch.float64)
    return GradientField(Skew(J), gamma, zero, zero[:, :1], torch.diag(torch.tensor(eigenvalues).double()), TANH, 1.0)


def lowest(field: GradientField) -> float:
    """min H, by Newton's method on a strongly convex H."""
    y = torch.zeros(field.K.shape[-1], 1, dtype=torch.float64)
    for _ in range(200):
        z = field.K @ y + field.b
        D = (1 - torch.tanh(z).square())[:, 0]
        move = torch.linalg.solve(field.K.T @ torch.diag(D) @ field.K + field.Q, tanh_gradient(field, y))
        share = 1.0
        while float(tanh_energy(field, y - share * move)) > float(tanh_energy(field, y)) and share > 1e-8:
            share /= 2
        y = y - share * move
    assert float(tanh_gradient(field, y).norm()) <= 1e-10
    return float(tanh_energy(field, y))


# ---- the ODE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("J", ["canonical", "j2", "random"])
def test_solutions_of_a_hamiltonian_layer_keep_its_energy(J: str) -> None:
    """dH/dt = <grad H, J grad H> = 0: what is left is the solver's error, 1/16 of it with half its step; a J that is
    not skew does not keep it."""
    for seed in range(3):
        field = random_field(4, 10 * seed, J=skew_matrix(J, 4, seed), gamma=0.0, kappa=0.0)
        y = 2 * randn(4, 50, seed=seed)
        before = tanh_energy(field, y)
        off = [float((tanh_energy(field, solution(field, y, 2.0, steps)) - before).abs().max()) for steps in (200, 800)]
        assert off[1] <= 1e-7 and off[1] <= off[0] / 100
        G = field.skew.J + 0.1 * torch.diag(randn(4, seed=seed))
        moved = rk4(lambda z, G=G, field=field: G @ tanh_gradient(field, z), y, 2.0, 400)
        assert float((tanh_energy(field, moved) - before).abs().max()) > 1e-2


@pytest.mark.parametrize("gamma", [0.3, 3.0])
def test_the_excess_energy_falls_between_two_exponentials(gamma: float) -> None:
    """e^(-2 gamma M t) <= (H - min H)(t) / (H - min H)(0) <= e^(-2 gamma m t)."""
    field = random_field(4, 5, J=SPIN, gamma=gamma, kappa=0.5)
    m, M = field.hessian_bounds()
    least, y = lowest(field), 2 * randn(4, 100, seed=6)
    start = tanh_energy(field, y) - least
    for time in (0.1, 0.5, 1.0):
        share = (tanh_energy(field, solution(field, y, time)) - least) / start
        assert float(share.max()) <= math.exp(-2 * gamma * m * time) * (1 + 1e-6)
        assert float(share.min()) >= math.exp(-2 * gamma * M * time) * (1 - 1e-6)


def test_both_exponentials_are_attained_along_the_axes_of_a_quadratic() -> None:
    m, M, gamma, time = 0.5, 4.0, 0.7, 0.9
    field = quadratic([m, M], torch.zeros(2, 2, dtype=torch.float64), gamma)
    end = solution(field, eye(2), time)
    found = tanh_energy(field, end) / tanh_energy(field, eye(2))
    assert found.tolist() == pytest.approx([math.exp(-2 * gamma * m * time), math.exp(-2 * gamma * M * time)], rel=1e-6)


# ---- one step of a method -------------------------------------------------------------------------------------------

METHODS: dict[str, Callable[[complex, float], complex]] = {  # g(lambda) of y + g(F) grad H, for h = 1 and the centre c
    "euler": lambda z, c: z,
    "etd": lambda z, c: (cmath.exp(c * z) - 1) / c,
    "imex": lambda z, c: z / (1 - c * z),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("gamma", "h"), [(0.0, 0.5), (2.0, 0.1), (2.0, 1.0)])
def test_the_energy_of_one_step_lies_between_the_two_bounds(name: str, gamma: float, h: float) -> None:
    """(Re g + m |g|^2/2) |v|^2 <= H(y+) - H(y) <= (Re g + M |g|^2/2) |v|^2, v = grad H(y), where all modes of J turn
    alike; g of the methods is written here."""
    field, y = random_field(4, 20, J=SPIN, gamma=gamma, kappa=0.3), 2 * randn(4, 300, seed=1)
    method = {"euler": Euler(), "etd": ETD(), "imex": IMEX()}[name]
    change = tanh_energy(field, method.step(field, 0.0, h)(y)) - tanh_energy(field, y)
    size, g = tanh_gradient(field, y).square().sum(0), METHODS[name](h * complex(-gamma, 1), float(field.c))
    m, M = field.hessian_bounds()
    lower, upper = (g.real + bound * abs(g) ** 2 / 2 for bound in (m, M))
    assert bool((change >= lower * size - 1e-9).all()) and bool((change <= upper * size + 1e-9).all())


@pytest.mark.parametrize("eigenvalue", [0.25, 4.0])
def test_the_bounds_of_one_step_are_attained_by_a_quadratic(eigenvalue: float) -> None:
    field = quadratic([eigenvalue] * 4, SPIN, 0.4)
    y, (re, im) = randn(4, 20, seed=2), (-0.3 * 0.4, 0.3)
    change = tanh_energy(field, field.euler(0.0, 0.3)(y)) - tanh_energy(field, y)
    size = tanh_gradient(field, y).square().sum(0)
    torch.testing.assert_close(change, (re + eigenvalue * (re**2 + im**2) / 2) * size, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("J", ["canonical", "j2", "random"])
@pytest.mark.parametrize("h", [0.05, 0.5, 3.0])
def test_explicit_euler_never_loses_energy_without_damping(J: str, h: float) -> None:
    """0 <= H(y+) - H(y) <= h^2 M |J grad H|^2/2, for every step: H is convex and the step tangent to its level set."""
    field = random_field(4, 7, J=skew_matrix(J, 4), gamma=0.0, kappa=0.0)
    y = 2 * randn(4, 300, seed=8)
    step = h * field.skew.J @ tanh_gradient(field, y)
    gained = tanh_energy(field, field.euler(0.0, h)(y)) - tanh_energy(field, y)
    assert float(gained.min()) >= -1e-12
    assert bool((gained <= field.hessian_bounds()[1] / 2 * step.square().sum(0) + 1e-12).all())
    assert float(gained.max()) > 0


@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0])
def test_with_damping_it_never_gains_up_to_two_gamma_over_M_rho_squared(factor: float) -> None:
    """And beyond that the potential M |y|^2/2 gains."""
    m, M = random_field(4, 9, J=SPIN, kappa=0.4).hessian_bounds()
    gamma = factor * smallest_gamma(m, M, SPIN)
    field = random_field(4, 9, J=SPIN, gamma=gamma, kappa=0.4)
    limit = 2 * gamma / (M * (gamma**2 + norm2(SPIN) ** 2))
    y = 2 * randn(4, 500, seed=10)
    for h in (limit, limit / 3):
        assert float((tanh_energy(field, field.euler(0.0, h)(y)) - tanh_energy(field, y)).max()) <= 1e-12
    worst = quadratic([M] * 4, SPIN, gamma)
    for share, gains in ((0.999, False), (1.001, True)):
        change = tanh_energy(worst, worst.euler(0.0, share * limit)(y)) - tanh_energy(worst, y)
        assert bool(((change > 0) == gains).all())


def divergence(of: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """D(a, b) = f(a) - f(b) - <f'(b), a - b> >= 0 of a convex f."""
    return of(a) - of(b) - (slope(b) * (a - b)).sum(0)


@pytest.mark.parametrize("h", [0.05, 0.5, 2.0])
def test_symplectic_euler_changes_the_energy_by_the_difference_of_two_divergences(h: float) -> None:
    """H(y+) - H(y) = D_p(p+, p) - D_q(q, q+): either sign, of the second order in h, for separable H."""
    torch.manual_seed(3)
    flow = HDNN(4, 1, SymplecticEuler(), step=h, separable=True).double()
    field, y = flow.bind()[0][0], 2 * randn(4, 400, seed=11)
    end = flow.steps()[0](y).detach()
    change = tanh_energy(field, end) - tanh_energy(field, y)
    K, b = field.K.detach(), field.b.detach()

    def part(half: slice) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        A, a = K[half, half], b[half]
        return lambda x: torch.log(torch.cosh(A @ x + a)).sum(0), lambda x: A.T @ torch.tanh(A @ x + a)

    q, p = slice(0, 2), slice(2, 4)
    expected = divergence(*part(p), end[p], y[p]) - divergence(*part(q), y[q], end[q])
    torch.testing.assert_close(change, expected, rtol=1e-8, atol=1e-10)
    assert float(change.min()) < 0 < float(change.max())


# ---- an odd number of states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("method", [Euler(), ETD(), IMEX()])
def test_an_odd_number_of_states_keeps_a_linear_function(n: int, method: Euler | ETD | IMEX) -> None:
    """A skew J of odd size has a kernel: J v = 0, and <v, y> stays, for the ODE and, bit by rounding, in every step
    y + g(J) grad H with g(0) = 0."""
    torch.manual_seed(4)
    flow = HDNN(n, 6, method, J="j2").double()
    v = torch.tensor([(-1.0) ** i for i in range(n)], dtype=torch.float64)
    assert float((flow.skew.J @ v).abs().max()) == 0
    y = 2 * randn(50, n, seed=12)
    kept = [state @ v for state in flow.states(y)]
    assert max(float((each - kept[0]).abs().max()) for each in kept) <= 1e-11
    field = flow.exact().bind()[0][0]
    assert float((v @ solution(field, y.T, 2.0) - kept[0]).abs().max()) <= 1e-11
    assert float((flow(y) - y).norm(dim=1).min()) > 0.1, "the states themselves move"

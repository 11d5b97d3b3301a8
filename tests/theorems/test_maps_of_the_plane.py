"""What flows and homeomorphisms of the plane cannot do to nested circles (docs/theory.md, section 25)."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from problems import TANH, eye, norm2, randn
from torch import Tensor, nn

from robode.families.gradient_flow import DescentField
from robode.families.residual import Residual, ResidualField
from robode.integrators.euler import Euler
from robode.linalg.activations import named_activation
from robode.ode.layer import Layer
from robode.quantities.layer_states import bulge, layers_of, least_determinant


def circle(radius: float, count: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def planar(seed: int, scale: float = 1.0, width: int = 2, depth: int = 8) -> Residual:
    torch.manual_seed(seed)
    return Residual(width, depth, Euler(), step=0.25, hidden=3, init_std=scale).double()


def determinant(flow: Residual) -> float:
    return least_determinant([layer for step in flow.steps() for layer in layers_of(step) if layer is not None])


def of_interval(values: Tensor) -> tuple[float, float, float]:
    """Least and largest of a function on a circle, and by how much it changes between neighbours at most."""
    return float(values.min()), float(values.max()), float((values - values.roll(1)).abs().max())


# ---- when a layer is a homeomorphism --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(2, 2), (2, 3), (3, 3), (3, 5)])
def test_the_least_determinant_over_slopes_lies_at_a_vertex(n: int, k: int) -> None:
    """det(A + B D K) is affine in each slope: no slopes in the box go below the vertices."""
    for seed in range(10):
        A, B, K = eye(n) + 0.2 * randn(n, n, seed=seed), randn(n, k, seed=seed + 1), randn(k, n, seed=seed + 2)
        least = least_determinant([Layer(A, B, K, torch.zeros(k, 1), TANH)])
        inside = torch.rand(2000, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found = torch.linalg.det(A + (B * inside[:, None, :]) @ K)
        box = torch.tensor(list(itertools.product((0.0, 1.0), repeat=k)), dtype=torch.float64)
        corners = [float(torch.linalg.det(A + B @ torch.diag(D) @ K)) for D in box]
        assert float(found.min()) >= least
        assert least == pytest.approx(min(corners), abs=1e-9)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_layers_with_positive_determinants_separate_all_points(activation: str) -> None:
    """phi(x) - phi(y) = (A + B D K)(x - y) with difference quotients D: at least the least singular value times
    ||x - y|| apart, and D stays in the box, where that is positive."""
    sigma, found = named_activation(activation), 0
    for seed in range(60):
        layer = Layer(eye(2), 0.6 * randn(2, 3, seed=seed), randn(3, 2, seed=seed + 100), randn(3, 1, seed=seed), sigma)
        if least_determinant([layer]) <= 0:
            continue
        found += 1
        mesh = torch.linspace(0, 1, 21, dtype=torch.float64)
        D = torch.cartesian_prod(mesh, mesh, mesh)
        least = float(torch.linalg.svdvals(layer.A + (layer.B * D[:, None, :]) @ layer.K)[:, -1].min())
        x, y = 4 * randn(2, 4000, seed=seed + 7), 4 * randn(2, 4000, seed=seed + 8)
        share = (layer(x) - layer(y)).norm(dim=0) / (x - y).norm(dim=0)
        assert 0 < 0.8 * least <= float(share.min())
    assert found >= 10


def test_and_with_a_negative_one_and_full_rank_two_points_meet() -> None:
    """Where K has as many independent rows as neurons, every slope occurs: the determinant changes its sign, and near
    that place two points have one image. x - c tanh x is the example: injective exactly for c <= 1."""
    for c, injective in ((0.99, True), (1.01, False)):
        layer = Layer(eye(1), torch.tensor([[-c]]).double(), eye(1), torch.zeros(1, 1).double(), TANH)
        assert (least_determinant([layer]) > 0) == injective
        x = torch.linspace(-1, 1, 2001, dtype=torch.float64)[None]
        assert bool((layer(x).diff() > 0).all()) == injective
    folds = 0
    for seed in range(40):
        layer = Layer(eye(2), randn(2, 2, seed=seed), randn(2, 2, seed=seed + 50), torch.zeros(2, 1).double(), TANH)
        least = least_determinant([layer])
        preimages = torch.linalg.solve(layer.K, torch.cartesian_prod(*[torch.linspace(-6, 6, 241).double()] * 2).T)
        found = float(torch.linalg.det(layer.jacobian(preimages)).min())
        assert (found < 0) == (least < -1e-3) or abs(least) <= 1e-2
        folds += found < 0
    assert 5 <= folds <= 35


@pytest.mark.parametrize(("step", "positive"), [(0.99, True), (1.01, False)])
def test_a_gradient_layer_is_a_homeomorphism_exactly_below_half_of_its_longest_step(
    step: float, positive: bool
) -> None:
    """det(I - tau W^T D W) = 0 first where tau ||W||^2 = 1: half of what is 1-Lipschitz."""
    W, b = randn(3, 3, seed=1), torch.zeros(3, 1).double()
    tau = step / norm2(W) ** 2
    field = DescentField(W, b, TANH)
    (layer,) = layers_of(field.euler(0.0, tau))
    assert layer is not None
    y = randn(3, 20, seed=2)
    torch.testing.assert_close(layer(y), field.euler(0.0, tau)(y))
    assert (least_determinant([layer]) > 0) == positive
    tied = ResidualField(-W, W, b, TANH).euler(0.0, tau)
    assert least_determinant([tied]) == pytest.approx(least_determinant([layer]), abs=1e-9)


# ---- the maximum principle of homeomorphisms of the plane -----------------------------------------------------------


def test_a_linear_function_of_a_homeomorphism_is_extreme_on_the_rim() -> None:
    """Whatever the layers and the head: its range over a circle contains that over every circle inside."""
    tried = 0
    for seed in range(60):
        flow = planar(seed, scale=0.4 + 0.02 * seed)
        if determinant(flow) <= 0:
            continue
        tried += 1
        normal = randn(2, seed=seed)
        with torch.no_grad():
            ranges = [of_interval(flow(circle(r, 4000)) @ normal) for r in (0.5, 1.0, 2.0, 3.0, 4.0)]
        for (low, high, _), (lower, higher, slack) in itertools.pairwise(ranges):
            assert lower <= low + slack and high <= higher + slack
    assert tried >= 15


class Whole(nn.Module):
    """A flow between zeros that are appended and a linear head with two outputs."""

    def __init__(self, flow: Residual, head: Tensor):
        super().__init__()
        self.flow, self.head = flow, nn.Parameter(head)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([x, x.new_zeros(len(x), self.flow.width - 2)], 1)
        out: Tensor = self.flow(y) @ self.head.T
        return out


def test_nested_circles_beat_every_homeomorphism_that_was_trained_on_them() -> None:
    """Training tries to break it: layers that stay homeomorphisms (weights are scaled back) always leave a point of the
    outer or of the inner circle on the wrong side."""
    for seed in (0, 1):
        flow = planar(seed, scale=0.5, depth=6)
        network = Whole(flow, randn(2, 2, seed=seed))
        inner, outer = circle(1.0, 400), circle(2.0, 400)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        for _ in range(150):
            optimizer.zero_grad()
            logits = network(torch.cat([inner, outer]))
            labels = torch.arange(800) // 400
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            while determinant(flow) <= 0.05:
                flow.A.data *= 0.95
        with torch.no_grad():
            of_inner, of_outer = (network(circle(r, 20000)) for r in (1.0, 2.0))
        margin_inner, margin_outer = of_inner[:, 1] - of_inner[:, 0], of_outer[:, 1] - of_outer[:, 0]
        low, high, slack = of_interval(margin_outer)
        assert low <= float(margin_inner.min()) + slack and float(margin_inner.max()) <= high + slack
        assert not (float(margin_inner.max()) < -slack and low > slack), "no separation without a doubt"
        assert bulge(network, 2.0) <= 1e-3


def bump_field(n: int, scale: float) -> ResidualField:
    """f adds scale (tanh(x1 + 1) - tanh(x1 - 1) + tanh(x2 + 1) - tanh(x2 - 1)) to the last of n entries."""
    B = torch.zeros(4, n).double()
    B[:2, 0], B[2:, 1] = 1, 1
    A = torch.zeros(4, n).double()
    A[:, -1] = scale * torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    return ResidualField(A, B, torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double(), TANH)


def margin(n: int, scale: float) -> Callable[[float], Tensor]:
    """The last entry after one layer, on a circle of a radius."""
    step = bump_field(n, scale).euler(0.0, 1.0)
    return lambda r: step(torch.cat([circle(r, 2000).T, torch.zeros(n - 2, 2000).double()]))[-1]


def test_a_third_entry_separates_them_by_a_homeomorphism_and_a_fold_of_the_plane_does_so_too() -> None:
    """In R^3 one gentle layer lifts the middle. In the plane the same layer must fold: its least determinant is below
    0 as soon as the middle is lifted above the rim."""
    lifted = margin(3, 0.05)
    assert least_determinant([bump_field(3, 0.05).euler(0.0, 1.0)]) > 0.5
    assert float(lifted(1.0).min()) > float(lifted(3.0).max())
    folded = margin(2, 6.0)
    assert least_determinant([bump_field(2, 6.0).euler(0.0, 1.0)]) < 0
    assert float(folded(0.1).max()) > float(folded(3.0).max()) + 1
    gentle = margin(2, 0.05)
    assert least_determinant([bump_field(2, 0.05).euler(0.0, 1.0)]) > 0
    assert float(gentle(0.1).max()) < float(gentle(3.0).max())

"""SympNets: every step keeps the symplectic form and volume and can be undone, whatever the weights are.

docs/theory.md, section 24.
"""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import norm2, randn
from torch import Tensor

from robode.families.residual import Residual
from robode.families.sympflow import SympFlow
from robode.families.sympnet import SympNet
from robode.integrators.euler import Euler
from robode.linalg.activations import ACTIVATIONS, named_activation
from robode.linalg.skew import canonical
from robode.ode.enclosure import Enclosure
from robode.ode.guarantees import SYMPLECTIC
from robode.ode.shear import LinearShear, RidgeShear, Shear
from robode.ode.step import Step

FORM = 1e-10  # of ||B||^2: what rounding may leave of B^T J B - J

networks = st.builds(
    lambda d, depth, hidden, modules, activation, std, step, seed: sympnet(
        2 * d, depth, seed, hidden=hidden, modules=modules, activation=activation, init_std=std, step=step
    ),
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.sampled_from(["gradient", "la"]),
    st.sampled_from(sorted(ACTIVATIONS)), st.floats(0.1, 3.0), st.floats(0.01, 1.0), st.integers(0, 2**20),
)  # fmt: skip


def sympnet(width: int, depth: int, seed: int, step: float = 0.3, **keys) -> SympNet:
    torch.manual_seed(seed)
    return SympNet(width, depth, Euler(), step=step, **keys).double().requires_grad_(False)


def off_the_form(B: Tensor) -> float:
    """The largest entry of B^T J B - J, over ||B||^2. B: (M, n, n)."""
    J = canonical(B.shape[-1])
    return float((B.mT @ J @ B - J).abs().amax()) / max(norm2(B) ** 2, 1.0)


@settings(max_examples=40, deadline=None)
@example(sympnet(6, 1, 48, 1.0, hidden=1, modules="la", activation="leaky_relu", init_std=3.0), 0)  # ||B|| = 2.5e5
@given(networks, st.integers(0, 2**20))
def test_every_step_and_the_flow_keep_the_symplectic_form_and_volume(flow: SympNet, seed: int) -> None:
    y = randn(7, flow.width, seed=seed)
    product = torch.eye(flow.width, dtype=torch.float64)
    for B in flow.step_jacobians(y):
        assert off_the_form(B) <= FORM
        product = B @ product
    assert off_the_form(product) <= FORM
    size = norm2(product) ** flow.width
    assert float((torch.linalg.det(product) - 1).abs().max()) <= 1e-12 * max(size, 1.0)
    assert SYMPLECTIC.violations(flow, y) == []


@pytest.mark.parametrize("modules", ["gradient", "la"])
def test_the_jacobian_of_the_whole_network_by_autograd_is_symplectic(modules: str) -> None:
    """Composition: what the code computes, not what its steps say of themselves; in n = 6."""
    flow, y = sympnet(6, 3, seed=1, modules=modules), randn(5, 6, seed=2)
    B = torch.func.vmap(torch.func.jacrev(lambda x: flow(x[None])[0]))(y)
    assert off_the_form(B) <= 1e-12 and float((torch.linalg.det(B) - 1).abs().max()) <= 1e-10
    product = torch.eye(6, dtype=torch.float64)
    for step in flow.step_jacobians(y):
        product = step @ product
    torch.testing.assert_close(B, product, rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(networks, st.integers(0, 2**20))
def test_the_inverse_undoes_the_network_and_the_network_its_inverse(flow: SympNet, seed: int) -> None:
    y = randn(7, flow.width, seed=seed)
    for there, back in ((flow.forward, flow.inverse), (flow.inverse, flow.forward)):
        z = there(y)
        # each shear rounds by the size of what it moves through, and the way back stretches that
        bound = (
            1e-13
            * max(float(s.abs().max()) for s in (y, z))
            * max(norm2(b) for b in flow.step_jacobians(y)) ** (2 * flow.depth)
        )
        assert float((back(z) - y).abs().max()) <= max(bound, 1e-12)


def test_the_inverse_of_a_small_network_is_exact_to_round_off() -> None:
    flow, y = sympnet(2, 4, seed=3), randn(1000, 2, seed=4)
    assert float((flow.inverse(flow(y)) - y).abs().max()) <= 1e-14
    assert float((flow(y) - y).abs().max()) > 0.1, "and it is no identity"


def test_a_thousand_iterations_do_not_spoil_it() -> None:
    """The form is kept along a whole trajectory: errors of rounding do not pile up beyond their number."""
    flow, y = sympnet(2, 2, seed=5, step=0.05, init_std=0.5), 0.3 * randn(3, 2, seed=6)
    product, z = torch.eye(2, dtype=torch.float64), y
    for _ in range(1000):
        for B in flow.step_jacobians(z):
            product = B @ product
        z = flow(z)
    assert off_the_form(product) <= FORM
    for _ in range(1000):
        z = flow.inverse(z)
    assert float((z - y).abs().max()) <= 1e-10 * norm2(product)


# ---- the layers are the published ones ------------------------------------------------------------------------------


def test_a_gradient_layer_is_the_published_one() -> None:
    """q+ = q + h K^T diag(w) tanh(K p + b);  p+ = p - h K'^T diag(w') tanh(K' q+ + b')."""
    flow, y = sympnet(4, 1, seed=7, hidden=5), randn(6, 4, seed=8)
    q, p = y[:, :2], y[:, 2:]
    (K, L), (b, c), (w, v) = flow.K, flow.b[..., 0], flow.w[..., 0]
    q = q + 0.3 * (w * torch.tanh(p @ K.T + b)) @ K
    p = p - 0.3 * (v * torch.tanh(q @ L.T + c)) @ L
    torch.testing.assert_close(flow(y), torch.cat([q, p], dim=1), rtol=1e-12, atol=1e-12)


def test_an_la_layer_is_the_published_one() -> None:
    """Linear shears in turn, then q + h w * tanh(p), linear shears, p - h w' * tanh(q), linear shears."""
    flow, y = sympnet(4, 1, seed=9, modules="la", sublayers=2), randn(6, 4, seed=10)
    q, p = y[:, :2], y[:, 2:]

    def linear(q: Tensor, p: Tensor, j: int) -> tuple[Tensor, Tensor]:
        (S, T), (b, c) = (flow.S[j] + flow.S[j].mT) / 2, flow.b[j, ..., 0]
        q = q + 0.3 * (p @ S + b)
        return q, p - 0.3 * (q @ T + c)

    q, p = linear(q, p, 0)
    q = q + 0.3 * flow.w[0, :, 0] * torch.tanh(p)
    q, p = linear(q, p, 1)
    p = p - 0.3 * flow.w[1, :, 0] * torch.tanh(q)
    q, p = linear(q, p, 2)
    torch.testing.assert_close(flow(y), torch.cat([q, p], dim=1), rtol=1e-12, atol=1e-12)


# ---- what is not symplectic is noticed ------------------------------------------------------------------------------


class NoGradient(RidgeShear):
    """q + grad U(p) + R p with an R that is not symmetric, so that the sum is the gradient of nothing."""

    def hessian(self, z: Tensor) -> Tensor:
        return super().hessian(z) + torch.triu(torch.ones(2, 2, dtype=z.dtype), 1)

    def gradient(self, z: Tensor) -> Tensor:
        return super().gradient(z) + torch.triu(torch.ones(2, 2, dtype=z.dtype), 1) @ z


def broken_steps() -> dict[str, Step]:
    flow = sympnet(4, 1, seed=11)
    K, w, b = flow.K[0], flow.w[0], flow.b[0]
    skewed = torch.tensor([[1.0, 0.5], [-0.5, 1.0]], dtype=torch.float64)
    return {
        "a linear shear whose S is not symmetric": LinearShear(True, skewed, torch.zeros(2, 1, dtype=torch.float64)),
        "a shear along no gradient": NoGradient(True, K, w, b, flow.activation),
    }


@pytest.mark.parametrize("name", broken_steps())
def test_a_move_along_no_gradient_is_not_symplectic_though_it_keeps_volume(name: str) -> None:
    step = broken_steps()[name]
    B = step.jacobian(randn(4, 5, seed=12))
    assert off_the_form(B) > 1e-3
    assert float((torch.linalg.det(B) - 1).abs().max()) <= 1e-12, "volume alone says too little in four dimensions"


def test_the_guarantee_notices_a_residual_network_and_a_broken_step(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    y = randn(20, 4, seed=13)
    found = SYMPLECTIC.violations(Residual(4, 2, Euler()).exact().requires_grad_(False), y)
    assert "step 1 is not symplectic" in found and "step 2 cannot be undone" in found
    flow = sympnet(4, 2, seed=14)
    monkeypatch.setattr(RidgeShear, "inverse", lambda step, y: step(y))
    assert SYMPLECTIC.violations(flow, y) == ["step 1 cannot be undone", "step 2 cannot be undone"]


# ---- constants ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 9), st.sampled_from(sorted(ACTIVATIONS)), st.booleans(), st.floats(0.1, 3.0),
    st.integers(0, 2**20),
)  # fmt: skip
def test_the_lipschitz_constant_of_a_shear_is_that_of_its_worst_slopes(
    d: int, k: int, activation: str, upper: bool, size: float, seed: int
) -> None:
    """From both sides: no Jacobian exceeds it, and one of slopes that the activation has attains it."""
    K, w, b = (size * randn(k, columns, seed=seed + j) for j, columns in enumerate((d, 1, 1)))
    shear = RidgeShear(upper, K, w, b, named_activation(activation))
    certified = shear.lipschitz()
    assert norm2(shear.jacobian(3 * randn(2 * d, 50, seed=seed))) <= certified
    reached = 0.0
    low, high = shear.activation.slopes
    for sign in (1, -1):
        D = torch.where(sign * w > 0, high, low)
        M = K.mT @ (w * D * K)
        B = torch.eye(2 * d, dtype=torch.float64)
        B[:d, d:] = M
        reached = max(reached, norm2(B))
    assert certified <= reached * (1 + 1e-8)


def test_the_norm_of_a_shear_in_closed_form() -> None:
    """(m + sqrt(m^2 + 4))/2, m the norm of its block; the golden ratio at m = 1."""
    S = torch.diag(torch.tensor([-1.0, 0.3], dtype=torch.float64))
    shear = LinearShear(False, S, torch.zeros(2, 1, dtype=torch.float64))
    assert shear.lipschitz() == pytest.approx((1 + math.sqrt(5)) / 2, rel=1e-8)
    assert norm2(shear.jacobian(randn(4, 1, seed=0))) == pytest.approx(shear.lipschitz(), rel=1e-8)


@pytest.mark.parametrize("modules", ["gradient", "la"])
def test_boxes_are_enclosed(modules: str) -> None:
    flow = sympnet(4, 2, seed=15, modules=modules)
    centre, half = randn(4, 3, seed=16), 0.2
    box = Enclosure(
        centre, half * torch.diag_embed(torch.ones_like(centre.T)).permute(1, 2, 0), torch.zeros_like(centre)
    )
    points = centre[:, :, None] + half * (2 * torch.rand(4, 3, 500, dtype=torch.float64) - 1)
    for step in flow.steps():
        box, points = step.enclose(box), step(points.flatten(1)).unflatten(1, (3, 500))
    apart = (points - box.centre[..., None]).abs().amax(-1)
    assert bool((apart <= box.radius).all())
    assert float((box.radius / apart).max()) < 4, "and the boxes are no larger than they must be"


def test_a_shear_moves_one_half_alone() -> None:
    y = randn(4, 9, seed=17)
    for upper in (True, False):
        shear: Shear = RidgeShear(upper, *(randn(3, n, seed=n) for n in (2, 1, 1)), named_activation("tanh"))
        still, moves = (slice(2, 4), slice(0, 2)) if upper else (slice(0, 2), slice(2, 4))
        z = shear(y)
        assert torch.equal(z[still], y[still]) and float((z - y)[moves].abs().min()) > 0


# ---- SympFlow: every time -------------------------------------------------------------------------------------------


def sympflow(width: int, seed: int, **keys) -> SympFlow:
    torch.manual_seed(seed)
    return SympFlow(width, 3, Euler(), **keys).double().requires_grad_(False)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from(sorted(ACTIVATIONS)), st.floats(0.1, 3.0), st.floats(-5.0, 5.0),
    st.integers(0, 2**20),
)  # fmt: skip
def test_a_sympflow_is_symplectic_and_invertible_for_every_time(
    d: int, activation: str, std: float, time: float, seed: int
) -> None:
    flow = sympflow(2 * d, seed, activation=activation, init_std=std)
    y, t = randn(6, 2 * d, seed=seed), time * torch.rand(6, 1, dtype=torch.float64)
    product = torch.eye(2 * d, dtype=torch.float64)
    for B in flow.step_jacobians(y, t):
        assert off_the_form(B) <= FORM
        product = B @ product
    assert off_the_form(product) <= FORM
    assert float((torch.linalg.det(product) - 1).abs().max()) <= 1e-12 * max(norm2(product) ** (2 * d), 1.0)
    z = flow(y, t)
    assert float((flow.inverse(z, t) - y).abs().max()) <= 1e-12 * max(norm2(product) ** 2 * float(z.abs().max()), 1.0)


def test_its_jacobian_in_the_state_by_autograd_is_symplectic_and_in_the_time_is_none() -> None:
    flow, y, t = sympflow(4, seed=2), randn(5, 4, seed=3), randn(5, 1, seed=4)
    B = torch.func.vmap(torch.func.jacrev(lambda x, s: flow(x[None], s[None])[0]))(y, t)
    assert off_the_form(B) <= 1e-12
    assert float((flow(y, t) - flow(y, t + 0.1)).abs().min()) > 0, "it depends on the time"


def test_at_time_zero_it_is_the_identity_to_the_last_bit_of_its_sums() -> None:
    flow, y = sympflow(6, seed=5), randn(50, 6, seed=6)
    assert float((flow(y, torch.zeros(50, 1, dtype=torch.float64)) - y).abs().max()) <= 1e-14
    assert float((flow(y, torch.ones(50, 1, dtype=torch.float64)) - y).abs().max()) > 0.1


def test_each_state_has_its_own_time() -> None:
    flow, y, t = sympflow(2, seed=7), randn(4, 2, seed=8), randn(4, 1, seed=9)
    alone = torch.cat([flow(y[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(flow(y, t), alone, rtol=1e-13, atol=1e-13)


def test_a_sympflow_layer_is_the_published_one() -> None:
    """q + K^T diag(w) (tanh(K p + a t + b) - tanh(K p + b)), then p likewise with a minus."""
    torch.manual_seed(10)
    flow = SympFlow(4, 1, Euler(), hidden=3).double().requires_grad_(False)
    y, t = randn(6, 4, seed=11), randn(6, 1, seed=12)
    q, p = y[:, :2], y[:, 2:]
    (K, L), (w, v), (a, e), (b, c) = flow.K, flow.w[..., 0], flow.a[..., 0], flow.b[..., 0]
    q = q + (w * (torch.tanh(p @ K.T + t * a + b) - torch.tanh(p @ K.T + b))) @ K
    p = p - (v * (torch.tanh(q @ L.T + t * e + c) - torch.tanh(q @ L.T + c))) @ L
    torch.testing.assert_close(flow(y, t), torch.cat([q, p], dim=1), rtol=1e-12, atol=1e-12)

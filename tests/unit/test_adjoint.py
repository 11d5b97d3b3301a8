"""Gradients by the continuous adjoint: those of the ODE, for everything that a field holds (integrators/adjoint.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from problems import randn
from torch import Tensor

from robode.errors import BadInput, JobFailed
from robode.families.node import MLPField
from robode.integrators import adaptive
from robode.integrators.adaptive import Dopri5
from robode.integrators.adjoint import WithAdjoint
from robode.integrators.integrator import Substeps
from robode.integrators.runge_kutta import RK4, RK38, Midpoint
from robode.linalg.activations import named_activation
from robode.linalg.convolution import Convolution
from robode.ode.bounds import Scalar
from robode.ode.enclosure import Enclosure
from robode.ode.field import OneLayerField, VectorField

TANH = named_activation("tanh")
FIXED = (Midpoint, RK4, RK38)
METHODS: tuple[Callable[[str], WithAdjoint], ...] = (*FIXED, lambda way: Dopri5(1e-9, 1e-9, way))


@dataclass(frozen=True)
class Controlled(VectorField):
    """f(t, y; x) = (1 + t) tanh(gain (W(x) y + b)). W: (M, n, n), one matrix a state; gain: 0-d."""

    W: Tensor
    layers: tuple[OneLayerField, ...]
    gain: Tensor
    autonomous = False

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        z = torch.einsum("mij,jm->im", self.W, y)
        return (1 + t) * torch.tanh(self.gain * (z + self.layers[0](t, y)))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Pictures(VectorField):
    """tanh(A * u + b) on images."""

    A: Convolution
    b: Tensor

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return torch.tanh(self.A(y, self.b))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(VectorField):
    """K y + Q y."""

    K: Tensor
    Q: Tensor

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.K @ y + self.Q @ y

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        return (self.K + self.Q).expand(y.shape[1], -1, -1)


class Hidden(VectorField):
    """What it holds stands in no dataclass."""

    def __init__(self, K: Tensor):
        self.K = K

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.K @ y

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise NotImplementedError


def controlled(seed: int = 0) -> tuple[VectorField, Tensor, list[Tensor]]:
    """A field, a first state, and the leaves behind both: W(x) is a function of one of them."""
    y, x, V = randn(3, 5, seed=seed), randn(5, 2, seed=seed + 1), 0.5 * randn(2, 9, seed=seed + 2)
    K, b, gain = randn(3, 3, seed=seed + 3), randn(3, 1, seed=seed + 4), torch.tensor(0.7, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (y, x, V, K, b, gain)]
    return Controlled((x @ V).view(5, 3, 3), (OneLayerField(K, b, TANH),), gain), y, leaves


def mlp() -> tuple[VectorField, Tensor, list[Tensor]]:
    leaves = [
        randn(*shape, seed=i).requires_grad_() for i, shape in enumerate([(3, 4), (6, 3), (3, 6), (6, 1), (3, 1)])
    ]
    y, A, B, a, b = leaves
    return MLPField([A, B], [a, b], TANH), y, leaves


def pictures() -> tuple[VectorField, Tensor, list[Tensor]]:
    leaves = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate([(2, 3, 4, 5), (3, 3, 3, 3), (3,)])]
    return Pictures(Convolution(0.4 * leaves[1]), leaves[2]), leaves[0], leaves


PROBLEMS = (controlled, mlp, pictures)


def solved(method: WithAdjoint, field: VectorField, y: Tensor, steps: int, horizon: Scalar = 1.0) -> Tensor:
    """The state at the horizon."""
    for step in method.steps([field] * steps, horizon / steps):
        y = step(y)
    return y


def gradients(
    method: WithAdjoint, problem: Callable[[], tuple[VectorField, Tensor, list[Tensor]]], steps: int
) -> Tensor:
    """Of a loss with respect to all leaves and to the horizon, in one vector."""
    field, y, leaves = problem()
    horizon = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    loss = solved(method, field, y, steps, horizon).square().sum()
    found = torch.autograd.grad(loss, [*leaves, horizon])
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("make", METHODS)
def test_the_forward_pass_is_that_of_the_step_bit_by_bit(make, problem) -> None:
    field, y, _ = problem()
    plain = solved(make("backprop"), field, y, 3)
    assert torch.equal(solved(make("adjoint"), field, y, 3), plain)
    with torch.no_grad():
        assert torch.equal(solved(make("adjoint"), field, y, 3), plain)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("make", FIXED)
def test_gradients_approach_those_of_back_propagation_at_the_order_of_the_method(make, problem) -> None:
    few, many = 32, 128
    gaps = [
        float((gradients(make("adjoint"), problem, n) - gradients(make("backprop"), problem, n)).norm())
        for n in (few, many)
    ]
    order = math.log(gaps[0] / gaps[1]) / math.log(many / few)
    assert order == pytest.approx(make("adjoint").order, abs=0.3)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_dopri5_gives_them_to_within_its_tolerances(problem) -> None:
    exact = gradients(Dopri5(1e-11, 1e-11), problem, 2)
    for tolerance in (1e-4, 1e-6, 1e-8):
        found = gradients(Dopri5(tolerance, tolerance, "adjoint"), problem, 2)
        torch.testing.assert_close(found, exact, rtol=50 * tolerance, atol=50 * tolerance * float(exact.abs().max()))


def test_a_small_loss_is_no_reason_for_long_steps() -> None:
    """Tolerances are a share of the gradient that comes in, not absolute."""
    field, y, leaves = mlp()
    out = solved(Dopri5(1e-6, 1e-6, "adjoint"), field, y, 1).sum()
    large = torch.autograd.grad(out, leaves, retain_graph=True)
    small = torch.autograd.grad(2.0**-40 * out, leaves)
    for a, b in zip(large, small, strict=True):
        torch.testing.assert_close(2.0**40 * b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", METHODS)
def test_gradients_are_finite_differences_of_the_exact_flow(make) -> None:
    """exp(K + Q) y with Q a function of K: what the field holds twice counts once."""
    K, y, side = 0.5 * randn(3, 3, seed=1), randn(3, 4, seed=2), randn(3, 4, seed=3)

    def exact(K: Tensor, y: Tensor) -> float:
        return float((side * (torch.linalg.matrix_exp(K + K.mT @ K) @ y)).sum())

    leaves = K.clone().requires_grad_(), y.clone().requires_grad_()
    field = Linear(leaves[0], leaves[0].mT @ leaves[0])
    (side * solved(make("adjoint"), field, leaves[1], 100)).sum().backward()
    eps, tolerance = 1e-6, 1e-3 if make is Midpoint else 1e-6
    for which, leaf in enumerate(leaves):
        for index in range(leaf.numel()):
            ends = []
            for sign in (1, -1):
                at = [K.clone(), y.clone()]
                at[which].view(-1)[index] += sign * eps
                ends.append(exact(*at))
            assert leaf.grad is not None
            assert float(leaf.grad.view(-1)[index]) == pytest.approx((ends[0] - ends[1]) / (2 * eps), abs=tolerance)


def test_float32_states_and_float64_numbers_keep_their_types() -> None:
    field, y, _ = mlp()
    K, h = randn(3, 3, seed=1).float().requires_grad_(), torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    start = y.detach().float()  # needs no gradient
    out = RK4("adjoint").step(OneLayerField(K, torch.zeros(3, 1), TANH), 0.0, h)(start)
    out.sum().backward()
    assert out.dtype == K.grad.dtype == torch.float32 and h.grad.dtype == torch.float64
    plain = torch.autograd.grad(RK4().step(OneLayerField(K, torch.zeros(3, 1), TANH), 0.0, h)(start).sum(), [K, h])
    torch.testing.assert_close(K.grad, plain[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(h.grad, plain[1], rtol=1e-3, atol=1e-4)


def test_weights_are_those_of_the_forward_pass() -> None:
    """Frozen afterwards, they get their gradients all the same; changed in place, torch refuses, as it does else."""
    field, y, leaves = mlp()
    out = solved(RK4("adjoint"), field, y, 2).sum()
    (before,) = torch.autograd.grad(out, y, retain_graph=True)
    leaves[1].requires_grad_(False)
    (after,) = torch.autograd.grad(out, y, retain_graph=True)
    assert torch.equal(after, before)
    with torch.no_grad():
        leaves[2].mul_(2)
    with pytest.raises(RuntimeError, match="inplace operation"):
        torch.autograd.grad(out, y)


def test_a_field_that_is_a_constant_hands_the_gradient_on() -> None:
    y = randn(3, 2, seed=0).requires_grad_()
    still = OneLayerField(torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64), TANH)

    @dataclass(frozen=True)
    class Constant(OneLayerField):
        def __call__(self, t: Scalar, y: Tensor) -> Tensor:
            return self.b.expand_as(y)

    (3 * RK4("adjoint").step(Constant(still.K, still.b, TANH), 0.0, 0.5)(y)).sum().backward()
    assert torch.equal(y.grad, torch.full_like(y, 3.0))


def test_what_no_dataclass_holds_is_refused_and_not_lost() -> None:
    y, K = randn(3, 2, seed=0), randn(3, 3, seed=1)
    method = RK4("adjoint")
    with pytest.raises(BadInput, match=r"integrator.gradient=adjoint: Hidden .* expected integrator.gradient=backprop"):
        method.step(Hidden(K.clone().requires_grad_()), 0.0, 0.1)(y)
    method.step(Hidden(K), 0.0, 0.1)(y.requires_grad_()).sum().backward()  # needs none: nothing to lose
    assert y.grad is not None


@pytest.mark.parametrize("make", METHODS)
def test_another_way_is_refused(make) -> None:
    with pytest.raises(BadInput, match="integrator.gradient: expected one of backprop, adjoint, got 'forward'"):
        make("forward")


@pytest.mark.parametrize("make", METHODS)
def test_jacobian_certificate_and_enclosure_are_those_of_the_step(make) -> None:
    field, y, _ = mlp()
    plain, adjoint = (make(way).step(field, 0.0, 0.1) for way in ("backprop", "adjoint"))
    assert adjoint.lipschitz() == plain.lipschitz()
    assert torch.equal(adjoint.jacobian(y), plain.jacobian(y))
    box = Enclosure(y.detach(), torch.zeros(3, 0, 4, dtype=torch.float64), torch.full_like(y.detach(), 0.1))
    if make in FIXED:
        assert torch.equal(adjoint.enclose(box).radius, plain.enclose(box).radius)
    else:
        with pytest.raises(BadInput):
            adjoint.enclose(box)


def test_gradients_of_gradients_are_refused() -> None:
    field, y, _ = mlp()
    (first,) = torch.autograd.grad(RK4("adjoint").step(field, 0.0, 0.1)(y).square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
    assert not RK4("adjoint").twice_differentiable and RK4().twice_differentiable


def test_a_reference_solver_keeps_the_way() -> None:
    refined = Dopri5(gradient="adjoint").refined()
    assert isinstance(refined, Dopri5) and refined.gradient == "adjoint"
    finer = RK4("adjoint").refined()
    assert isinstance(finer, Substeps) and isinstance(finer.inner, RK4) and finer.inner.gradient == "adjoint"


def test_a_failure_on_the_way_back_is_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    field, y, _ = mlp()
    out = solved(Dopri5(1e-8, 1e-8, "adjoint"), field, y, 1)
    monkeypatch.setattr(adaptive, "MAX_STEPS", 1)
    with pytest.raises(JobFailed, match="integrator=dopri5: over 1 steps"):
        out.sum().backward()


def kept(method: WithAdjoint, steps: int) -> int:
    """Bytes that a forward pass keeps for its gradients, each storage once."""
    field, y, _ = mlp()
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = solved(method, field, y, steps)
    del out
    return sum(found.values())


@pytest.mark.parametrize("make", METHODS)
def test_each_layer_keeps_a_state_or_two(make) -> None:
    """3 x 4 numbers; dopri5's last state is a part of both ends."""
    states = {way: (kept(make(way), 11) - kept(make(way), 10)) / (3 * 4 * 8) for way in ("backprop", "adjoint")}
    assert states["adjoint"] == (1 if make in FIXED else 2)
    assert states["backprop"] > 5 * states["adjoint"]

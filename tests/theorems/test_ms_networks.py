"""MS1, MS2 and MS3: the formulas, the forms and volumes that their steps keep, and Verlet's order and symmetry
(docs/theory.md, section 25)."""

import pytest
import torch
from problems import norm2, randn
from torch import Tensor

from robode.errors import BadInput
from robode.families.antisymmetric import Antisymmetric
from robode.families.hdnn import HDNN
from robode.families.resnet import ResNet
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.integrators.verlet import Verlet
from robode.ode.sensitivity import bsm_norms


def ms1(depth: int = 3, step: float = 0.5, integrator: Integrator | None = None, width: int = 4) -> Antisymmetric:
    torch.manual_seed(1)
    return Antisymmetric(width, depth, integrator or Verlet(), step=step, blocks=True).double()


def ms2(depth: int = 3, step: float = 0.5, width: int = 4) -> Antisymmetric:
    torch.manual_seed(2)
    return Antisymmetric(width, depth, Euler(), step=step).double()


def ms3(depth: int = 3, step: float = 0.5, integrator: Integrator | None = None) -> HDNN:
    torch.manual_seed(3)
    return HDNN(4, depth, integrator or Verlet(), step=step, separable=True).double()


@torch.no_grad()
def test_the_steps_are_the_published_formulas() -> None:
    y, h = randn(6, 4, seed=1), 0.5
    q, p = y[:, :2], y[:, 2:]

    one = ms1(1)
    K, b = one.K[0, :2, 2:], one.b[0, :, 0]
    p_half = p + h / 2 * torch.tanh(-q @ K + b[2:])
    q_next = q + h * torch.tanh(p_half @ K.T + b[:2])
    expected = torch.cat([q_next, p_half + h / 2 * torch.tanh(-q_next @ K + b[2:])], dim=1)
    torch.testing.assert_close(one(y), expected, rtol=1e-12, atol=1e-12)

    two = ms2(1)
    K, b = two.weights()[0], two.b[0, :, 0]
    assert torch.equal(K, -K.T) and float(K.abs().sum()) > 1
    torch.testing.assert_close(two(y), y + h * torch.tanh(y @ K.T + b), rtol=1e-12, atol=1e-12)

    three = ms3(1)
    K, b = three.K[0], three.b[0, :, 0]
    Kq, Kp = K[:2, :2], K[2:, 2:]
    p_half = p - h / 2 * torch.tanh(q @ Kq.T + b[:2]) @ Kq
    q_next = q + h * torch.tanh(p_half @ Kp.T + b[2:]) @ Kp
    expected = torch.cat([q_next, p_half - h / 2 * torch.tanh(q_next @ Kq.T + b[:2]) @ Kq], dim=1)
    torch.testing.assert_close(three(y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("h", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("method", [Verlet(), SymplecticEuler()], ids=lambda m: m.name)
def test_ms3_keeps_the_symplectic_form_and_ms1_the_form_of_its_weights(method: Integrator, h: float) -> None:
    """S^T J S = J with the canonical J for MS3; S^T K_j S = K_j for layer j of MS1, whose J is -K_j^-1."""
    y = randn(40, 4, seed=5)
    three, one = ms3(step=h, integrator=method), ms1(step=h, integrator=method)
    forms = [three.skew.J] * 3, list(one.weights().detach())
    for flow, of_layers in zip((three, one), forms, strict=True):
        for S, form in zip(flow.step_jacobians(y), of_layers, strict=True):
            S = S.detach()
            size = norm2(S) ** 2 * norm2(form)
            assert float((S.mT @ form @ S - form).abs().max()) <= 1e-12 * max(size, 1)
            assert float((torch.linalg.det(S) - 1).abs().max()) <= 1e-10 * norm2(S) ** 4


@pytest.mark.parametrize("h", [0.01, 0.5, 3.0])
def test_euler_on_antisymmetric_weights_never_shrinks_volumes(h: float) -> None:
    """det(I + h D K) = prod (1 + h^2 mu_k^2); it is not symplectic, and a network without K = -K^T shrinks them."""
    for width in (3, 4):  # an odd width has no inverse of K, and no J
        flow = ms2(step=h, width=width)
        y = randn(60, width, seed=6)
        for S, K in zip(flow.step_jacobians(y), flow.weights().detach(), strict=True):
            S = S.detach()
            assert float(torch.linalg.det(S).min()) >= 1 - 1e-9
            assert float((S.mT @ K @ S - K).abs().max()) > 1e-7
    torch.manual_seed(0)
    free = ResNet(4, 3, Euler(), step=h).double()
    assert min(float(torch.linalg.det(S.detach()).min()) for S in free.step_jacobians(randn(60, 4, seed=6))) < 1


@pytest.mark.parametrize("make", [ms1, ms2, ms3])
def test_every_sensitivity_is_at_least_one_at_any_depth(make) -> None:
    flow = make(depth=48)
    bsm = bsm_norms(flow, 2 * randn(60, 4, seed=7))
    assert float(bsm.norms.min()) >= 1 - 1e-9 and float(bsm.step_norms.min()) >= 1 - 1e-9


@torch.no_grad()
def error(flow: Antisymmetric | HDNN, steps: int, y: Tensor) -> float:
    """Of `steps` steps through the field of layer 1 over a time of 1, against 1024 of them."""
    field, ends = flow.fields()[0], []
    for count in (steps, 1024):
        z = y.T
        for _ in range(count):
            z = flow.integrator.step(field, 0.0, 1 / count)(z)
        ends.append(z)
    return float((ends[0] - ends[1]).norm())


@pytest.mark.parametrize("make", [ms1, ms3])
def test_verlet_has_order_two_and_symplectic_euler_one(make) -> None:
    y = randn(5, 4, seed=8)
    for method, order in ((Verlet(), 2), (SymplecticEuler(), 1)):
        flow = make(integrator=method)
        ratio = error(flow, 16, y) / error(flow, 64, y)
        assert ratio == pytest.approx(4**order, rel=0.15)


@torch.no_grad()
def test_verlet_is_symmetric() -> None:
    """A step of -h takes it back, exactly; so that the states of a network can be recomputed from its last one."""
    flow, y = ms3(), randn(4, 30, seed=9)
    field = flow.fields()[0]
    back = Verlet().step(field, 0.0, -0.5)(Verlet().step(field, 0.0, 0.5)(y))
    torch.testing.assert_close(back, y, rtol=0, atol=1e-13)
    euler = SymplecticEuler()
    assert float((euler.step(field, 0.0, -0.5)(euler.step(field, 0.0, 0.5)(y)) - y).abs().max()) > 1e-3


@torch.no_grad()
def test_the_published_staggered_form_is_symplectic_euler_half_a_step_behind() -> None:
    """With one field for all layers: half a step of p, then N steps of (q, then p), make Verlet's q, and its p with
    half a step of p taken back."""
    y, h = randn(4, 20, seed=10), 0.3
    field = ms3(step=h).fields()[0]
    staggered, verlet = field.shear(h / 2, of_q=False)(y), y
    for _ in range(5):
        staggered = SymplecticEuler().step(field, 0.0, h)(staggered)
        verlet = Verlet().step(field, 0.0, h)(verlet)
    torch.testing.assert_close(field.shear(-h / 2, of_q=False)(staggered), verlet, rtol=1e-12, atol=1e-12)


def test_fields_that_are_no_two_halves_are_refused() -> None:
    for build in (
        lambda: Antisymmetric(4, 1, Verlet()), lambda: HDNN(4, 1, Verlet()), lambda: ResNet(4, 1, Verlet()),
        lambda: Antisymmetric(4, 1, SymplecticEuler()),
    ):  # fmt: skip
        with pytest.raises(BadInput, match="integrator=.*separable"):
            build()
    with pytest.raises(BadInput, match="even number with model.blocks=true, got 5"):
        Antisymmetric(5, 1, Verlet(), blocks=True)

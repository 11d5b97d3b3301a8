"""docs/theory.md, section 28: what fields and steps keep, and what no invertible map of the circle can do."""

import math

import numpy as np
import pytest
import torch

from robode.data.advection import Advection
from robode.data.circle_map import TARGETS, CircleMap, on_circle, phi
from robode.data.sir import SIR
from robode.data.spherical_pendulum import SphericalPendulum
from robode.errors import BadInput
from robode.families.conserving import Conserving
from robode.integrators.adaptive import Dopri5
from robode.integrators.euler import Euler
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.runge_kutta import RK4, Midpoint
from robode.papers.figures.circle_map import angles, folded, turned

WIDTH, DEPTH = 6, 5


def flow_of(preserve, integrator=None, scale=1.0, **keys):
    torch.manual_seed(0)
    flow = Conserving(WIDTH, DEPTH, integrator or Euler(), 0.5, preserve=preserve, hidden=[12], **keys).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.mul_(scale)
    return flow


def states(count=200):
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("integrator", [Euler(), Midpoint(), RK4(), Dopri5()], ids=lambda each: each.name)
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_every_runge_kutta_method_keeps_the_sum_of_a_mean_free_field(integrator, scale):
    y = states()
    after = flow_of("mass", integrator, scale)(y)
    assert float((after - y).norm(dim=1).min()) > 0.1
    assert float((after.sum(1) - y.sum(1)).abs().max()) <= 1e-13 * (1 + float(after.abs().max()))
    free = flow_of("none", integrator, scale)(y)
    assert float((free.sum(1) - y.sum(1)).abs().max()) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("residual", [True, False])
def test_scaled_steps_keep_the_norm_to_rounding(residual):
    y = states()
    after = flow_of("norm", residual=residual, scale=3.0)(y)
    assert float((after.norm(dim=1) / y.norm(dim=1) - 1).abs().max()) <= 1e-14
    assert float((after - y).norm(dim=1).min()) > 0.1


@torch.no_grad()
def test_a_tangent_field_keeps_the_norm_by_implicit_midpoint_and_not_by_euler():
    y = states()
    fine = ImplicitMidpoint(tolerance=1e-13)
    field = flow_of("tangent").fields()[0]
    assert float((field(0.0, y.T) * y.T).sum(0).abs().max()) <= 1e-13
    off = {name: (flow_of("tangent", method)(y).norm(dim=1) / y.norm(dim=1) - 1).abs().max() for name, method in
           (("implicit", fine), ("euler", Euler()))}  # fmt: skip
    assert float(off["implicit"]) <= 1e-11 and float(off["euler"]) > 1e-3


@torch.no_grad()
def test_implicit_midpoint_makes_an_orthogonal_matrix_of_a_skew_field():
    flow = flow_of("skew", ImplicitMidpoint(tolerance=1e-13), scale=4.0)
    R = flow(torch.eye(WIDTH, dtype=torch.float64)).T
    assert float((R.T @ R - torch.eye(WIDTH, dtype=torch.float64)).abs().max()) <= 1e-12
    assert float(torch.linalg.det(R)) == pytest.approx(1.0)
    y = states()
    assert float((flow(y) - y @ R.T).abs().max()) <= 1e-12  # linear: no constant, unlike W y + b
    assert flow.certificate()["flow_ode"] == 1.0


@torch.no_grad()
def test_a_sphere_and_its_tangents_are_kept_wherever_a_state_begins():
    q, v = flow_of("sphere", scale=3.0)(states()).chunk(2, dim=1)
    assert float((q.norm(dim=1) - 1).abs().max()) <= 1e-14
    assert float((q * v).sum(1).abs().max()) <= 1e-13


def test_without_the_skip_a_step_is_the_mlp_itself():
    flow = Conserving(2, 1, Euler(), 1.0, preserve="none", hidden=[8], residual=False).double()
    y = states()[:, :2]
    expected = torch.tanh(y @ flow.W[0].T + flow.b[0].T) @ flow.W[1].T + flow.b[1].T
    assert torch.allclose(flow(y), expected, rtol=0, atol=1e-14)


def test_the_circle_map_has_degree_one_and_folds():
    a = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    slope = 1 + 1.2 * (2 * a).cos() + 0.45 * (3 * a).sin()
    assert float((torch.gradient(phi(a), spacing=(a,))[0] - slope)[1:-1].abs().max()) < 1e-6
    assert float(phi(a[-1:]) - phi(a[:1])) == pytest.approx(2 * math.pi)
    assert float(slope.min()) == pytest.approx(-0.65, abs=1e-6)
    assert float(a[slope.argmin()]) == pytest.approx(math.pi / 2, abs=1e-3)
    train, test = CircleMap().load()
    assert (len(train.x), len(test.x)) == (100, 1000)
    assert float((test.target.norm(dim=1) - 1).abs().max()) < 1e-6
    half, _ = CircleMap(arc=0.5).load()
    assert float(half.x[:, 1].min()) >= 0


def test_no_invertible_map_of_the_circle_comes_nearer_than_the_fold_allows():
    """Of monotone angles, the best possible one and random ones."""
    a = torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)[:-1]
    target = on_circle(phi(a))
    fold = folded(a.numpy(), target.numpy())
    least = 2 * math.sin(fold / 4)
    assert fold == pytest.approx(0.3404, abs=1e-3)
    running = torch.cummax(phi(a), 0).values
    back = torch.flip(torch.cummin(torch.flip(phi(a), [0]), 0).values, [0])
    monotone = [(running + back) / 2]
    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        bumps = (1 + torch.rand(4000, dtype=torch.float64, generator=generator) * 3).cumsum(0)
        monotone.append(2 * math.pi * bumps / bumps[-1] + phi(a[:1]))
    errors = [float((on_circle(each) - target).norm(dim=1).max()) for each in monotone]
    assert errors[0] == pytest.approx(least, abs=1e-4), "attained in the limit of constant pieces"
    assert min(errors) >= least - 1e-9


def test_angles_are_read_from_points():
    a = torch.linspace(0.1, 6.1, 50, dtype=torch.float64)
    assert torch.allclose(torch.from_numpy(angles(on_circle(a).numpy())), a)
    assert turned(a.numpy(), on_circle(a + 0.5).numpy()) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"preserve": "sphere", "width": 5}, "even model.width, got 5"),
        ({"preserve": "mass", "residual": False}, "expected preserve=none, norm or sphere, got mass"),
        ({"hidden": [0]}, "model.hidden: expected widths >= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, said):
    with pytest.raises(BadInput, match=said):
        Conserving(**{"width": 4, "depth": 1, "integrator": Euler(), **keys})


@pytest.mark.parametrize("target", ["fold", "rotation", "random"])
def test_no_orthogonal_matrix_comes_nearer_to_a_map_of_the_circle_than_its_bounds(target):
    """All rotations and reflections on a fine grid of angles, against both bounds, which one of them attains."""
    a = 2 * math.pi * torch.arange(720, dtype=torch.float64) / 720
    waves = 0.3 * torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ka = torch.outer(torch.arange(1, 5, dtype=torch.float64), a)
    image = TARGETS[target](a) if target in TARGETS else a + waves[0] @ ka.cos() + waves[1] @ ka.sin()
    x, z = on_circle(a), on_circle(image)
    for sign, best in ((1, image - a), (-1, image + a)):
        mean = 2 * (1 - float(torch.complex(best.cos(), best.sin()).mean().abs()))
        spread = float(best.max() - best.min())
        errors = []
        for theta in torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)[:, None]:
            c, s = theta.cos(), theta.sin()
            R = torch.stack([torch.cat([c, -sign * s]), torch.cat([s, sign * c])])
            off = (x @ R.mT - z).norm(dim=1)
            errors.append((float(off.square().mean()), float(off.max())))
        least, least_largest = (min(each) for each in zip(*errors, strict=True))
        assert mean - 1e-12 <= least <= mean + 1e-5
        if sign == 1:
            assert spread < 2 * math.pi
            assert 2 * math.sin(spread / 4) - 1e-12 <= least_largest <= 2 * math.sin(spread / 4) + 4e-3
        if target == "fold":
            assert mean == pytest.approx({1: 0.186, -1: 1.430}[sign], abs=5e-4)
    if target == "fold":
        assert least_largest > 1.9 and 2 * math.sin(float((image - a).max() - (image - a).min()) / 4) > 0.705


def test_right_hand_sides_keep_what_their_systems_say():
    random = np.random.default_rng(0)
    sir = SIR()
    assert abs(sir.derivative(sir.draw(random, 100)).sum(1)).max() <= 1e-15
    y = random.standard_normal((32, 32))
    S = Advection().derivative(np.eye(32))
    assert abs(S + S.T).max() <= 1e-12 < 1 < abs(S).max()
    R = Advection().flow(np.eye(32), 0.3)
    assert abs(R @ R.T - np.eye(32)).max() <= 1e-13 and np.allclose(Advection().derivative(y), y @ S)
    assert np.allclose(R, torch.linalg.matrix_exp(torch.from_numpy(0.3 * S)).numpy(), atol=1e-11)
    pendulum = SphericalPendulum()
    states = pendulum.draw(random, 100)
    q, v = np.split(states, 2, axis=1)
    q_, v_ = np.split(pendulum.derivative(states), 2, axis=1)
    assert abs((q * q_).sum(1)).max() <= 1e-14 and abs((q_ * v + q * v_).sum(1)).max() <= 1e-14
    assert abs((v * v_).sum(1) + q_[:, 2]).max() <= 1e-14, "energy"
    assert abs(q_[:, 0] * v[:, 1] + q[:, 0] * v_[:, 1] - q_[:, 1] * v[:, 0] - q[:, 1] * v_[:, 0]).max() <= 1e-14

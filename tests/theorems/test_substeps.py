"""Sub-stepped Euler: a layer is s exact Euler steps, certified by their product, and s follows h*."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from problems import eye, norm2, randn, random_field, worst_hessian
from torch import Tensor

from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import warnings_about
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.node import MLPField, Node
from robode.families.resnet import ResNet
from robode.integrators.one_step import MAX_SUBSTEPS, Euler
from robode.linalg.activations import named_activation
from robode.network import Network
from robode.ode.field import OneLayerField, VectorField
from robode.ode.flow import Flow
from robode.tasks.classification import Classification
from robode.training.callbacks import useless

TANH = named_activation("tanh")
FIELDS: dict[str, VectorField] = {
    "gradient": random_field(3, seed=1, J=randn(3, 3, seed=2) - randn(3, 3, seed=2).T),
    "one layer": OneLayerField(randn(3, 3, seed=1), randn(3, 1, seed=2), TANH),
    "mlp": MLPField([randn(5, 3, seed=3), randn(3, 5, seed=4)], [randn(5, 1, seed=5), randn(3, 1, seed=6)], TANH),
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("s", [2, 5])
def test_a_substepped_layer_is_s_euler_steps_with_their_jacobian_and_constant(kind: str, s: int) -> None:
    field, method, h = FIELDS[kind], Euler(substeps=s), 0.7
    y = randn(3, 400, seed=7) * torch.logspace(-1, 1, 400, dtype=torch.float64)
    z, product, constant = y, eye(3), 1.0
    for _ in range(s):
        product = (eye(3) + h / s * field.jacobian(0.0, z)) @ product
        z = z + h / s * field(0.0, z)
        constant *= Euler().step(field, 0.0, h / s).lipschitz()
    torch.testing.assert_close(method.step(field, 0.0, h)(y), z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(method.step(field, 0.0, h).jacobian(y), product, rtol=1e-10, atol=1e-12)
    assert method.step(field, 0.0, h).lipschitz() == pytest.approx(constant, rel=1e-12)
    assert norm2(product) <= method.step(field, 0.0, h).lipschitz()


def changed(flow: CHNode, scale: float) -> dict[str, float]:
    """The properties after the weights have grown."""
    with torch.no_grad():
        flow.K.mul_(scale)
    flow.project_()
    return flow.properties()


@pytest.mark.parametrize("rule", ["theorem1", "differentiable"])
def test_auto_takes_the_fewest_substeps_within_h_star_as_the_weights_change(rule: str) -> None:
    torch.manual_seed(0)
    flow = CHNode(4, 2, Euler("auto"), kappa=0.5, gamma=rule, step=0.3, init_std=0.5)
    seen = set()
    for scale in (0.5, 2.0, 1.5, 1.3, 0.4):
        p = changed(flow, scale)
        s, h = int(p["substeps"]), p["h"]
        seen.add(s)
        assert h == 0.3 and s < MAX_SUBSTEPS and flow.certificate()["flow_discrete"] <= 1
        assert h / s < p["h_star"]  # every potential of the class contracts ...
        F = flow.skew.J - p["gamma"] * eye(4)
        if s > 1:  # ... and with one substep fewer some potential expands (0.999: auto keeps off the edge itself)
            assert h / (s - 1) > 0.999 * p["h_star"]
            longer = h / (s - 1) / 0.999
            assert norm2(eye(4) + longer * F @ worst_hessian(p["c1"], p["c2"], longer * F)) > 1
    assert len(seen) >= 3
    with torch.no_grad():
        assert norm2(torch.stack(flow.double().step_jacobians(3 * randn(2000, 4, seed=3)))) <= 1


POINTS = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b")))
SCRIPT: dict[str, Any] = {"norm_bound": 1.0, "step": 0.5, "init_std": 1.0, "gamma": "script_mnist"}


def test_at_the_scripts_settings_64_substeps_do_not_suffice_and_no_others_are_taken() -> None:
    """||K|| <= 1, h = 0.5, kappa = 4e-4 and the script's gamma: h* = 1.8e-4 needs 2 800. kappa = 0.01 needs 32."""
    torch.manual_seed(1)
    beyond = CHNode(8, 2, Euler("auto"), kappa=4e-4, **SCRIPT)
    p = beyond.properties()
    assert p["substeps"] == MAX_SUBSTEPS == 64 and p["h"] / 64 > 10 * p["h_star"]
    assert beyond.certificate()["flow_ode"] <= 1 < beyond.certificate()["flow_discrete"]
    (line,) = warnings_about(Network(POINTS, beyond))
    assert line.startswith("integrator.substeps=auto: even 64 substeps, the most, are longer than h_star")
    enough = CHNode(8, 2, Euler("auto"), kappa=0.01, **SCRIPT)
    assert warnings_about(Network(POINTS, enough)) == []
    assert 24 <= enough.properties()["substeps"] <= 40 and enough.certificate()["flow_discrete"] <= 1
    options = SCRIPT | {"gamma": "factor", "factor": math.sqrt(3)}
    sqrt3 = CHNode(8, 2, Euler("auto"), kappa=4e-4, **options)
    assert sqrt3.properties()["substeps"] <= 20 and sqrt3.certificate()["flow_discrete"] <= 1


def test_an_automatic_step_makes_use_of_the_substeps() -> None:
    """step=auto asks for h c gamma = 1, which Euler reaches with substeps where one step would have to stop at h*."""
    torch.manual_seed(0)
    one, many = (CHNode(4, 2, Euler(s), kappa=0.01) for s in (1, "auto"))
    assert one.properties()["hcgamma_max"] < 0.9 and one.certificate()["flow_discrete"] <= 1
    assert many.properties()["hcgamma_max"] == pytest.approx(1) and many.certificate()["flow_discrete"] <= 1


def restored(flow: Flow, state: dict[str, Tensor]) -> Flow:
    flow.load_state_dict(state)
    return flow


def test_the_number_is_in_the_state_dict_only_where_it_follows_the_weights() -> None:
    torch.manual_seed(0)
    flow, y = CHNode(4, 2, Euler("auto"), kappa=0.1, step=0.3), torch.randn(5, 4)
    changed(flow, 0.7)
    before = copy.deepcopy(flow.state_dict())
    other = restored(CHNode(4, 2, Euler("auto"), kappa=0.1, step=0.3), before)
    assert int(before["substeps"]) > 1 and torch.equal(other(y), flow(y))
    with torch.no_grad():
        flow.K.mul_(1.5)  # stale: measuring must not notice
    flow.certificate_table(), flow.properties(), flow.states(y), flow.step_jacobians(y)
    assert int(flow.substeps) == int(before["substeps"])
    flow.project_()
    assert int(flow.substeps) > int(before["substeps"])
    once = copy.deepcopy(flow.state_dict())
    flow.project_()
    assert all(torch.equal(value, once[name]) for name, value in flow.state_dict().items())
    for method in (Euler(), Euler(3)):
        assert CHNode(4, 2, method).state_dict().keys() == {"K", "b", "gamma", "h", "c", "kappa", "skew.J"}


def test_one_substep_is_the_plain_layer_bit_by_bit() -> None:
    field, y = random_field(4, seed=1), randn(4, 6, seed=2)
    assert torch.equal(Euler(1).step(field, 0.0, 0.3)(y), field.through(field.skew.function(
        [(-0.3 * float(field.gamma), 0.3 * w) for w in field.skew.omegas], torch.float64))(y))  # fmt: skip
    assert Euler(1).circle == 1 and Euler(3).circle == 3


@pytest.mark.parametrize("substeps", [0, -1, 1.5, True, "many", None])
def test_numbers_that_make_no_sense(substeps: Any) -> None:
    with pytest.raises(BadInput, match="integrator.substeps"):
        Euler(substeps)


@pytest.mark.parametrize("family", [HDNN, ResNet, Node])
def test_families_without_an_h_star_take_numbers_only(family: type[Flow]) -> None:
    with pytest.raises(BadInput, match="integrator.substeps"):
        family(4, 2, Euler("auto"))
    torch.manual_seed(0)
    flow = family(4, 2, Euler(4), step=0.2).double()
    for A, (_, bound) in zip(flow.step_jacobians(randn(300, 4, seed=1)), flow.step_bounds(), strict=True):
        assert norm2(A.detach()) <= bound


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_diverged_weights_leave_the_most_substeps_and_a_reason(weight: float) -> None:
    flow = CHNode(4, 2, Euler("auto"), step=0.5)
    with torch.no_grad():
        flow.K[0, 0, 0] = weight
    flow.project_()
    assert int(flow.substeps) == 64 and "the weights are not finite" in str(useless(flow))

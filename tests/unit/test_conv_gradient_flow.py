"""The convolutional family as a model: its stages, its keys, and its life inside a network and a training."""

from __future__ import annotations

import copy
import io
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from small_runs import composed

from robode.certificates.radius import certified_radii, pair_lipschitz
from robode.config.parse import choice
from robode.config.paths import conf_dir
from robode.data.info import DatasetInfo
from robode.errors import BadInput, JobFailed
from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.reference import with_reference_solver
from robode.network import Network, build_network
from robode.tasks.classification import Classification
from robode.training.callbacks import useless

GREY = DatasetInfo((1, 8, 12), (0.13,), (0.3,), (0.0, 1.0), Classification(tuple("abc")))


def flow(width: int = 3, depth: int = 5, **options: Any) -> ConvGradientFlow:
    torch.manual_seed(0)
    return ConvGradientFlow(width, depth, options.pop("integrator", Euler()), **options)


ENDS = {"encoder": "bounded", "head": "orthonormal"}


def network(info: DatasetInfo = GREY, seed: int = 0, depth: int = 5, **options: Any) -> Network:
    """As `robode train model=gradient_flow_conv` builds it."""
    torch.manual_seed(seed)
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / "model/gradient_flow_conv.yaml"))
    euler = OmegaConf.to_container(OmegaConf.load(conf_dir() / "integrator/euler.yaml"))
    assert isinstance(node, dict) and isinstance(euler, dict)
    node.pop("defaults")
    nodes = {"model": node | {"width": 9} | options, "integrator": euler}
    for group, name in ENDS.items():
        nodes[group] = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
    parts = {group: choice(each, group) for group, each in nodes.items()}
    cfg = SimpleNamespace(depth=depth, step="auto", horizon=None, **parts)
    return build_network(cfg, info)


def test_layers_are_spread_over_the_stages_and_states_change_their_shape() -> None:
    phi = flow(growth=3)
    assert phi.layers == [1, 2, 2]
    assert flow(layers=[3, 1, 1]).layers == [3, 1, 1] and flow(stages=1).layers == [5]
    assert phi.build((3, 8, 12)) == (27, 2, 3)
    states = phi.states(torch.randn(4, 3, 8, 12))
    assert [tuple(state.shape[1:]) for state in states] == [(3, 8, 12)] * 2 + [(9, 4, 6)] * 2 + [(27, 2, 3)] * 2
    assert torch.equal(states[-1], phi(states[0]))
    assert len(phi.step_bounds()) == 5 and phi.layer_parameters() is None


@pytest.mark.parametrize("change", ["space_to_depth", "mean_pool", "max_pool"])
@pytest.mark.parametrize("pool", ["none", "mean"])
def test_every_change_of_stage_and_end(change: str, pool: str) -> None:
    phi = flow(change=change, pool=pool, growth=2, expansion=2)
    shape = phi.build((3, 4, 8))
    y = phi(torch.randn(2, 3, 4, 8))
    assert tuple(y.shape[1:]) == shape == ((12, 1, 1) if pool == "mean" else (12, 1, 2))
    y.square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in phi.parameters())


def test_the_end_is_the_mean_times_the_root_of_the_number_of_pixels() -> None:
    x = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(flow(pool="mean")(x)[:, :, 0, 0], flow()(x).mean((2, 3)) * math.sqrt(2))


def test_layers_start_at_the_limit() -> None:
    """Where they reflect what they see: shorter ones would do little."""
    phi = flow(step=0.7, activation="sigmoid")
    phi.build((3, 28, 28))
    reached = [each.lipschitz() * float(phi.h) for each in phi.bind()[0]]
    assert all(1.9 < each <= 2 for each in reached)


@pytest.mark.parametrize(("options", "expected"), [
    ({"stages": 0}, "model.stages"), ({"stages": 2.0}, "model.stages"), ({"growth": 0}, "model.growth"),
    ({"expansion": "2"}, "model.expansion"), ({"change": "stride"}, "model.change: expected one of space_to_depth"),
    ({"pool": "max"}, "model.pool: expected one of none, mean"), ({"depth": 2}, "depth: .* model.stages=3, got 2"),
    ({"layers": [1, 1]}, "model.layers: .* 3 whole"), ({"layers": [1, 1, 1]}, "model.layers: .* depth=5"),
    ({"layers": [0, 2, 3]}, "model.layers"), ({"integrator": ETD()}, "integrator=etd: expected euler"),
    ({"activation": "gelu"}, "model.activation"), ({"step": -1.0}, "step"), ({"width": 0}, "model.width"),
])  # fmt: skip
def test_impossible_settings_are_bad_input(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput, match=expected) as error:
        flow(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("shape", "expected"), [
    ((2,), "expected images, got vectors"), ((4, 8, 8), "model.width: .* 4, got 3"),
    ((3, 8, 6), "model.stages=3: .* sides 4 divides"),
    ((3, 9, 9), "got 9 x 9"), ((3, 0, 4), "got 0 x 4"),
])  # fmt: skip
def test_shapes_that_do_not_fit(shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        flow().build(shape)


def test_constants_belong_to_one_size_of_image() -> None:
    phi = flow()
    with pytest.raises(BadInput, match="`build`"):
        phi.certificate()
    phi(torch.randn(1, 3, 8, 12))
    assert phi.certificate()["flow_discrete"] <= 1
    with pytest.raises(BadInput, match="expected images"):
        phi(torch.randn(1, 3, 12, 8))


def test_there_are_no_small_jacobians_and_no_reference_solver() -> None:
    phi = network().flow
    assert not phi.pixelwise and with_reference_solver(network()) is None
    with pytest.raises(BadInput, match=r"callbacks\.bsm"):
        phi.step_jacobians(torch.randn(5, 9))


def test_weights_that_are_not_finite_fail_the_job() -> None:
    phi = network().flow
    for weight in (1e30, math.nan):  # whose square is not finite, and that is not
        with torch.no_grad():
            phi.K[1][0, 0, 0, 0, 0] = weight
        phi.project_()
        if math.isfinite(weight):
            assert not phi.certificate()["flow_discrete"] <= 1
    assert "not finite" in str(useless(phi))
    with pytest.raises(JobFailed, match="not finite"):
        phi.certificate()


def test_a_network_is_certified_end_to_end_and_survives_a_checkpoint() -> None:
    net, x = network(), torch.rand(6, *GREY.shape)
    assert float(pair_lipschitz(net).max()) <= math.sqrt(2) * (1 + 1e-9)
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    net.flow.certificate_table(), net.flow.properties(), net(x)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    saved = io.BytesIO()
    torch.save(net.state_dict(), saved)
    saved.seek(0)
    other = network(seed=1)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(other(x), net(x)) and other.flow.certificate() == net.flow.certificate()
    assert torch.equal(net.head(net.flow.states(net.embed(x))[-1].flatten(1)), net(x))


def test_no_attack_crosses_the_certified_radius_and_some_come_close() -> None:
    """Steps up the gradient of the smallest margin, held at 0.999 radii; 60 radii are enough to change answers."""
    net, x = network(), torch.rand(40, *GREY.shape)
    with torch.no_grad():
        net.head.bias -= net(x).mean(0)
        labels = net(x).argmax(1)
    radii = certified_radii(net, x, labels).float()
    assert float(radii.min()) > 0
    for factor, flips in ((0.999, False), (60.0, True)):
        delta = torch.zeros_like(x)
        for _ in range(20):
            delta.requires_grad_()
            logits = net(x + delta)
            others = logits.scatter(1, labels[:, None], -math.inf).amax(1)
            (gradient,) = torch.autograd.grad((others - logits.gather(1, labels[:, None])[:, 0]).sum(), delta)
            step = delta.detach().flatten(1) + torch.nn.functional.normalize(gradient.flatten(1))
            length = step.norm(dim=1, keepdim=True).clamp_min(1e-12)
            delta = (step * torch.minimum(factor * radii[:, None] / length, torch.ones(1))).view_as(x)
        assert bool((net(x + delta).argmax(1) != labels).any()) == flips


def test_a_training_keeps_the_certificate_at_every_step() -> None:
    """What `robode train` runs, two optimiser steps of it, with a learning rate that would leave the constraint."""
    from robode.training.assembly import assemble

    config = composed(
        "model=gradient_flow_conv", "model.width=2", "depth=3", "data=mnist5k", "data.limit_train=40", "batch_size=20",
        "epochs=1", "lr=0.5", "callbacks=none", "suite=certified", "trainer.threads=1",
    )  # fmt: skip
    parts = assemble(config)
    start = copy.deepcopy(parts.network.state_dict())
    assert parts.network.flow.layers == [1, 1, 1]
    seen = []
    parts.network.register_forward_pre_hook(lambda module, _: seen.append(module.flow.certificate()["flow_discrete"]))
    parts.trainer.callbacks = [each for each in parts.trainer.callbacks if "Checkpoint" not in type(each).__name__]
    parts.trainer.fit(parts.module, datamodule=parts.data)
    assert len(seen) >= 2 and max(seen) <= 1
    assert any(not torch.equal(v, start[k]) for k, v in parts.network.state_dict().items() if "flow.K" in k)

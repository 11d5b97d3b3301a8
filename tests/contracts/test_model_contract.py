"""What every model YAML inherits, with each integrator it lists, on images and on vectors.

A new family is a YAML file in conf/model; it is tested by being there, and must claim something: test_family_claims.py.
"""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from model_cases import FACTS, IMAGES_ONLY, MODELS, OTHER_PAIRS, PAIRS, batch, kind_of, load, make

from robode.errors import BadInput
from robode.fields.hamiltonian import HamiltonianFlow
from robode.ode.activations import ACTIVATIONS
from robode.ode.flow import Flow, from_columns, to_columns
from robode.ode.sensitivity import bsm_norms


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize(("model", "integrator"), PAIRS)
def test_forward_backward_save_load_and_order(model: str, integrator: str, kind: str) -> None:
    if kind == "vector" and model in IMAGES_ONLY:
        with pytest.raises(BadInput, match="images"):
            make(model, integrator, kind)
        return
    network, x = make(model, integrator, kind), batch(kind)
    logits = network(x)
    assert logits.shape == (6, FACTS[kind].task.outputs) and bool(logits.isfinite().all())
    torch.nn.functional.cross_entropy(logits, torch.arange(6) % 3).backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()), name
    with torch.no_grad():
        torch.testing.assert_close(network(x.flip(0)), network(x).flip(0), rtol=1e-4, atol=1e-5)
        states = network.flow.states(network.embed(x))
        assert len(states) == 4 and states[0].shape == states[-1].shape == network.embed(x).shape
        assert torch.equal(network.head(states[-1].flatten(1)), network(x))
        saved = io.BytesIO()
        torch.save(network.state_dict(), saved)
        saved.seek(0)
        other = make(model, integrator, kind, seed=99)
        other.load_state_dict(torch.load(saved, weights_only=True))
        assert torch.equal(other(x), network(x))


@pytest.mark.parametrize(("model", "integrator"), PAIRS)
def test_certificates_and_measurements(model: str, integrator: str) -> None:
    """Keys, order of magnitude, and that measuring neither changes the network nor draws random numbers."""
    network, x = make(model, integrator), batch(kind_of(model))
    before, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    flow: Flow = network.flow
    table, bounds = flow.certificate_table(), flow.certificate()
    assert bounds.keys() == {"flow_ode", "flow_discrete"}
    assert table.keys() == bounds.keys() | {f"step_{w}/{j}" for w in ("ode", "discrete") for j in (1, 2, 3)}
    assert all(isinstance(v, float) and v > 0 and not math.isnan(v) for v in table.values())
    if flow.pixelwise:
        bsm = bsm_norms(flow, network.embed(x))
        assert float(bsm.norms[0].max()) <= bounds["flow_discrete"] * (1 + 1e-4)
        for j, largest in enumerate(bsm.step_norms.amax(1).tolist(), 1):
            assert largest <= table[f"step_discrete/{j}"] * (1 + 1e-4)
    assert all(isinstance(v, float) for v in flow.properties().values())
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("model", MODELS)
def test_every_activation(model: str, activation: str) -> None:
    network = make(model, load("model", model)["integrators"][0], activation=activation, depth=2)
    network(batch(kind_of(model))).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    if not network.flow.pixelwise:
        return
    found = float(bsm_norms(network.flow, 3 * torch.randn(500, 4)).norms[0].max())
    assert found <= network.flow.certificate()["flow_discrete"] * (1 + 1e-4)


@pytest.mark.parametrize("model", [m for m in MODELS if "shared" in load("model", m)])
def test_shared_weights_are_one_set(model: str) -> None:
    integrator = load("model", model)["integrators"][0]
    network, separate = (make(model, integrator, shared=shared, depth=5) for shared in (True, False))
    assert network.flow.layer_parameters() is None
    assert sum(p.numel() for p in network.flow.parameters()) * 5 == sum(p.numel() for p in separate.flow.parameters())
    assert len(network.flow.states(network.embed(batch("vector")))) == 6
    stacked = separate.flow.layer_parameters()
    assert stacked is not None and stacked[0].shape == (5, 4, 4) and stacked[1].shape == (5, 4, 1)


@pytest.mark.parametrize("integrator", ["etd", "euler", "dopri5", "implicit_midpoint"])
def test_trainable_L_gets_gradients(integrator: str) -> None:
    network = make("chnode", integrator, trainable_L=True)
    network(batch("vector")).sum().backward()
    flow = network.flow
    assert isinstance(flow, HamiltonianFlow) and flow.L is not None and flow.L.grad is not None
    assert bool(flow.L.grad.isfinite().all()) and float(flow.L.grad.abs().max()) > 0


@pytest.mark.parametrize(("model", "integrator"), OTHER_PAIRS)
def test_pairs_that_make_no_sense_are_bad_input(model: str, integrator: str) -> None:
    with pytest.raises(BadInput, match=f"integrator={integrator}"):
        make(model, integrator)


@pytest.mark.parametrize("options", [
    {"depth": 0}, {"depth": -1}, {"step": 0.0}, {"step": -0.1}, {"step": math.inf}, {"step": math.nan},
    {"step": "big"}, {"step": None}, {"step": 0.1, "horizon": 1.0}, {"horizon": 0.0}, {"horizon": -1.0},
    {"width": 0}, {"activation": "gelu"},
])  # fmt: skip
@pytest.mark.parametrize("model", MODELS)
def test_impossible_settings_are_bad_input(model: str, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        make(model, load("model", model)["integrators"][0], **options)


@pytest.mark.parametrize("model", [model for model in MODELS if model not in IMAGES_ONLY])
def test_vectors_need_their_dimension(model: str) -> None:
    with pytest.raises(BadInput, match="width"):
        make(model, load("model", model)["integrators"][0], width=1)


@pytest.mark.parametrize("model", [m for m in MODELS if "J" in load("model", m)])
def test_odd_width_needs_another_J(model: str) -> None:
    integrator = load("model", model)["integrators"][0]
    with pytest.raises(BadInput, match="even"):
        make(model, integrator, width=5)
    assert bool(make(model, integrator, width=5, J="j2")(batch("vector")).isfinite().all())


@pytest.mark.parametrize("model", MODELS)
def test_horizon_is_depth_times_step(model: str) -> None:
    integrator = load("model", model)["integrators"][0]
    by_horizon, by_step = make(model, integrator, horizon=0.6), make(model, integrator, step=0.6 / 3)
    x = batch(kind_of(model))
    assert by_horizon.flow.horizon == pytest.approx(0.6)
    assert torch.equal(by_horizon(x), by_step(x))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2, 3), (1, 4, 1, 1)])
def test_columns_round_trip(shape: tuple[int, ...]) -> None:
    y = torch.randn(shape)
    z = to_columns(y)
    assert z.shape == (4, y.numel() // 4) and torch.equal(from_columns(z, y.shape), y)
    last = y[-1].reshape(4, -1)[:, -1]
    assert torch.equal(z[:, -1], last)  # the last column is the last sample's last pixel


@pytest.mark.parametrize("model", [model for model in MODELS if model not in IMAGES_ONLY])
def test_pixels_flow_alone(model: str) -> None:
    """An image flow is the vector flow at every pixel."""
    flow = make(model, load("model", model)["integrators"][0], "image").flow
    y = torch.randn(2, 4, 3, 2)
    with torch.no_grad():
        image, pixel = flow(y), flow(y[:, :, 1, 0])
    torch.testing.assert_close(image[:, :, 1, 0], pixel, rtol=1e-4, atol=1e-5)

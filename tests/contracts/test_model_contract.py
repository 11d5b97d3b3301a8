"""What every model YAML inherits, with each integrator it lists, on images and on vectors.

A new family is a YAML file in conf/model; it is tested by being there. The contracts are robode.contracts.families.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from model_cases import (
    IMAGES_ONLY,
    MODELS,
    NO_STEP,
    OTHER_PAIRS,
    PAIRS,
    VECTORS_ONLY,
    batch,
    encoder_and_head,
    family,
    kind_of,
    load,
    make,
)
from torch import Tensor

from robode.contracts.families import CONTRACTS, KINDS
from robode.contracts.findings import held
from robode.errors import BadInput
from robode.families.data_node import DataNode
from robode.families.hamiltonian import HamiltonianFlow
from robode.ode.flow import from_columns, to_columns
from robode.ode.sensitivity import bsm_norms


def cells() -> list[Any]:
    """Every model with each of its integrators on both kinds of data; fast: with its first on its own kind."""
    first = {model: integrator for model, integrator in reversed(PAIRS)}
    each = [(*pair, kind) for pair in PAIRS for kind in KINDS]
    fast = [(m, i, kind) for m, i, kind in each if i == first[m] and kind == kind_of(m)]
    return [pytest.param(*cell, marks=[] if cell in fast else [pytest.mark.slow]) for cell in each]


@pytest.mark.parametrize(("model", "integrator", "kind"), cells())
def test_every_contract_of_families_is_kept(model: str, integrator: str, kind: str) -> None:
    if model in (IMAGES_ONLY if kind == "vectors" else VECTORS_ONLY):
        with pytest.raises(BadInput, match="images" if kind == "vectors" else "vectors"):
            make(model, integrator, kind)
        return
    each = family(model, integrator, kind)
    assert held(CONTRACTS, each) == []
    network = each.usual().eval()
    flow, (y, context) = network.flow, network.encode(each.samples())
    assert not flow.pixelwise or {state.shape for state in flow.states(y, context)} == {y.shape}
    bounds = [bound for name, bound in flow.certificate_table().items() if flow.solves_an_ode or "discrete" in name]
    assert all(bound > 0 for bound in bounds)


WITH_ACTIVATION = [m for m in MODELS if "activation" in load("model", m)["allowed"]]
ACTIVATIONS_OF = [(m, name) for m in WITH_ACTIVATION for name in load("model", m)["allowed"]["activation"].split(" | ")]


@pytest.mark.parametrize(("model", "activation"), ACTIVATIONS_OF)
def test_every_activation(model: str, activation: str) -> None:
    network = make(model, load("model", model)["integrators"][0], activation=activation, depth=2)
    network(batch(kind_of(model))).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    if not network.flow.pixelwise or network.flow.controlled:
        return
    found = float(bsm_norms(network.flow, 3 * torch.randn(500, 4)).norms[0].max())
    assert found <= network.flow.certificate()["flow_discrete"] * (1 + 1e-4)


@pytest.mark.parametrize("model", [m for m in MODELS if "shared" in load("model", m)])
def test_shared_weights_are_one_set(model: str) -> None:
    integrator = load("model", model)["integrators"][0]
    network, separate = (make(model, integrator, shared=shared, depth=3) for shared in (True, False))
    assert network.flow.layer_parameters() is None
    assert sum(p.numel() for p in network.flow.parameters()) * 3 == sum(p.numel() for p in separate.flow.parameters())
    assert len(network.flow.states(network.embed(batch(kind_of(model))))) == 4
    stacked = separate.flow.layer_parameters()
    if not network.flow.pixelwise:
        return
    assert stacked is not None and stacked[0].shape[::2] == (3, 4) and stacked[1].shape == (3, 4, 1)


@pytest.mark.parametrize("integrator", ["etd", "euler", "dopri5", "implicit_midpoint"])
def test_trainable_L_gets_gradients(integrator: str) -> None:
    network = make("chnode", integrator, trainable_L=True)
    network(batch("vectors")).sum().backward()
    flow = network.flow
    assert isinstance(flow, HamiltonianFlow) and flow.L is not None and flow.L.grad is not None
    assert bool(flow.L.grad.isfinite().all()) and float(flow.L.grad.abs().max()) > 0


# the batch normalisations of the continuous families gather statistics wherever a field is evaluated
NO_ADJOINT = ("continuous", "continuous_lyanet")
WITH_ADJOINT = [(m, i) for m, i in PAIRS if "gradient" in load("integrator", i) and m not in NO_ADJOINT]
DRAWS = ("data_node", "lyanet")  # their dropout has no way back; their fields are steep


@pytest.mark.parametrize(("model", "integrator"), WITH_ADJOINT)
def test_the_adjoint_gives_the_gradients_of_every_model(model: str, integrator: str) -> None:
    """Of all parameters and of the samples, as steps get shorter, because they are those of the ODE."""
    gap = gradients_apart(model, integrator, step=0.02)
    if model not in DRAWS:
        assert 0 < gap < 2e-3
        return
    assert 0 < gradients_apart(model, integrator, step=0.0025, depth=24) < max(gap / 3, 2e-3)


def gradients_apart(model: str, integrator: str, **setting: Any) -> float:
    """The largest difference between the two ways, over the largest entry of that gradient; setting: step and depth."""
    x, found = batch(kind_of(model)).double().requires_grad_(), list[dict[str, Tensor]]()
    for way in ("backprop", "adjoint"):
        each = family(model, integrator)
        if model in DRAWS:
            slow = {**each.model.arguments, "dropout": 0.0, "gain": 1.0, "kappa": 0.2}
            each = replace(each, model=replace(each.model, arguments=slow))
        chosen = replace(each.integrator, arguments={**each.integrator.arguments, "gradient": way})
        network = replace(each, integrator=chosen).network(**setting).double().eval()
        if isinstance(network.flow, DataNode):  # without the kink of its activation, which costs a method its order
            network.flow.slope.data.fill_(1.0)
        names, leaves = zip(*network.named_parameters(), ("x", x), strict=True)
        gradients = torch.autograd.grad(network(x).square().mean(), leaves)
        found.append(dict(zip(names, gradients, strict=True)))
    apart = []
    for name, expected in found[0].items():
        scale = float(expected.abs().max())
        assert scale > 0, name
        apart.append(float((found[1][name] - expected).abs().max()) / scale)
    return max(apart)


@pytest.mark.parametrize(("model", "integrator"), OTHER_PAIRS)
def test_pairs_that_make_no_sense_are_bad_input(model: str, integrator: str) -> None:
    with pytest.raises(BadInput, match=f"integrator={integrator}"):
        make(model, integrator)


@pytest.mark.parametrize("model", WITH_ACTIVATION)
def test_an_unknown_activation_is_bad_input(model: str) -> None:
    with pytest.raises(BadInput):
        make(model, load("model", model)["integrators"][0], activation="gelu")


@pytest.mark.parametrize(
    "model", [m for m in MODELS if m not in IMAGES_ONLY and encoder_and_head(m)[0].name != "dense"]
)
def test_vectors_need_their_dimension(model: str) -> None:
    with pytest.raises(BadInput, match="width"):
        make(model, load("model", model)["integrators"][0], width=1)


@pytest.mark.parametrize("model", [m for m in MODELS if "J" in load("model", m)])
def test_odd_width_needs_another_J(model: str) -> None:
    integrator = load("model", model)["integrators"][0]
    with pytest.raises(BadInput, match="even"):
        make(model, integrator, width=5)
    assert bool(make(model, integrator, width=5, J="j2")(batch("vectors")).isfinite().all())


@pytest.mark.parametrize("model", MODELS)
def test_horizon_is_depth_times_step(model: str) -> None:
    integrator = load("model", model)["integrators"][0]
    if model in NO_STEP:
        for key in ("horizon", "step"):
            with pytest.raises(BadInput, match=f"{key}: .* solve no ODE"):
                make(model, integrator, **{key: 0.6})
        return
    by_horizon = make(model, integrator, horizon=0.6).eval()
    by_step = make(model, integrator, step=0.6 / 3).eval()
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


PIXELS = [
    m
    for m in MODELS
    if m not in IMAGES_ONLY + VECTORS_ONLY and make(m, load("model", m)["integrators"][0]).flow.pixelwise
]


@pytest.mark.parametrize("model", PIXELS)
def test_pixels_flow_alone(model: str) -> None:
    """An image flow is the vector flow at every pixel."""
    flow = make(model, load("model", model)["integrators"][0], "images").flow
    y = torch.randn(2, flow.width, 3, 2)
    with torch.no_grad():
        image, pixel = flow(y), flow(y[:, :, 1, 0])
    torch.testing.assert_close(image[:, :, 1, 0], pixel, rtol=1e-4, atol=1e-5)

"""What every model YAML inherits, with each integrator it lists, on images and on vectors.

A new family is a YAML file in conf/model; it is tested by being there, and must declare its property below.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from robode.data.facts import DataFacts
from robode.errors import BadInput
from robode.fields.hamiltonian import HamiltonianFlow
from robode.network import Network, build_network
from robode.ode.activations import ACTIVATIONS
from robode.ode.flow import Constrained, Flow, from_columns, to_columns
from robode.ode.integrators import ETD, IMEX, SymplecticEuler
from robode.ode.sensitivity import bsm_norms
from robode.ode.vector_field import GradientField

CONF = Path(__file__).parents[2] / "conf"
FACTS = {
    "image": DataFacts((2, 3, 4), 5, (0.4, 0.5), (0.2, 0.3), (0.0, 1.0), tuple("abcde")),
    "vector": DataFacts((2,), 3, (0.0, 0.0), (1.0, 1.0), None, tuple("abc")),
}


def load(group: str, name: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    node.pop("defaults", None)
    return {str(k): v for k, v in node.items()}


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
INTEGRATORS = sorted(path.stem for path in (CONF / "integrator").glob("*.yaml"))
PAIRS = [(m, i) for m in MODELS for i in load("model", m)["integrators"]]
OTHER_PAIRS = [(m, i) for m in MODELS for i in INTEGRATORS if i not in load("model", m)["integrators"]]
# symplectic Euler needs a separable Hamiltonian
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("hdnn", "symplectic_euler"): {"separable": True},
    ("gradient_flow_conv", "euler"): {"stages": 1},  # three pixels have no half
}
IMAGES_ONLY = ("gradient_flow_conv",)


def kind_of(model: str) -> str:
    return "image" if model in IMAGES_ONLY else "vector"


def make(model: str, integrator: str, kind: str | None = None, *, depth: int = 3, step: Any = "auto",
         horizon: Any = None, seed: int = 0, **options: Any) -> Network:  # fmt: skip
    torch.manual_seed(seed)
    node = load("model", model) | NEEDS.get((model, integrator), {}) | {"width": 4} | options
    method = load("integrator", integrator)
    cfg = SimpleNamespace(model=node, integrator=method, depth=depth, step=step, horizon=horizon)
    return build_network(cfg, FACTS[kind or kind_of(model)])


def batch(kind: str, size: int = 6) -> Tensor:
    return torch.rand(size, *FACTS[kind].shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize(("model", "integrator"), PAIRS)
def test_forward_backward_save_load_and_order(model: str, integrator: str, kind: str) -> None:
    if kind == "vector" and model in IMAGES_ONLY:
        with pytest.raises(BadInput, match="images"):
            make(model, integrator, kind)
        return
    network, x = make(model, integrator, kind), batch(kind)
    logits = network(x)
    assert logits.shape == (6, FACTS[kind].classes) and bool(logits.isfinite().all())
    torch.nn.functional.cross_entropy(logits, torch.arange(6) % 3).backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()), name
    with torch.no_grad():
        torch.testing.assert_close(network(x.flip(0)), network(x).flip(0), rtol=1e-4, atol=1e-5)
        states = network.flow.states(network.embed(x))
        assert len(states) == 4 and states[0].shape == states[-1].shape == network.embed(x).shape
        assert torch.equal(network.readout(states[-1].flatten(1)), network(x))
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


def contractive(flow: Flow, y: Tensor) -> None:
    """CH-NODE: no two solutions separate, and no step of a method that promises it expands."""
    fields, h = flow.bind(torch.float64)
    assert all(field.lognorm() < 0 for field in fields)
    if isinstance(flow.integrator, ETD | IMEX) or flow.integrator.name in ("euler", "rk4", "implicit_midpoint"):
        assert flow.certificate()["flow_discrete"] <= 1
        for A in flow.double().step_jacobians(y.double()):
            assert float(torch.linalg.matrix_norm(A, 2).max()) <= 1 + 1e-6


def conservative(flow: Flow, y: Tensor) -> None:
    """H-DNN: the field keeps the energy and the volume; symplectic Euler and the implicit midpoint rule keep J."""
    assert isinstance(flow, HamiltonianFlow)
    flow = flow.double()
    z = to_columns(y.double())
    for field in flow.bind()[0]:
        assert isinstance(field, GradientField)
        power = (field(0.0, z) * field.gradient(z)).sum(0)
        assert float(power.abs().max()) <= 1e-10 * float(field.gradient(z).square().sum(0).max())
        divergence = field.jacobian(0.0, z).diagonal(dim1=1, dim2=2).sum(1)
        assert float(divergence.abs().max()) <= 1e-10 * float(field.jacobian(0.0, z).abs().max())
    if isinstance(flow.integrator, SymplecticEuler) or flow.integrator.name == "implicit_midpoint":
        J = flow.skew.J
        for A in flow.step_jacobians(y.double()):
            assert float((A.mT @ J @ A - J).abs().max()) <= 1e-4 * float(A.square().sum((1, 2)).max())


def unconstrained(flow: Flow, y: Tensor) -> None:
    """ResNet and the vanilla NODE promise nothing but an honest certificate: fields stay below their constants."""
    z = to_columns(y)
    for field in flow.bind(torch.float64)[0]:
        A = field.jacobian(0.0, z.double())
        assert float(torch.linalg.matrix_norm(A, 2).max()) <= field.lipschitz() * (1 + 1e-9)
        assert float(torch.linalg.eigvalsh(0.5 * (A + A.mT)).max()) <= field.lognorm() + 1e-9


CLAIMS: dict[str, Callable[[Flow, Tensor], None]] = {
    "contractive": contractive, "hamiltonian": conservative, "bounded": unconstrained,
}  # fmt: skip


@pytest.mark.parametrize(("model", "integrator"), [pair for pair in PAIRS if pair[0] not in IMAGES_ONLY])
def test_the_family_keeps_its_claim_on_the_field_and_on_the_step(model: str, integrator: str) -> None:
    network = make(model, integrator)
    with torch.no_grad():
        for p in network.flow.parameters():
            p.mul_(1.5)
        if isinstance(network.flow, Constrained):
            network.flow.project_()
        CLAIMS[network.flow.claim](network.flow, 2 * torch.randn(200, 4))


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

"""1-Lipschitz families from both sides: no step and no network expands; one that is told to expand is seen to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import bounded_network
from problems import norm2, randn
from small_runs import SMALL, composed, train
from torch import Tensor

from robode.certificates.radius import certified_radii, pair_lipschitz
from robode.data.info import DatasetInfo
from robode.families.chnode import CHNode
from robode.families.gradient_flow import DescentField, GradientFlow
from robode.families.lipschitz_mlp import LipschitzMLP, SortingField
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.linalg.activations import ACTIVATIONS, named_activation
from robode.linalg.orthonormal import orthonormal
from robode.network import Network, build_network
from robode.ode.field import VectorField
from robode.ode.flow import Constrained, Flow
from robode.runs.checkpoints import read_checkpoint
from robode.tasks.classification import Classification
from robode.training.assembly import assemble

IMAGES = DatasetInfo((1, 6, 6), (0.4,), (0.2,), (0.0, 1.0), Classification(tuple("abcd")))
POINTS = DatasetInfo((2,), (0.3, -0.2), (0.7, 0.7), None, Classification(tuple("abc")))
FLOWS: dict[str, Callable[[], Flow]] = {
    "gradient_flow": lambda: GradientFlow(36, 3, Euler()),
    "gradient_flow, all rows": lambda: GradientFlow(12, 3, Euler(), rows=12, activation="leaky_relu"),
    "gradient_flow, learned": lambda: GradientFlow(40, 3, Euler(), tau="learned", activation="sigmoid"),
    "lipschitz_mlp": lambda: LipschitzMLP(36, 3, Euler()),
    "chnode etd": lambda: CHNode(8, 3, ETD()),
    "chnode imex": lambda: CHNode(12, 2, IMEX()),
    "chnode etd, whole images": lambda: CHNode(36, 3, ETD(), images="vectors", activation="relu"),
}


def jacobian(field: VectorField, tau: float, y: Tensor) -> Tensor:
    """Of an Euler step by automatic differentiation; columns do not mix. y: (n, M) -> (M, n, n)."""
    J = torch.autograd.functional.jacobian(lambda z: Euler().step(field, 0.0, tau)(z).sum(1), y)
    return J.movedim(2, 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [3, 6])
def test_a_layer_is_nonexpansive_up_to_tau_and_not_beyond_it(activation: str, rows: int) -> None:
    """At a state where every slope is S, the direction of ||W|| is stretched by tau S ||W||^2 - 1."""
    act, W = named_activation(activation), randn(rows, 6, seed=rows)
    tau = 2 / (act.slope_bound * norm2(W) ** 2)
    steep = {"relu": 1.0, "leaky_relu": 1.0, "tanh": 0.0, "sigmoid": 0.0, "softplus": 40.0}[activation]
    b = torch.full((rows, 1), steep, dtype=torch.float64)
    field = DescentField(W, b, act)
    states = torch.cat([torch.zeros(6, 1), randn(6, 200, seed=1), 50 * randn(6, 50, seed=2)], dim=1)
    assert norm2(jacobian(field, tau, states)) <= 1 + 1e-12
    assert field.euler_lipschitz(tau) <= 1 + 1e-9
    for factor in (1.01, 1.5):
        worst = norm2(jacobian(field, factor * tau, torch.zeros(6, 1).double()))
        assert worst == pytest.approx(2 * factor - 1, abs=1e-9)
        assert worst <= field.euler_lipschitz(factor * tau) <= worst * (1 + 1e-8)


def test_orthonormal_rows_keep_the_length_of_every_gradient() -> None:
    """With relu and tau = 2 the layers' Jacobians are orthogonal, almost everywhere; so are those that sort pairs."""
    W = orthonormal(randn(5, 8, seed=0))
    b, relu = randn(5, 1, seed=1), named_activation("relu")
    y = randn(8, 100, seed=2)
    gradient, sorting = DescentField(W, b, relu), SortingField(orthonormal(randn(8, 8, seed=3)), b[:4], relu)
    for J in (jacobian(gradient, 2.0, y), jacobian(sorting, 1.0, y)):
        torch.testing.assert_close(J.mT @ J, torch.eye(8).double().expand_as(J), rtol=0, atol=1e-12)


def test_sorting_pairs_is_a_turn_and_then_a_gradient_layer() -> None:
    Q, b = orthonormal(randn(6, 6, seed=3)), torch.zeros(3, 1, dtype=torch.float64)
    y = randn(6, 40, seed=5)
    z = (Q @ y).unflatten(0, (3, 2))
    layer = Euler().step(SortingField(Q, b, named_activation("relu")), 0.0, 1.0)(y)
    torch.testing.assert_close(layer, torch.stack((z.amax(1), z.amin(1)), dim=1).flatten(0, 1))


def project(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, Constrained):
            module.project_()


def moved(info: DatasetInfo, name: str) -> Network:
    """A network in float32 after steps of an optimiser that pull it out of its constraints, and the projections."""
    torch.manual_seed(1)
    network = bounded_network(info, FLOWS[name]())
    adam = torch.optim.Adam(network.parameters(), lr=0.05)
    x, labels = torch.rand(64, *info.shape), torch.arange(64) % info.task.outputs
    for _ in range(5):
        adam.zero_grad()
        (5 * torch.nn.functional.cross_entropy(network(x), labels)).backward()  # type: ignore[no-untyped-call]
        adam.step()
        project(network)
    return network


CASES = [*((IMAGES, name) for name in FLOWS), (POINTS, "gradient_flow"), (POINTS, "chnode etd")]


@pytest.mark.parametrize(("info", "name"), CASES, ids=lambda v: v if isinstance(v, str) else f"{len(v.shape)}d")
def test_no_difference_of_logits_grows_faster_than_its_certificate(info: DatasetInfo, name: str) -> None:
    """The float64 certificate of float32 weights, against Jacobians of the same weights in float64."""
    network = moved(info, name)
    pairs, body = (
        pair_lipschitz(network),
        network.encoder.lipschitz(network.normalise.std) * network.flow.certificate()["flow_discrete"],
    )
    assert body <= 1 and float(pairs.max()) <= 2**0.5
    x = 2 * randn(40, *info.shape, seed=4) + 0.5
    J = torch.autograd.functional.jacobian(lambda x: network.double()(x).sum(0), x).movedim(1, 0).flatten(2)
    assert norm2(J) <= body
    differences = (J[:, :, None] - J[:, None]).norm(dim=3)
    assert bool((differences <= pairs + 1e-12).all())
    if info is IMAGES and name in ("gradient_flow", "lipschitz_mlp"):  # and the certificate is not idle
        body_jacobian = torch.autograd.functional.jacobian(lambda x: network.flow(network.embed(x)).sum(0), x)
        assert norm2(body_jacobian.movedim(1, 0).flatten(2)) >= 0.9999 * body


@pytest.mark.parametrize("name", FLOWS)
def test_margins_are_radii(name: str) -> None:
    """|margin(x) - margin(x')| <= sqrt 2 |x - x'| end to end, and `certified_radii` are what follows from it."""
    network = moved(IMAGES, name).double()
    x = torch.rand(100, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        logits = network(x)
        labels = logits.argmax(1)
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        margin = logits.gather(1, labels[:, None])[:, 0] - others
        assert bool((certified_radii(network, x, labels) >= margin / 2**0.5 * (1 - 1e-6)).all())
        d = randn(100, 1, 6, 6, seed=9)
        far = network(x + d)
        change = (logits - far).gather(1, labels[:, None]) - (logits - far)
    assert bool((change.abs().amax(1) <= 2**0.5 * d.flatten(1).norm(dim=1)).all())


CONF = Path(__file__).parents[2] / "conf" / "model"
CONSTRAINED = sorted(path.stem for path in CONF.glob("*.yaml") if "head: orthonormal" in path.read_text())


@pytest.mark.parametrize("model", CONSTRAINED)
def test_whatever_an_optimiser_did_all_is_nonexpansive_after_the_projections(model: str) -> None:
    """Every model YAML with `head: orthonormal`, which is certified from end to end, on images."""
    info = DatasetInfo((2, 8, 8), (0.4, 0.5), (0.2, 0.3), (0.0, 1.0), Classification(tuple("abcde")))
    torch.manual_seed(2)
    network = build_network(composed(f"model={model}", "model.width=4", "depth=3"), info)
    x = torch.rand(40, *info.shape)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(2).add_(0.1 * torch.randn_like(p))
        project(network)
        assert network.encoder.lipschitz(network.normalise.std) * network.flow.certificate()["flow_discrete"] <= 1
        assert float(pair_lipschitz(network).max()) <= 2**0.5
        apart = (network(x) - network(x.flip(0))).norm(dim=1)
    assert bool((apart <= (x - x.flip(0)).flatten(1).norm(dim=1) * (1 + 1e-5)).all())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gradient_flow", "lipschitz_mlp", "chnode_lipschitz"])
def test_the_constraint_holds_in_the_checkpoint(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training at a high rate of learning, from the command line's configuration to the file."""
    monkeypatch.chdir(tmp_path)
    words = (f"model={model}", "model.width=8", "depth=3", "lr=0.3", "epochs=2", "objective=margin_cross_entropy")
    run = train(*words)
    for path in (run.last, run.best):
        network = assemble(composed(*SMALL, *words)).network
        state = read_checkpoint(path)["state_dict"]
        network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
        assert network.encoder.lipschitz(network.normalise.std) * network.flow.certificate()["flow_discrete"] <= 1
        assert float(pair_lipschitz(network).max()) <= 2**0.5

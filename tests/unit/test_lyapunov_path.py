"""objective=lyapunov_path: the loss falls at a rate along the network's own trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from small_runs import composed
from torch import Tensor
from torch.nn import functional

from robode.api.training import run_training
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.families.mlp import MLP
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.heads import Identity
from robode.integrators.adaptive import Dopri5
from robode.integrators.euler import Euler
from robode.network import Network
from robode.objectives.lyapunov_path import LyapunovPath
from robode.ode.flow import Flow
from robode.ode.step import Step
from robode.runs.run import find
from robode.runs.table import METRICS
from robode.tasks.classification import Classification

TWO = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b")))
THREE = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b", "c")))
N = 6


class Fall(Step):
    """Takes logits (a, b) of class 0 to others whose cross-entropy is `share` of theirs."""

    def __init__(self, share: float):
        self.share = share

    def __call__(self, y: Tensor) -> Tensor:
        loss = self.share * functional.softplus(y[1] - y[0])
        return torch.stack((-loss.expm1().log(), torch.zeros_like(loss)))


class Falling(Flow):
    solves_an_ode = False

    def __init__(self, share: float):
        super().__init__(2, N, Euler())
        self.share = share

    def steps(self, context: Tensor | None = None) -> list[Step]:
        return [Fall(self.share)] * N


def falling(share: float) -> Network:
    return Network(TWO, Falling(share), head=Identity(2, 2)).double()


def loss(net: Network, x: Tensor, labels: Tensor, **keys: object) -> Tensor:
    return LyapunovPath(**keys)(net, x, labels)["lyapunov_path"]


@pytest.mark.parametrize("kappa", [0.5, 3.0])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_a_fall_at_the_rate_costs_nothing_and_a_slower_one_does(kappa: float, stop_gradient: bool):
    x, labels = torch.randn(50, 2, dtype=torch.float64), torch.zeros(50, dtype=torch.int64)
    at_the_rate = math.exp(-kappa / N)
    keys = {"kappa": kappa, "stop_gradient": stop_gradient}
    assert float(loss(falling(at_the_rate * (1 - 1e-9)), x, labels, **keys)) == 0
    assert float(loss(falling(at_the_rate), x, labels, **keys)) < 1e-14
    slower = 1.01 * at_the_rate
    V = [functional.softplus(x[:, 1] - x[:, 0]) * slower**i for i in range(N)]
    expected = 0.01 * at_the_rate * torch.stack(V).mean()
    torch.testing.assert_close(loss(falling(slower), x, labels, **keys), expected)


def test_the_published_discrete_rate():
    """Three blocks of a time of 1 with kappa = 10/3, three steps each: 1 - alpha = e^(-10/9)."""
    objective = LyapunovPath()
    assert objective.kappa == 10 and objective.grid(9) == list(range(10))
    assert math.exp(-objective.kappa / 9) == pytest.approx(1 - 0.67081, abs=1e-5)


def test_the_resolution_chooses_states_and_the_rate_follows():
    assert LyapunovPath(resolution=3).grid(9) == [0, 3, 6, 9] and LyapunovPath(resolution=4).grid(9) == [0, 2, 4, 6, 9]
    x, labels = torch.randn(20, 2, dtype=torch.float64), torch.zeros(20, dtype=torch.int64)
    net, V = falling(0.9), functional.softplus(x[:, 1] - x[:, 0])
    ends = (0.9**N - math.exp(-4)) * V.mean()
    torch.testing.assert_close(loss(net, x, labels, kappa=4.0, resolution=1), ends)
    uneven = [(0.9**6 - 0.9**4 * math.exp(-4 / 3)) * V, *[(0.9**j - 0.9**i * math.exp(-4 * (j - i) / N)) * V
              for i, j in ((0, 1), (1, 3), (3, 4))]]  # fmt: skip
    torch.testing.assert_close(loss(net, x, labels, kappa=4.0, resolution=4), torch.stack(uneven).mean())


def test_the_cross_entropy_may_be_truncated():
    x, labels = torch.randn(40, 2, dtype=torch.float64), torch.zeros(40, dtype=torch.int64)
    V = [(functional.softplus(x[:, 1] - x[:, 0]) * 0.95**i - 0.4).clamp_min(0) for i in range(N + 1)]
    pairs = zip(V[:-1], V[1:], strict=True)
    expected = torch.stack([(b - math.exp(-1 / N) * a).clamp_min(0) for a, b in pairs]).mean()
    torch.testing.assert_close(loss(falling(0.95), x, labels, kappa=1.0, truncate=0.4), expected)


def residual() -> tuple[Network, Tensor, Tensor]:
    torch.manual_seed(3)
    net = Network(THREE, ResNet(4, 3, Euler(), step=0.5)).double()
    return net, torch.randn(30, 2, dtype=torch.float64), torch.arange(30) % 3


def potentials(net: Network, x: Tensor, labels: Tensor) -> list[Tensor]:
    return [functional.cross_entropy(each, labels, reduction="none") for each in net.read_outs(x)]


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_gradients_are_those_of_the_variant(stop_gradient: bool):
    """Against central differences: with the earlier loss held, or not."""
    net, x, labels = residual()
    kappa, share = 2.0, math.exp(-2 / 3)
    loss(net, x, labels, kappa=kappa, stop_gradient=stop_gradient).backward()
    held = [each.detach() for each in potentials(net, x, labels)]
    for parameter in net.parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0  # along the whole path
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-6 * direction)
                V = potentials(net, x, labels)
                before = held if stop_gradient else V
                values.append(torch.stack([(V[i + 1] - share * before[i]).clamp_min(0) for i in range(3)]).mean())
                parameter.sub_(sign * 1e-6 * direction)
        slope = float(values[0] - values[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_two_variants_have_one_value_and_different_gradients():
    found = []
    for stop_gradient in (True, False):
        net, x, labels = residual()
        value = loss(net, x, labels, kappa=2.0, stop_gradient=stop_gradient)
        value.backward()
        found.append((float(value), net.flow.K.grad))
    assert found[0][0] == found[1][0] and not torch.allclose(found[0][1], found[1][1], rtol=1e-3)


@torch.no_grad()
def test_a_target_is_a_class_and_nothing_else():
    """Classes under other numbers, with their outputs: the same loss."""
    net, x, labels = residual()
    before, order = loss(net, x, labels), torch.tensor([2, 0, 1])
    net.head.weight.copy_(net.head.weight[order]), net.head.bias.copy_(net.head.bias[order])
    torch.testing.assert_close(loss(net, x, order.argsort()[labels]), before)


def test_what_is_noted_is_of_the_last_call():
    net, x, labels = residual()
    objective = LyapunovPath()
    assert objective.notes() == {}
    objective(net, x, labels)
    notes = objective.notes()
    assert not any(each.requires_grad for each in notes.values()) and set(notes) == {"path_violated", "accuracy"}
    with torch.no_grad():
        assert float(notes["accuracy"]) == pytest.approx(float((net(x).argmax(1) == labels).double().mean()))
        V = potentials(net, x, labels)
        violated = [float((V[i + 1] > math.exp(-10 / 3) * V[i]).double().mean()) for i in range(3)]
    assert float(notes["path_violated"]) == pytest.approx(sum(violated) / 3)


@pytest.mark.parametrize("keys", [
    {"kappa": 0}, {"kappa": -1.0}, {"kappa": math.inf}, {"kappa": "auto"}, {"resolution": 0}, {"resolution": 2.5},
    {"truncate": -0.1}, {"truncate": math.nan},
])  # fmt: skip
def test_values_that_make_no_sense(keys: dict[str, object]):
    with pytest.raises(BadInput, match=rf"objective\.lyapunov_path\.{next(iter(keys))}: expected"):
        LyapunovPath(**keys)


def node_with(integrator: Dopri5 | Euler) -> Network:
    return Network(THREE, Node(2, 4, integrator))


@pytest.mark.parametrize(("make", "keys", "expected"), [
    (lambda: node_with(Dopri5()), {}, "expected an integrator of fixed steps, got integrator=dopri5"),
    (lambda: node_with(Euler()), {"resolution": 5}, "resolution: .* at most the 4 transitions .* got 5"),
    (lambda: Network(THREE, MLP(2, 1, Euler(), hidden=5)), {}, "at least two states"),
])  # fmt: skip
def test_networks_that_it_cannot_train(make: Callable[[], Network], keys: dict[str, int], expected: str):
    with pytest.raises(BadInput, match=expected) as error:
        LyapunovPath(**keys).check(make())
    assert "\n" not in str(error.value)
    LyapunovPath().check(node_with(Euler()))


def test_a_training_of_the_continuous_network_logs_what_the_path_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    words = (
        "model=continuous_lyanet", "model.width=2", "depth=3", "data.limit_train=40", "data.validation=20",
        "batch_size=20", "epochs=1", "callbacks=none", "suite=clean", "repeats=1", "trainer.threads=1", "lr=0.01",
    )  # fmt: skip
    run = find(run_training(composed(*words), words).run)[0]
    metrics = METRICS.read(run.folder / "metrics.csv").set_index("name")["value"]
    assert float(metrics["train/loss"]) > 0 and 0 < float(metrics["train/path_violated"]) <= 1
    assert 0 <= float(metrics["train/accuracy"]) <= 1

"""Shares of states and samples that violate dV/dt + kappa V <= 0, on fields whose shares are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hand_made import INFO, Falling, N, data, network
from small_runs import composed
from torch import Tensor
from torch.nn import functional as F

from robode.data.info import DatasetInfo
from robode.encoders import MLPControl, Stem
from robode.errors import BadInput
from robode.families.continuous import Continuous
from robode.families.data_node import DataNode
from robode.families.mlp import MLP
from robode.heads import Identity
from robode.integrators.adaptive import Dopri5
from robode.integrators.euler import Euler
from robode.integrators.reference import with_reference_solver
from robode.integrators.runge_kutta import RK4
from robode.network import Network, states_of
from robode.objectives.lyapunov import rates
from robode.ode.bounds import Scalar
from robode.quantities.stable_inference import StableInference
from robode.quantities.violations import Violations
from robode.quantities.visited import along_layers, along_path, asked_of, cross_entropy_and_rate, exact_copy
from robode.runs.run import Run
from robode.tasks.classification import Classification

KAPPA = math.log(15 * math.sqrt(N))  # of folders without a configuration


def samples(*rates: float, each: int = 6) -> Tensor:
    """Samples of all classes with each of the rates."""
    rate = torch.tensor(rates).repeat_interleave(each)
    return torch.stack([torch.arange(len(rate)) % N, rate], 1)


def measured(net, x, tmp_path, **keys) -> dict[str, float]:
    rows = Violations(**keys).measure(net, data(x), tmp_path)
    found = {str(row["quantity"]): float(row["value"]) for row in rows}
    assert set(found) == {*Violations.gives} - {"gain"}  # the fields made by hand have none
    return found


def test_all_hold_where_the_loss_falls_faster_and_none_where_it_falls_more_slowly(tmp_path):
    x = samples(1.01 * KAPPA, 0.99 * KAPPA, 0.5 * KAPPA)
    found = measured(network(Falling), x, tmp_path, states=40)
    assert found.pop("violations_kappa") == pytest.approx(KAPPA)
    assert found == {name: pytest.approx(2 / 3) for name in found}


def test_the_gain_is_that_of_the_weights(tmp_path):
    flow = DataNode(N, 2, RK4(), hidden=3, gain=7.0)
    flow.gain.mul_(0.5)
    net = Network(INFO, flow, MLPControl((2,), states_of(flow), hidden=[4]), Identity(N, N))
    rows = Violations(samples=3, states=4).measure(net, data(samples(1.0)), tmp_path)
    assert {row["quantity"]: row["value"] for row in rows}["gain"] == 3.5


@dataclass(frozen=True)
class Stuck(Falling):
    """Stands still within `width` of 0."""

    width: float = 1e-3

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return torch.where(y.norm(dim=0) < self.width, 0.0, super().__call__(t, y))


def test_sampled_and_visited_states_are_told_apart(tmp_path):
    """A field that stands still near 0: no sampled state sees it, and no path ever leaves."""
    found = measured(network(Stuck), samples(2 * KAPPA), tmp_path, states=300)
    assert found["violated_sampled_test"] == found["violated_sampled_any_train"] == 0
    names = ("violated_visited", "violated_visited_any", "violated_layers", "late_visited", "late_layers")
    assert [found[f"{name}_test"] for name in names] == [1] * 5


def test_the_share_of_sampled_states_is_that_of_the_region(tmp_path):
    """Standing still within r of 0, of radii that are uniform on [0, 15 sqrt n]: r/(15 sqrt n)."""
    r = 5.0
    net = network(lambda x: Stuck(x, r))
    found = measured(net, samples(2 * KAPPA), tmp_path, states=4000)
    assert found["violated_sampled_test"] == pytest.approx(r / (15 * math.sqrt(N)), abs=0.02)
    assert found["violated_sampled_any_test"] == 1


@dataclass(frozen=True)
class Stopping(Falling):
    """Stops at a time."""

    at: float = 0.5
    autonomous = False

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return torch.where(torch.as_tensor(t) < self.at - 1e-9, super().__call__(t, y), 0.0)


def test_a_path_that_stops_early_is_late_only_when_its_lead_is_used_up(tmp_path):
    """V(t) = V(0) e^(-rate min(t, 1/2)): violated from t = 1/2 on, late where t kappa > rate/2."""
    net = network(lambda x: Stopping(x), depth=4)
    found = measured(net, samples(1.7 * KAPPA), tmp_path, refine=2, states=10)  # t = 0, 1/8, ..., 1
    assert [found[f"{name}_visited_train"] for name in ("violated", "late")] == pytest.approx([5 / 9, 2 / 8])
    assert [found[f"{name}_layers_train"] for name in ("violated", "late")] == pytest.approx([3 / 5, 1 / 4])


def test_paths_are_those_of_the_network_and_of_the_reference_solver():
    """V on the refined grid is the exact V(0) e^(-rate t), and at the layers that of the network's own states."""
    rate = 3.0
    x = samples(rate).double()
    labels = x[:, 0].long()
    net = exact_copy(network(Falling, depth=2))
    fine = along_path(net, x, labels, 8)
    expected = math.log(N) * torch.exp(-rate * fine.time)[:, None].expand_as(fine.V)
    torch.testing.assert_close(fine.V, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(fine.rate, -rate * expected, rtol=1e-6, atol=0)
    assert fine.time.tolist() == pytest.approx([k / 16 for k in range(17)]) and bool(fine.right.all())
    coarse = along_path(net, x, labels)
    torch.testing.assert_close(coarse.V[-1], torch.nn.functional.cross_entropy(net(x), labels, reduction="none"))
    assert coarse.time.tolist() == [0.0, 0.5, 1.0]
    assert float((coarse.V[-1] - fine.V[-1]).abs().max()) > 1e-5, "two large steps of rk4 are seen"


def test_v_and_its_rate_where_logits_are_large():
    """The stable form agrees with the closed form of the loss, and keeps relative accuracy where that one is 0."""
    torch.manual_seed(0)
    z, g, labels = torch.randn(5, 4).double(), torch.randn(5, 4).double(), torch.tensor([0, 1, 2, 3, 3])
    V, rate = cross_entropy_and_rate(z, g, labels)
    known = [rates(torch.nn.Identity(), z[b, :, None], g[b, None, :, None], labels[b : b + 1]) for b in range(5)]
    torch.testing.assert_close(V, torch.cat([each.value[:, 0] for each in known]))
    torch.testing.assert_close(rate, torch.cat([each.rate[:, 0] for each in known]))
    far = torch.tensor([[100.0, 0.0]]).double()
    V, rate = cross_entropy_and_rate(far, torch.tensor([[3.0, 0.0]]).double(), torch.tensor([0]))
    assert float(V) == pytest.approx(math.exp(-100)) and float(rate) == pytest.approx(-3 * math.exp(-100))


@pytest.mark.parametrize("key", ["samples", "states", "refine"])
def test_bad_input(key):
    with pytest.raises(BadInput, match=f"{key}=0: expected a whole number of at least 1"):
        Violations(**{key: 0})


def images() -> DatasetInfo:
    return DatasetInfo((1, 8, 8), (0.0,), (1.0,), (0.0, 1.0), Classification(tuple("abc")))


def test_stages_are_read_out_through_the_later_ones():
    """`continuous`: V at the layers' ends is that of `Network.read_outs`, and its rate along the path the slope of V;
    the refined path ends at what the reference solver gives."""
    torch.manual_seed(0)
    info = images()
    flow = Continuous(4, 4, RK4(), stages=2)
    net = exact_copy(Network(info, flow, Stem((1, 8, 8), states_of(flow))))
    x, labels = torch.rand(5, 1, 8, 8).double(), torch.tensor([0, 1, 2, 0, 1])
    read = torch.stack([F.cross_entropy(each, labels, reduction="none") for each in net.read_outs(x)])
    torch.testing.assert_close(along_path(net, x, labels).V, read)
    torch.testing.assert_close(along_layers(net, x, labels).V, read)
    fine = along_path(net, x, labels, 24)
    finer = F.cross_entropy(with_reference_solver(net)(x), labels, reduction="none")
    torch.testing.assert_close(fine.V[-1], finer, rtol=1e-3, atol=0)
    slopes = (fine.V[2:] - fine.V[:-2]) / (fine.time[2:] - fine.time[:-2])[:, None]
    inside = torch.arange(1, 96) % 24 != 0  # between pieces of time the rate jumps
    torch.testing.assert_close(fine.rate[1:-1][inside], slopes[inside], rtol=0.05, atol=0.05)


def test_layers_that_solve_no_ode_have_late_states_alone(tmp_path, caplog):
    torch.manual_seed(0)
    net, x = Network(INFO, MLP(2, 3, Euler(), hidden=5)), samples(1.0)
    rows = {str(row["quantity"]): row["value"] for row in Violations().measure(net, data(x), tmp_path)}
    assert set(rows) == {"violations_kappa", "late_layers_train", "late_layers_test"}
    assert "solve no ODE, so there is no dV/dt: left out" in caplog.text
    V = torch.stack([F.cross_entropy(each, x[:, 0].long(), reduction="none") for each in net.read_outs(x)])
    time = torch.linspace(0, 1, len(V))[1:, None]
    late = V[1:] > V[0] * torch.exp(-rows["violations_kappa"] * time)
    assert rows["late_layers_test"] == pytest.approx(float(late.double().mean()))


def test_kappa_and_states_are_those_of_the_runs_loss(tmp_path):
    """lyapunov_mc with kappa in units of 1/t, lyapunov_path in units of 1/horizon, and the default for other losses."""
    objective = {
        "lyapunov_mc": {"kappa": 2.5, "domain": "hypercube"},
        "lyapunov_path": {"kappa": 7.0},
        "barrier": {"domain": "hypercube"},
    }
    net = network(Falling)
    net.flow.h.mul_(2)
    for name, keys in objective.items():
        words = ["model=lyanet", "encoder=mlp", "data=double_moons", "callbacks=none", f"objective={name}"]
        config = composed(*words, *(f"objective.{name}.{key}={value}" for key, value in keys.items()))
        (folder := tmp_path / name).mkdir()
        Run(folder).save_config(config)
        kappa, states = asked_of(net, folder)
        assert kappa == pytest.approx({"lyapunov_mc": 2 * 2.5, "lyapunov_path": 7.0, "barrier": KAPPA}[name])
        assert states.domain == keys.get("domain", "hypersphere")
    assert asked_of(net, tmp_path)[0] == pytest.approx(KAPPA)


@dataclass(frozen=True)
class Steep(Falling):
    """Too steep for an adaptive method of tight tolerances, right away."""

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return super().__call__(t, y) + 1e-3 * torch.sin(1e9 * y)


def test_what_the_reference_solver_cannot_solve_is_left_out_with_a_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Dopri5, "refined", lambda self: Dopri5(1e-12, 1e-14))
    monkeypatch.setattr("robode.integrators.adaptive.MAX_STEPS", 30)
    net, x = network(Steep, 1, Dopri5(1e-2, 1e-2)), samples(2 * KAPPA)
    found = {str(row["quantity"]) for row in Violations(states=5).measure(net, data(x), tmp_path)}
    assert found == {name for name in Violations.gives if "visited" not in name and name != "gain"}
    assert "the states at visited are left out: integrator=dopri5" in caplog.text
    rows = StableInference().measure(net, data(x), tmp_path)
    assert [row["quantity"] for row in rows] == ["stable_correct"]

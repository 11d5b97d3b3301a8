"""Accuracy, loss and evaluations of inference that is stopped early."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hand_made import INFO, Falling, N, data, network
from torch import Tensor
from torch.nn import functional as F

from robode.data.info import DatasetInfo
from robode.encoders import Stem
from robode.errors import BadInput
from robode.families.continuous import Continuous
from robode.families.layers import LayersAlone
from robode.families.mlp import MLP
from robode.integrators.adaptive import Dopri5
from robode.integrators.euler import Euler
from robode.integrators.evaluations import count_calls
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4
from robode.network import Network, states_of
from robode.ode.step import Step
from robode.quantities.early_stopping import FILE, EarlyStopping, stopped

RATES = (4.0, -0.5)  # right from the first moment, and wrong


def samples() -> Tensor:
    rates = torch.tensor(RATES).repeat_interleave(N)
    return torch.stack([torch.arange(len(rates)) % N, rates], 1)


@pytest.mark.parametrize(
    ("integrator", "depth", "time"),
    [
        (RK4(), 8, np.arange(9) / 8),
        (Dopri5(1e-7, 1e-7), 1, np.arange(11) / 10),
        (Dopri5(1e-7, 1e-7), 3, np.arange(11) / 10),
    ],
)
def test_the_loss_falls_like_that_of_the_ode_and_is_resolved_to_t(
    integrator: Integrator, depth: int, time: np.ndarray, tmp_path
) -> None:
    """V(t) = log(n) e^(-rate t), at the ends of layers, or wherever an adaptive method is asked to stop."""
    net = network(Falling, depth, integrator)
    rows = EarlyStopping(points=10).measure(net, data(samples()), tmp_path)
    assert tuple(row["quantity"] for row in rows) == EarlyStopping.gives
    found = {str(row["quantity"]): float(row["value"]) for row in rows}
    arrays = np.load(tmp_path / FILE)
    np.testing.assert_allclose(arrays["time"], time, atol=1e-12)
    rates = samples()[:, 1].numpy()
    expected = math.log(N) * np.exp(-rates * time[:, None])
    np.testing.assert_allclose(arrays["loss"], expected, rtol=2e-3)
    np.testing.assert_allclose(arrays["ode_time"], np.arange(4 * depth + 1) / (4 * depth), atol=1e-12)
    finer = math.log(N) * np.exp(-rates * arrays["ode_time"][:, None])
    np.testing.assert_allclose(arrays["ode_loss"], finer, rtol=1e-5)
    assert arrays["right"][1:].tolist() == [[True] * N + [False] * N] * (len(time) - 1)
    for t in (0.25, 0.5, 0.75, 1.0):
        last = int(np.flatnonzero(time <= t + 1e-9)[-1])
        assert found[f"loss_at_{t:g}"] == pytest.approx(arrays["loss"][last].mean(), rel=1e-6)
        assert found[f"accuracy_at_{t:g}"] == 0.5 and found[f"calls_at_{t:g}"] == arrays["calls"][last]
    calls = arrays["calls"]
    assert calls[0] == 0 and bool((np.diff(calls) >= 0).all())
    assert calls[-1] == count_calls(net.flow, *net.encode(samples()))
    if depth == 8:
        assert calls.tolist() == [4 * k for k in range(9)]


def test_stages_are_read_out_and_leading_into_one_costs_nothing() -> None:
    torch.manual_seed(0)
    info = DatasetInfo((1, 8, 8), (0.0,), (1.0,), (0.0, 1.0), INFO.task)
    flow = Continuous(4, 4, RK4(), stages=2)
    net = Network(info, flow, Stem((1, 8, 8), states_of(flow))).eval()
    x = torch.rand(5, 1, 8, 8)
    stops = stopped(net, x, 10)
    for mine, its in zip(stops, net.read_outs(x), strict=True):
        torch.testing.assert_close(mine.logits, its)
    assert [each.calls for each in stops] == [0, 4, 8, 12, 16] and [each.time for each in stops][1] == 0.25
    assert count_calls(flow, *net.encode(x)) == 16


def test_layers_without_an_ode_are_counted() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 2)
    net = Network(INFO, MLP(2, 3, Euler(), hidden=5))
    stops = stopped(net, x, 10)
    torch.testing.assert_close(stops[-1].logits, net(x))
    assert (stops[-1].time, stops[-1].calls) == (1.0, 3)
    assert [each.calls for each in stops] == sorted({each.calls for each in stops})


class Twice(Step):
    """A state of twice as many numbers, which nothing says leads into another stage."""

    def __call__(self, y: Tensor) -> Tensor:
        return torch.cat([y, y], 1)


class Doubling(LayersAlone):
    flattens = True

    def steps(self, context: Tensor | None = None) -> list[Step]:
        return [Twice() for _ in range(self.depth)]

    def build(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * 2**self.depth,)


def test_states_of_another_shape_are_left_out(tmp_path, caplog) -> None:
    net = Network(INFO, Doubling(2, 2, Euler()))
    stops = stopped(net, x := torch.randn(7, 2), 10)
    assert [(each.time, each.calls) for each in stops] == [(1.0, 2)]
    torch.testing.assert_close(stops[0].logits, net(x))
    assert "2 states of Doubling that the head cannot read: left out" in caplog.text
    rows = EarlyStopping().measure(net, data(samples()), tmp_path)
    assert [row["quantity"] for row in rows] == ["accuracy_at_1", "loss_at_1", "calls_at_1"]


def test_the_network_is_left_as_it_was_and_runs_in_eval_mode(tmp_path) -> None:
    net = network(Falling, 2)
    net.train()
    state = {name: each.clone() for name, each in net.state_dict().items()}
    EarlyStopping().measure(net, data(samples()), tmp_path)
    assert net.training and all(torch.equal(each, state[name]) for name, each in net.state_dict().items())
    last = np.load(tmp_path / FILE)["loss"][-1]
    x = samples()
    np.testing.assert_allclose(last, F.cross_entropy(net(x), x[:, 0].long(), reduction="none"), rtol=1e-5)


@pytest.mark.parametrize("key", ["samples", "points", "refine"])
def test_bad_input(key: str) -> None:
    with pytest.raises(BadInput, match=f"{key}=0: expected a whole number of at least 1"):
        EarlyStopping(**{key: 0})

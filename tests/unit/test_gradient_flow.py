"""The dense 1-Lipschitz families: layers, learned steps, what they refuse, and that they train like any other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import norm2, randn
from small_runs import composed, train

from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.families.gradient_flow import GradientFlow
from robode.families.lipschitz_mlp import LipschitzMLP
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.reference import with_reference_solver
from robode.network import build_network
from robode.ode.sensitivity import bsm_norms
from robode.runs.table import METRICS
from robode.tasks.classification import Classification
from robode.training.callbacks import useless


def flow(**options: Any) -> GradientFlow:
    torch.manual_seed(0)
    return GradientFlow(options.pop("width", 6), options.pop("depth", 3), Euler(), **options)


def test_a_layer_is_the_formula_in_its_docstring() -> None:
    net = flow(rows=4).double()
    y = randn(5, 6, seed=1)
    expected = y
    for W, b in zip(net.W, net.b, strict=True):
        expected = expected - 2 * torch.relu(expected @ W.T + b.T) @ W
    torch.testing.assert_close(net(y), expected)


def test_a_number_for_the_step_is_tau_and_learned_steps_are_tau_too() -> None:
    y = randn(5, 6, seed=1).float()
    assert torch.equal(flow(step=0.7)(y), flow(horizon=2.1)(y))
    torch.testing.assert_close(flow(step=0.7, tau="learned")(y), flow(step=0.7)(y))
    assert float(flow(activation="sigmoid").h) == 8


@pytest.mark.parametrize("make", [flow, lambda: LipschitzMLP(6, 3, Euler())])
def test_jacobians_of_steps_against_automatic_ones(make: Any) -> None:
    net = make().double()
    y = randn(7, 6, seed=3)
    for j, found in enumerate(net.step_jacobians(y)):
        before = net.states(y)[j]

        def step(z: torch.Tensor, j: int = j) -> torch.Tensor:
            return Euler().step(net.bind()[0][j], 0.0, float(net.h))(z.T).sum(1)

        expected = torch.autograd.functional.jacobian(step, before).movedim(1, 0)
        torch.testing.assert_close(found, expected)


def test_sensitivities_of_relu_layers_are_isometries() -> None:
    """Nothing vanishes on the way back, at any depth: ||BSM|| = 1."""
    torch.manual_seed(2)
    for net in (flow(depth=30), LipschitzMLP(6, 30, Euler())):
        norms = bsm_norms(net, torch.randn(20, 6)).norms
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-4)


def test_learned_steps_stay_where_every_layer_is_nonexpansive() -> None:
    net = flow(tau="learned", activation="tanh")
    assert net.tau is not None and bool((net.tau > 1.99).all())
    with torch.no_grad():
        net.W.add_(0.5 * torch.randn_like(net.W))
        net.tau.copy_(torch.tensor([5.0, -1.0, 0.1]))
    assert net.certificate()["flow_discrete"] > 1
    net.project_()
    values = net.properties()
    norms = torch.tensor([norm2(W.double()) for W in net.W.detach()])
    assert values["tau/1"] == pytest.approx(2 / float(norms[0]) ** 2, rel=1e-5)
    assert values["tau/2"] == 0 and values["tau/3"] == pytest.approx(0.1)
    assert net.certificate()["flow_discrete"] <= 1
    before = net.tau.clone()
    net.project_()
    assert torch.equal(net.tau, before)
    assert net.properties()["tau/1"] == values["tau/1"]
    with torch.no_grad():
        net.W.zero_()
    net.project_()
    assert bool(net.tau.isfinite().all()) and net.certificate()["flow_discrete"] == 1


def test_the_certificate_reports_weights_that_left_the_constraint() -> None:
    """It is computed from the weights, not from what they are meant to be."""
    for net, expected in ((flow(depth=1), 2 * 1.2**2 - 1), (LipschitzMLP(6, 1, Euler()), 1.2)):
        assert net.certificate()["flow_discrete"] <= 1
        with torch.no_grad():
            net.W.mul_(1.2)
        assert net.certificate()["flow_discrete"] == pytest.approx(expected, rel=1e-4)
        net.project_()
        assert net.certificate()["flow_discrete"] <= 1


def test_half_a_step_would_be_another_network() -> None:
    holder = torch.nn.Module()
    holder.flow = flow()
    assert with_reference_solver(holder) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 7}, "model.rows: expected auto or a number from 1 to model.width=6, got 7"),
        ({"rows": 0}, "model.rows"),
        ({"rows": "all"}, "model.rows"),
        ({"tau": "free"}, "model.tau: expected step or learned, got 'free'"),
        (
            {"step": 2.02},
            "step (or horizon/depth): expected at most 2 for nonexpansive layers, got 2.02",
        ),
        ({"horizon": 7.0}, "expected at most 2"),
        ({"step": 8.5, "activation": "sigmoid"}, "expected at most 8"),
        ({"activation": "gelu"}, "model.activation"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as refused:
        flow(**options)
    assert words in str(refused.value)


def test_integrators_and_odd_widths() -> None:
    with pytest.raises(BadInput, match="integrator=etd: expected euler"):
        GradientFlow(4, 2, ETD())
    with pytest.raises(BadInput, match="substeps"):
        GradientFlow(4, 2, Euler("auto"))
    with pytest.raises(BadInput, match="model.width: expected an even number"):
        LipschitzMLP(5, 2, Euler())
    with pytest.raises(BadInput, match="at most 1"):
        LipschitzMLP(4, 2, Euler(), step=1.5)
    assert GradientFlow(4, 2, Euler(3)).certificate()["flow_discrete"] <= 1


def test_weights_that_are_not_finite_end_the_training() -> None:
    for options in ({}, {"tau": "learned"}):
        net = flow(**options)
        with torch.no_grad():
            net.W[0, 0, 0] = math.nan
        net.project_()
        assert "not finite" in str(useless(net))


@pytest.mark.slow
@pytest.mark.parametrize("words", [("model=gradient_flow",), ("model=gradient_flow", "model.tau=learned"),
                                   ("model=lipschitz_mlp",), ("model=chnode_lipschitz",)])  # fmt: skip
def test_a_small_run_learns_and_is_certified(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(*words, "model.width=8", "epochs=8", "objective=margin_hinge", "suite=certified")
    metrics = METRICS.read(run.folder / "metrics.csv")
    found = metrics.pivot_table(index="step", columns="name", values="value")
    assert float(found["flow/flow_discrete"].max()) <= 1
    assert found["train/loss"].dropna().iloc[-1] < 0.8 * found["train/loss"].dropna().iloc[0]
    if "model.tau=learned" in words:
        assert "flow/tau/1" in found


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist"])
def test_the_experiments_cycle_fits_their_data(data: str) -> None:
    """One cycle ends with the last step of the last epoch; a schedule that is too short stops a training."""
    config = composed(f"experiment=one_lipschitz/{data}", "data.root=nowhere", "epochs=3")
    assert config.model.name == "gradient_flow" and config.integrator.name == "euler" and config.data.name == data
    scheduler = config.optimizer.scheduler.arguments
    assert scheduler["steps_per_epoch"] == math.ceil((60_000 - config.data.validation) / config.batch_size)
    assert (scheduler["epochs"], scheduler["max_lr"], config.optimizer.interval) == (3, config.lr, "step")


def test_width_auto_is_as_many_numbers_as_a_sample_has() -> None:
    info = DatasetInfo((1, 6, 5), (0.4,), (0.2,), (0.0, 1.0), Classification(tuple("abcd")))
    words = ("model=gradient_flow", "model.width=auto", "model.rows=7", "depth=2", "data.root=nowhere", "data=mnist")
    network = build_network(composed(*words), info)
    assert network.flow.width == 30 and network.flow.W.shape == (2, 7, 30)

"""The stabilised NODE: weights are projected when they should be, a checkpoint keeps what is proved, and it resumes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_runs import train

from robode.errors import BadInput
from robode.families.stable_node import StableNode
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.objectives.lognorm_penalty import LognormPenalty
from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_exact import maximum
from robode.ode.projection import stabilise
from robode.runs.checkpoints import read_checkpoint

SMALL_NODE = ("model=stable_node", "model.width=6", "model.every=3", "model.delta=0.2")


def flow(width: int = 12, depth: int = 4, **keys: Any) -> StableNode:
    torch.manual_seed(0)
    return StableNode(width, depth, Euler(), **keys)


def delta_of(A: torch.Tensor, alpha: float = 0.1) -> float:
    """The exact maximum, from above."""
    return maximum(scaled_rows(A, alpha)).upper


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "delta"),
    [("smooth_leaky", 1.0), ("smooth_leaky", 0.3), ("leaky_tanh", 0.0), ("leaky_relu", -0.2)],
)
def test_every_projection_leaves_weights_below_delta(activation: str, delta: float) -> None:
    phi = flow(activation=activation, delta=delta)
    for _ in range(2):
        with torch.no_grad():
            phi.K.mul_(1.3).add_(0.1 * torch.randn_like(phi.K))
        phi.project_()
        assert delta_of(phi.K[0].detach()) <= delta + 1e-6
        assert phi.fields()[0].lognorm() <= delta  # proved, for the float32 numbers
        assert phi.certificate()["flow_ode"] <= math.exp(delta) * (1 + 1e-12)


def test_the_unconstrained_baseline_is_left_alone() -> None:
    free, bound = flow(stabilise="none"), flow(delta=5.0)
    assert torch.equal(free.K, bound.K)  # delta = 5 holds at the start
    assert free.fields()[0].lognorm() > 0.5


@pytest.mark.slow
def test_the_projection_is_that_of_the_library_call() -> None:
    A = flow(stabilise="none").K[0].detach()
    assert torch.equal(flow(delta=0.2).K[0].detach(), stabilise(A, 0.2, 0.1).W)


@pytest.mark.slow
def test_separate_layers_are_projected_one_by_one() -> None:
    phi = flow(depth=3, shared=False, delta=0.1)
    assert len(phi.K) == 3 and all(field.lognorm() <= 0.1 for field in phi.fields())


@pytest.mark.slow
def test_the_euler_network_has_its_own_bound_and_rk4_none() -> None:
    """flow_discrete is (1 + 2 h delta + h^2 ||A||^2)^(N/2), above e^delta here; no such bound is known for rk4."""
    phi = flow(width=20, depth=5, delta=0.0)
    norm = float(torch.linalg.matrix_norm(phi.K[0].detach().double(), 2))
    expected = (1 + 2 * 0.2 * phi.fields()[0].lognorm() + (0.2 * norm) ** 2) ** 2.5
    assert phi.certificate()["flow_discrete"] == pytest.approx(expected, rel=1e-6)
    assert 1 <= phi.certificate()["flow_discrete"]
    torch.manual_seed(0)
    assert StableNode(20, 5, RK4()).certificate()["flow_discrete"] > phi.certificate()["flow_discrete"]


@pytest.mark.parametrize("width", [6, 24])
def test_no_two_trajectories_separate_by_more_than_the_euler_bound(width: int) -> None:
    phi = flow(width=width, depth=6, delta=0.3).exact()
    bound = phi.certificate()["flow_discrete"]
    y, z = 3 * torch.randn(2, 400, width, dtype=torch.float64)
    z = y + 0.1 * z
    with torch.no_grad():
        apart = (phi(y) - phi(z)).norm(dim=1) / (y - z).norm(dim=1)
    assert float(apart.max()) <= bound * (1 + 1e-9)
    jacobians = phi.step_jacobians(y)
    product = jacobians[0]
    for J in jacobians[1:]:
        product = J @ product
    assert float(torch.linalg.matrix_norm(product.detach(), 2).max()) <= bound * (1 + 1e-9)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"alpha": 0.0}, r"model.alpha: expected a number in \(0, 1\]"),
        ({"alpha": 1.5}, r"model.alpha: expected a number in \(0, 1\]"),
        ({"delta": math.nan}, "model.delta: expected a number"),
        ({"delta": None, "stabilise": "none"}, "model.delta: expected a number"),
        ({"stabilise": "always"}, "model.stabilise: expected one of projection, penalty, none"),
        ({"images": "rows"}, "model.images: expected pixels or vectors"),
        ({"activation": "tanh"}, "model.activation: expected one of smooth_leaky"),
    ],
)
def test_bad_input(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        flow(**keys)


def test_weights_that_are_not_finite_are_left_to_the_training_to_name() -> None:
    phi = flow()
    with torch.no_grad():
        phi.K[0, 0, 0] = math.nan
    phi.project_()
    assert bool(phi.K[0, 0, 0].isnan())


@pytest.mark.parametrize("entry", [-0.5, math.nan])
@pytest.mark.parametrize("way", ["projection", "penalty"])
def test_a_theta_that_proves_nothing_is_sought_anew(way: str, entry: float) -> None:
    """What a damaged checkpoint may hold."""
    phi, free = flow(width=11, delta=0.2, stabilise=way), flow(width=11, stabilise="none")
    phi.theta[0, 3] = entry
    with torch.no_grad():
        phi.K.copy_(free.K)
    assert phi.fields()[0].lognorm() == free.fields()[0].lognorm()
    phi.project_()
    assert bool((phi.theta > 0).all())
    assert way == "penalty" or phi.fields()[0].lognorm() <= 0.2


# ---- the penalty ----------------------------------------------------------------------------------------------------


def test_the_penalty_is_a_bound_whose_gradient_lowers_it() -> None:
    phi = flow(width=10, stabilise="penalty")
    before = phi.lognorm_bound()
    assert float(before.detach()) >= delta_of(phi.K[0].detach()) - 1e-9
    before.sum().backward()
    assert phi.K.grad is not None
    with torch.no_grad():
        phi.K.sub_(0.01 * phi.K.grad)
    assert float(phi.lognorm_bound().detach()) < float(before.detach())


def test_the_penalty_needs_the_model_that_keeps_its_theta() -> None:
    network: Any = type("N", (), {"flow": flow(stabilise="none")})()
    x = torch.zeros(1, 2)
    with pytest.raises(BadInput, match="model.stabilise=penalty, got stabilise=none"):
        LognormPenalty(1.0)(network, x, x)
    network.flow = flow(stabilise="penalty")
    assert float(LognormPenalty(2.0)(network, x, x)["lognorm_penalty"].detach()) == pytest.approx(
        2 * float(network.flow.lognorm_bound().detach()) ** 2, rel=1e-6
    )
    network.flow = flow(stabilise="penalty", delta=100.0)
    assert float(LognormPenalty(2.0)(network, x, x)["lognorm_penalty"].detach()) == 0


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_that_makes_no_sense(weight: float) -> None:
    with pytest.raises(BadInput, match="objective.lognorm_penalty.weight: expected a number > 0"):
        LognormPenalty(weight)


# ---- in training ----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


@pytest.mark.slow
def test_a_checkpoint_keeps_what_is_proved(here: None) -> None:
    """Two steps an epoch and a projection every third: the last of an epoch is projected all the same."""
    state = read_checkpoint(train("epochs=1", *SMALL_NODE).last)["state_dict"]
    A = next(value for name, value in state.items() if name.endswith("flow.K"))
    assert A.dtype == torch.float32 and delta_of(A[0]) <= 0.2 + 1e-6


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(here: None) -> None:
    whole = train("epochs=3", "run=whole", *SMALL_NODE)
    train("epochs=1", "run=parted", *SMALL_NODE)
    parted = train("resume=parted", "epochs=3")
    one, two = (read_checkpoint(run.last)["state_dict"] for run in (whole, parted))
    assert one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
    theta = next(value for name, value in one.items() if name.endswith("flow.theta"))
    assert float(theta.min()) > 0  # the projection was at work

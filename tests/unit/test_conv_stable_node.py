"""The stabilised NODE on images: the size of the images is known before anything is bounded, kernels are projected when
they should be, and a checkpoint keeps what is proved."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_runs import composed, train

from robode.errors import BadInput
from robode.families.conv_stable_node import ConvStableNode
from robode.integrators.euler import Euler
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.network import build_network
from robode.objectives.lognorm_penalty import LognormPenalty
from robode.ode.conv_lognorm import ConvJacobians, conv_upper_bound
from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_exact import maximum
from robode.quantities.log_norms import LogNorms, StableSlopes
from robode.runs.checkpoints import read_checkpoint
from robode.training.assembly import build_data

IMAGES = ("data=mnist5k", "data.limit_train=60", "model=conv_stable_node", "model.width=2")
SMALL_NODE = (*IMAGES, "model.every=3", "model.delta=0.2")


def flow(width: int = 3, depth: int = 4, size: tuple[int, int] = (6, 5), **keys: Any) -> ConvStableNode:
    torch.manual_seed(0)
    phi = ConvStableNode(width, depth, Euler(), **keys)
    phi.build((width, *size))
    return phi


@pytest.mark.parametrize(
    ("activation", "delta", "kernel"),
    [("smooth_leaky", 0.6, 3), ("leaky_tanh", 0.0, 3),
     *(pytest.param(*case, marks=pytest.mark.slow) for case in (
         ("leaky_relu", -0.2, 3), ("smooth_leaky", 0.3, 5), ("smooth_leaky", 0.1, 1)))],
)  # fmt: skip
def test_every_projection_leaves_weights_below_delta(activation: str, delta: float, kernel: int) -> None:
    phi = flow(activation=activation, delta=delta, kernel=kernel)
    for _ in range(2):
        with torch.no_grad():
            phi.K.mul_(1.3).add_(0.1 * torch.randn_like(phi.K))
        assert phi.fields()[0].lognorm() > delta
        phi.project_()
        fresh = ConvJacobians(phi.K[0], (6, 5), 0.1)  # with no theta of the flow's
        assert phi.fields()[0].lognorm() <= delta and conv_upper_bound(fresh).value <= delta + 0.02
        assert phi.certificate()["flow_ode"] <= math.exp(delta) * (1 + 1e-12)


def test_nothing_is_projected_before_the_size_is_known_and_a_larger_image_is_refused() -> None:
    torch.manual_seed(0)
    phi = ConvStableNode(3, 4, Euler())
    before = phi.K.clone()
    phi.project_()
    assert torch.equal(phi.K, before)
    with pytest.raises(BadInput, match="expected `build` before anything"):
        phi.fields()
    phi.build((3, 6, 5))
    assert not torch.equal(phi.K, before) and bool((phi.theta > 0).all())
    with pytest.raises(BadInput, match=r"expected images \(6, 5\), got \(6, 6\)"):
        phi(torch.zeros(1, 3, 6, 6))


def test_the_unconstrained_baseline_is_left_alone() -> None:
    free, bound = flow(stabilise="none"), flow(delta=5.0)
    assert torch.equal(free.K, bound.K)  # delta = 5 holds at the start
    assert free.fields()[0].lognorm() > 0.5 and "delta" not in free.properties()
    assert bound.properties()["delta"] == 5.0


def test_a_kernel_of_one_pixel_is_the_dense_family_at_every_pixel() -> None:
    """u' = sigma(A u + b), one A for all pixels: the log-norm is that of A."""
    phi = flow(stabilise="none", kernel=1)
    exact = maximum(scaled_rows(phi.K[0, :, :, 0, 0], 0.1))
    assert exact.closed and exact.lower <= phi.fields()[0].lognorm() <= 1.02 * exact.upper
    y = torch.randn(2, 3, 6, 5)
    field = phi.fields()[0]
    pixels = torch.einsum("ij,bjhw->bihw", phi.K[0, :, :, 0, 0], y) + phi.b[0, :, None, None]
    torch.testing.assert_close(field(0.0, y), phi.activation(pixels))


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"alpha": 0.0}, r"model.alpha: expected a number in \(0, 1\]"),
        ({"delta": math.nan}, "model.delta: expected a number"),
        ({"stabilise": "always"}, "model.stabilise: expected one of projection, penalty, none"),
        ({"activation": "tanh"}, "model.activation: expected one of smooth_leaky"),
        ({"kernel": 2}, "model.kernel: expected an odd whole number"),
        ({"kernel": 0}, "model.kernel: expected an odd whole number"),
        ({"kernel": 3.0}, "model.kernel: expected an odd whole number"),
    ],
)
def test_bad_input(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        flow(**keys)


def test_states_and_integrators_that_do_not_fit_are_refused() -> None:
    phi = flow()
    with pytest.raises(BadInput, match="conv_stable_node: expected images, got vectors"):
        phi.build((3,))
    with pytest.raises(BadInput, match="model.width: expected the channels of the encoded images, 4, got 3"):
        phi.build((4, 6, 5))
    with pytest.raises(BadInput, match="integrator=implicit_midpoint: expected a model whose pixels do not mix"):
        ConvStableNode(3, 4, ImplicitMidpoint())


def test_weights_that_are_not_finite_are_left_to_the_training_to_name() -> None:
    phi = flow()
    with torch.no_grad():
        phi.K[0, 0, 0, 1, 1] = math.nan
    phi.project_()
    assert bool(phi.K[0, 0, 0, 1, 1].isnan())


def test_the_penalty_is_a_bound_whose_gradient_lowers_it() -> None:
    phi = flow(stabilise="penalty")
    before = phi.lognorm_bound()
    field = phi.fields()[0]
    assert float(before.detach()) == pytest.approx(field.lognorm(), rel=1e-4)
    network: Any = type("N", (), {"flow": phi})()
    loss = LognormPenalty(2.0)(network, torch.zeros(1), torch.zeros(1))["lognorm_penalty"]
    assert float(loss.detach()) == pytest.approx(2 * float(before.detach()) ** 2, rel=1e-5)
    loss.backward()
    assert phi.K.grad is not None
    with torch.no_grad():
        phi.K.sub_(0.01 * phi.K.grad)
    assert float(phi.lognorm_bound().detach()) < float(before.detach())


def test_both_bounds_of_the_log_norm_are_measured_and_slopes_are_refused(tmp_path: Any) -> None:
    config = composed(*IMAGES, "model.stabilise=none")
    data = build_data(config)
    data.prepare()
    network = build_network(config, data.info)
    found = {str(line["quantity"]): float(line["value"]) for line in LogNorms().measure(network, data, tmp_path)}
    assert 0 < found["delta_lower"] <= found["delta_upper"] <= 1.2 * found["delta_lower"]
    assert 0 < found["encoder_norm"] <= 1 + 1e-6 and 0 < found["head_norm"] < math.inf
    with pytest.raises(BadInput, match="suite=stable_slopes: expected fields .* with a matrix A"):
        StableSlopes().measure(network, data, tmp_path)


# ---- in training ----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


@pytest.mark.slow
def test_a_checkpoint_keeps_what_is_proved_and_a_resumed_run_is_the_uninterrupted_one(here: None) -> None:
    """Two steps an epoch and a projection every third: the last of an epoch is projected all the same."""
    whole = train("epochs=3", "run=whole", *SMALL_NODE)
    train("epochs=1", "run=parted", *SMALL_NODE)
    parted = train("resume=parted", "epochs=3")
    one, two = (read_checkpoint(run.last)["state_dict"] for run in (whole, parted))
    assert one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
    A, theta = (next(value for name, value in one.items() if name.endswith(end)) for end in ("flow.K", "flow.theta"))
    assert A.dtype == torch.float32 and float(theta.min()) > 0
    assert ConvJacobians(A[0], (28, 28), 0.1).certified(theta[0]) <= 0.2


@pytest.mark.slow
def test_the_penalty_trains(here: None) -> None:
    keys = (
        "model.stabilise=penalty",
        "objective=[cross_entropy,lognorm_penalty]",
        "objective.lognorm_penalty.weight=10",
    )
    run = train("epochs=2", *SMALL_NODE, *keys)
    free = train("epochs=2", *SMALL_NODE, "model.stabilise=none")
    bounds = []
    for each in (run, free):
        A = next(value for name, value in read_checkpoint(each.last)["state_dict"].items() if name.endswith("flow.K"))
        bounds.append(conv_upper_bound(ConvJacobians(A[0], (28, 28), 0.1)).value)
    assert bounds[0] < bounds[1]

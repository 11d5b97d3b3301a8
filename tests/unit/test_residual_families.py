"""resnet18, continuous and mlp: published sizes, whose weights a Runge-Kutta step uses, and life in a network."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from robode.data.info import DatasetInfo
from robode.encoders import Stem
from robode.errors import BadInput
from robode.families import continuous
from robode.families.continuous import Continuous
from robode.families.mlp import MLP
from robode.families.resnet18 import ResNet18
from robode.integrators.adaptive import Dopri5
from robode.integrators.euler import Euler
from robode.integrators.reference import with_reference_solver
from robode.integrators.runge_kutta import RK4
from robode.network import Network, parameter_count, states_of, weights_digest
from robode.ode.flow import Flow
from robode.tasks.classification import Classification

DIGITS = DatasetInfo((1, 28, 28), (0.5,), (0.5,), (0.0, 1.0), Classification(tuple("0123456789")))
CIFAR = DatasetInfo((3, 32, 32), (0.5,) * 3, (0.5,) * 3, (0.0, 1.0), Classification(tuple("0123456789")))
SMALL = DatasetInfo((1, 8, 8), (0.5,), (0.5,), (0.0, 1.0), Classification(tuple("abc")))


def network(flow: Flow, info: DatasetInfo = SMALL, kind: str = "small") -> Network:
    return Network(info, flow, Stem(info.shape, states_of(flow), kind))


def continuous_flow(width: int = 4, depth: int = 9, integrator=None, **keys) -> Continuous:
    torch.manual_seed(0)
    return Continuous(width, depth, integrator or RK4(), **keys)


@torch.no_grad()
def test_with_width_64_it_is_the_resnet18_of_torchvision():
    torch.manual_seed(0)
    ours, theirs = network(ResNet18(64, 8, Euler()), DIGITS, "imagenet"), resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    assert parameter_count(ours) == parameter_count(theirs) == 11_175_370
    weights = list(ours.state_dict().items())
    weights = [value for name, value in weights if not name.startswith("normalise") and name != "flow.h"]
    # both list stem, blocks and head in this order, torchvision's a block's last
    names = [name for name in theirs.state_dict() if not name.startswith("fc")]
    ours_of = {name: value for name, value in ours.state_dict().items() if name.startswith(("encoder", "flow.blocks"))}
    assert len(names) == len(ours_of) and len(weights) == len(names) + 2
    theirs.load_state_dict(dict(zip(names, ours_of.values(), strict=True)) | {
        "fc.weight": ours.head.weight, "fc.bias": ours.head.bias
    })  # fmt: skip
    x = torch.rand(3, 1, 28, 28)
    for mode in (True, False):  # in training first: the statistics that both gather are the same, too
        ours.train(mode), theirs.train(mode)
        torch.testing.assert_close(ours(x), theirs((x - 0.5) / 0.5))


@pytest.mark.parametrize(("info", "count"), [(DIGITS, 370_362), (CIFAR, 370_650)])
def test_the_published_size_of_the_continuous_network(info: DatasetInfo, count: int):
    flow = continuous_flow(16)
    assert parameter_count(network(flow, info)) == count
    assert flow.pieces == [3, 3, 3] and flow.horizon == pytest.approx(3) and float(flow.h) == pytest.approx(1 / 3)
    side = info.shape[1]
    shapes = [tuple(each.shape[1:]) for each in flow.eval().states(torch.randn(1, 16, side, side))]
    per_stage = [(16, side, side), (32, side // 2, side // 2), (64, side // 4, side // 4)]
    assert shapes == [per_stage[0]] * 4 + [per_stage[1]] * 3 + [per_stage[2]] * 2 + [(64, 1, 1)]


def test_initial_weights_are_the_published_ones():
    flow = continuous_flow(32, 3)
    for stage, c in zip(flow.stages, (32, 64, 128), strict=True):
        assert not bool(stage.b1.any()) and not bool(stage.b2.any())
        assert float(stage.K1.detach().std()) == pytest.approx((2 / (9 * c)) ** 0.5, rel=0.05)
    assert float(flow.stitches[2].D.weight.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.05)


STAGES = {
    "own": [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)],
    "next": [(0, 0, 0, 1), (1, 1, 1, 2), (2, 2, 2, 2)],  # within a stage; its last piece has none behind it
}


@pytest.mark.parametrize("piece_end", ["own", "next"])
def test_whose_weights_the_last_stage_of_a_step_uses(piece_end: str, monkeypatch):
    flow = continuous_flow(piece_end=piece_end).eval()
    numbers = {K.data_ptr(): place for stage in flow.stages for place, K in enumerate(stage.K1)}
    seen, call = [], continuous.Piece.__call__
    monkeypatch.setattr(
        continuous.Piece, "__call__",
        lambda piece, t, y: (seen.append(numbers[piece.kernels[0].data_ptr()]), call(piece, t, y))[1],
    )  # fmt: skip
    with torch.no_grad():
        flow(torch.randn(2, 4, 8, 8))
    assert [tuple(seen[i : i + 4]) for i in range(0, 36, 4)] == 3 * STAGES[piece_end]


def test_the_statistics_of_a_batch_normalisation_follow_the_stages_of_its_piece():
    """With `next`, a piece's normalisation sees one stage more, of the step in front of it."""
    for piece_end, calls in (("own", [4, 4, 4]), ("next", [3, 4, 5])):
        flow = continuous_flow(piece_end=piece_end).train()
        flow(torch.randn(2, 4, 8, 8))
        assert [int(norm.num_batches_tracked) for norm in flow.stages[0].norms1] == calls


@torch.no_grad()
def test_a_step_solves_the_ode_of_its_piece():
    """The flow is rate h F along each piece, between stitches: against a fine solver, and dopri5."""
    net = network(continuous_flow(rate=0.5)).double().eval()
    reference = with_reference_solver(net)
    exact = network(continuous_flow(rate=0.5, integrator=Dopri5(1e-9, 1e-9))).double().eval()
    exact.load_state_dict(net.state_dict())
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    coarse, fine = (float((each(x) - exact(x)).abs().max()) for each in (net, reference))
    assert fine < coarse / 4 and fine < 1e-3 * float(exact(x).abs().max())


def test_layers_are_spread_over_stages():
    assert continuous_flow(depth=8).pieces == [2, 3, 3] and continuous_flow(depth=8).horizon == pytest.approx(3)
    assert continuous_flow(depth=4, stages=2, pieces=[3, 1]).pieces == [3, 1]
    assert float(continuous_flow(step=0.1).h) == pytest.approx(0.1)
    assert [len(b.conv1.weight) for b in ResNet18(2, 5, Euler(), stages=3, blocks=[1, 1, 3]).blocks] == [2, 4, 8, 8, 8]


@pytest.mark.parametrize(("keys", "expected"), [
    ({"stages": 0}, "model.stages: expected a whole number from 1 to 6, got 0"),
    ({"stages": "x"}, "model.stages"), ({"depth": 2}, "depth: .* model.stages=3, got 2"),
    ({"pieces": [3, 3]}, "model.pieces: .* depth=9"), ({"rate": 0}, "model.rate: .* got 0"),
    ({"integrator": RK4("adjoint")}, "integrator.gradient=adjoint: batch normalisation"),
    ({"piece_end": "closed"}, "model.piece_end: expected one of own, next"),
])  # fmt: skip
def test_impossible_settings(keys: dict[str, object], expected: str):
    with pytest.raises(BadInput, match=expected) as error:
        continuous_flow(**keys)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("make", "expected"), [
    (lambda: ResNet18(4, 8, Euler(), blocks=[2, 2, 2]), "model.blocks: .* 4 whole numbers"),
    (lambda: ResNet18(4, 8, RK4()), "integrator=rk4: .* solve no ODE"),
    (lambda: ResNet18(4, 8, Euler(2)), "integrator.substeps"),
    (lambda: MLP(4, 3, Euler(), hidden=[3, 4]), "model.hidden: .* depth=3"),
    (lambda: MLP(4, 3, Euler(), hidden=0), "model.hidden"),
    (lambda: Stem((2,), states_of(ResNet18(4, 8, Euler()))), "Stem expects images"),
    (lambda: Stem((1, 8, 8), states_of(ResNet18(4, 8, Euler())), "large"), "stem: expected one of imagenet, small"),
    (lambda: network(continuous_flow()).flow.build((5, 8, 8)), "model.width: .* 5, got 4"),
])  # fmt: skip
def test_what_does_not_fit(make, expected: str):
    with pytest.raises(BadInput, match=expected):
        make()


@pytest.mark.parametrize("make", [lambda: ResNet18(4, 8, Euler()), continuous_flow], ids=["resnet18", "continuous"])
def test_a_batch_of_one_is_refused_in_training_alone(make):
    net, x = network(make()), torch.rand(1, 1, 8, 8)
    with pytest.raises(BadInput, match="batch_size: .* batch of 1"):
        net(x)
    assert bool(net.eval()(x).isfinite().all())


@pytest.mark.parametrize("make", [lambda: ResNet18(4, 8, Euler()), continuous_flow], ids=["resnet18", "continuous"])
def test_measuring_in_the_middle_of_a_training_leaves_the_statistics(make):
    net = network(make()).train()
    net(torch.rand(4, 1, 8, 8))
    before = weights_digest(net)
    assert not net.flow.exact().training and net.flow.training
    net.flow.certificate_table(), net.flow.lognorm_bounds()
    assert weights_digest(net) == before
    net(torch.rand(4, 1, 8, 8))
    assert weights_digest(net) != before  # what a training gathers is a part of the weights


@torch.no_grad()
def test_the_perceptron_is_the_one_that_torch_would_make():
    torch.manual_seed(0)
    flow = MLP(6, 3, Euler(), activation="tanh", hidden=[5, 4, 3])
    layers = []
    for (n, k), W, b in zip(pairwise([6, 5, 4, 3]), flow.W, flow.b, strict=True):
        layers += [nn.Linear(n, k), nn.Tanh()]
        b.normal_()
        layers[-2].weight.copy_(W), layers[-2].bias.copy_(b)
    y = torch.randn(7, 6)
    torch.testing.assert_close(flow(y), nn.Sequential(*layers)(y))
    assert flow.build((6,)) == (3,) and flow.properties() == {}
    norms = [float(torch.linalg.matrix_norm(W.double(), 2)) for W in flow.W]
    assert flow.certificate()["flow_discrete"] == pytest.approx(norms[0] * norms[1] * norms[2], rel=1e-6)

"""What is certified of a whole network: radii, the product of the constants, and the suite `certified`."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from problems import norm2

from robode.certificates.radius import (
    Certified,
    Constants,
    certified_radii,
    constants,
    pair_lipschitz,
)
from robode.corruptions.noise import Clean
from robode.corruptions.perturbation import Batch
from robode.corruptions.protocols import ChNode2022, DataSpace
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan
from robode.families.chnode import CHNode
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.network import Network
from robode.tasks.classification import Classification

GREY = DatasetInfo((1, 5, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(tuple("abc")))


def case(info: DatasetInfo = GREY, n: int = 120) -> tuple[Network, torch.Tensor, torch.Tensor]:
    """A network, samples, and labels of which it gets three quarters right."""
    torch.manual_seed(1)
    network = Network(info, CHNode(4, 2, ETD()))
    x = torch.rand(n, *info.shape)
    with torch.no_grad():
        network.head.bias -= network(x).mean(0)
        labels = network(x).argmax(1)
    labels[::4] = (labels[::4] + 1) % info.task.outputs
    return network, x, labels


def rows_of(network: Network, x: torch.Tensor, labels: torch.Tensor, suite: Certified, protocol=None, **options):
    perturbations = {"clean": Clean(), "certified": suite}
    plan = Plan(perturbations, protocol or DataSpace(), network.info, repeats=2)
    found = evaluate_suite(network, x, labels, plan, **options)
    return {(row["perturbation"], row["severity"]): row for row in found}


def test_rows_count_right_answers_with_a_large_enough_radius() -> None:
    network, x, labels = case()
    radii = certified_radii(network, x, labels)
    right = network(x).argmax(1) == labels
    assert 0.5 < float(right.float().mean()) < 0.9 and torch.equal(radii > 0, right)
    levels = [0.0, *radii[right].quantile(torch.tensor([0.2, 0.7], dtype=torch.float64)).tolist(), 1e9]
    rows = rows_of(network, x, labels, Certified(levels), batch_size=50)
    clean = rows["clean", 0.0]["score"]
    found = [rows["certified", level]["score"] for level in levels]
    assert found == [int((right & (radii >= level)).sum()) / len(x) for level in levels]
    assert found[0] == clean > found[1] > found[2] > found[3] == 0
    for level in levels:
        row = rows["certified", level]
        assert (row["norm"], row["severity_unit"], row["space"], row["repeat"]) == ("l2", "radius", "data", 0)


def test_certified_rows_are_the_same_under_every_protocol() -> None:
    network, x, labels = case()
    one, two = (rows_of(network, x, labels, Certified([0.01, 0.1]), p) for p in (DataSpace(), ChNode2022()))
    for level in (0.01, 0.1):
        assert one["certified", level]["score"] == two["certified", level]["score"] > 0


def test_constants_are_renewed_when_the_weights_change_and_not_between_batches(monkeypatch) -> None:
    network, x, labels = case()
    calls = []

    def counted(*about) -> Constants:
        calls.append(1)
        return constants(*about)

    monkeypatch.setattr("robode.certificates.radius.constants", counted)
    suite = Certified([0.01, 0.05])
    before = rows_of(network, x, labels, suite, batch_size=50)["certified", 0.05]["score"]
    assert len(calls) == 1 and before > 0
    with torch.no_grad():
        network.head.weight.mul_(0.1)
        network.head.bias.mul_(0.1)
        network.encoder.weight.data.mul_(10)  # not even through autograd's counters
    after = rows_of(network, x, labels, suite, batch_size=50)["certified", 0.05]["score"]
    assert len(calls) == 2 and after != before


def test_where_nothing_is_certified_every_radius_is_zero() -> None:
    network, x, labels = case()
    network.flow = ResNet(4, 4, Euler()).double()
    with torch.no_grad():
        network.flow.K.mul_(1e100)
    pairs = pair_lipschitz(network)
    assert bool(pairs.isinf().any()) and not bool(pairs.isnan().any())
    radii = certified_radii(Network(GREY, CHNode(4, 2, ETD())), x, labels, pairs)
    assert float(radii.abs().max()) == 0


def test_two_equal_rows_of_the_head_are_never_exchanged() -> None:
    network, x, labels = case()
    with torch.no_grad():
        network.head.weight[1] = network.head.weight[0]
        network.head.weight[2] = 0
        network.head.bias.copy_(torch.tensor([2.0, 1.0, -1e4]))
    radii = certified_radii(network, x, torch.zeros_like(labels))
    assert bool((radii > 1).all()) and bool(radii.isfinite().all())  # only class 2 can take over, far away
    assert bool((certified_radii(network, x, torch.ones_like(labels)) == -math.inf).all())


def test_the_product_is_above_the_jacobian_of_the_whole_network_and_above_every_pair() -> None:
    network, x, _ = case()
    bounds = constants(network, GREY.shape)
    assert list(bounds.parts) == ["encoder", "step 1", "step 2", "head"]
    assert bounds.end_to_end == pytest.approx(math.prod(bounds.parts.values()))
    assert bounds.flow_discrete == pytest.approx(network.flow.certificate()["flow_discrete"], rel=1e-6)
    double = copy.deepcopy(network).double()
    for each in x[:5].double():
        J = torch.autograd.functional.jacobian(lambda x: double(x[None])[0], each)
        assert norm2(J.flatten(1)) <= bounds.end_to_end
        pairs = (J[:, None] - J[None]).flatten(2).norm(dim=2)
        assert bool((pairs <= bounds.pairs).all())
    assert bool((bounds.pairs <= math.sqrt(2) * bounds.end_to_end * (1 + 1e-9)).all())


def test_nothing_certified_is_inf_and_nothing_left_is_zero() -> None:
    network, _, _ = case()
    network.flow = ResNet(4, 4, Euler()).double()
    with torch.no_grad():
        network.flow.K.mul_(1e100)
    assert constants(network, GREY.shape).end_to_end == math.inf
    with torch.no_grad():
        network.head.weight.zero_()
    bounds = constants(network, GREY.shape)
    assert bounds.end_to_end == 0 and float(bounds.pairs.max()) == 0


def test_a_margin_must_exceed_the_share_for_rounding() -> None:
    network, x, labels = case()
    radii, pairs = certified_radii(network, x, labels), pair_lipschitz(network)
    less = certified_radii(network, x, labels, pairs, rounding=1e-2)
    assert bool((less <= radii).all()) and bool((less[radii > 0] >= 0).all())
    assert torch.equal(less[radii < 0], radii[radii < 0])
    small = (radii > 0) & (less == 0)
    logits = network(x).topk(2, dim=1).values
    close = (logits[:, 0] - logits[:, 1]) < 1e-2 * network(x).abs().amax(1)
    assert torch.equal(small, close & (radii > 0)) and 0 < int((less > 0).sum())


def test_a_chain_of_anyones_layers_is_certified_like_a_network() -> None:
    _, x, labels = case()
    chain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 3))
    labels = chain(x).argmax(1)
    W = chain[1].weight.detach().double()
    logits = chain.double()(x.double()).detach()
    chain.float()
    gaps = [(logits.gather(1, labels[:, None])[:, 0] - logits[:, j]) / (W[labels] - W[j]).norm(dim=1) for j in range(3)]
    exact = torch.stack(gaps, 1).scatter(1, labels[:, None], math.inf).amin(1)  # the distance to the boundary
    torch.testing.assert_close(certified_radii(chain, x, labels), exact, rtol=1e-6, atol=0)
    level = float(exact.median()) * 1.001
    certified, task = Certified([level]), GREY.task
    batch = Batch(x, labels, None, None, prepared=certified.prepare(chain, GREY.shape))
    found = certified.scores(chain, task, batch, [level]).scores[0] > 0
    assert 0 < int(found.sum()) and torch.equal(found, exact >= level * (1 + 1e-4))


def test_other_layers_and_levels_are_bad_input() -> None:
    _, x, labels = case()
    with pytest.raises(BadInput, match="layer Sequential.1: no certified constant is known for LayerNorm"):
        Certified([0.1]).prepare(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LayerNorm(20)), GREY.shape)
    for radii in (-0.1, [0.1, math.nan], []):
        with pytest.raises(BadInput, match="suite.certified.radii"):
            Certified(radii)

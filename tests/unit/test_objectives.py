"""The terms of the loss."""

import pytest
import torch
from small_runs import SMALL, build_each, composed, train
from torch.nn import functional

from robode.config.allowed import OF_OBJECTIVES
from robode.corruptions.protocols import ChNode2022, DataSpace
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.families.resnet import ResNet
from robode.integrators.euler import Euler
from robode.network import Network
from robode.objectives.cross_entropy import NoisyCrossEntropy
from robode.objectives.weight_smoothness import WeightSmoothness
from robode.runs.checkpoints import read_checkpoint
from robode.runs.table import METRICS
from robode.tasks.classification import Classification
from robode.training.assembly import assemble


def test_smoothness_is_the_published_sum():
    network = assemble(composed(*SMALL, "depth=4")).network
    K, b = network.flow.K.detach(), network.flow.b.detach()
    h, total = float(network.flow.h), 0.0
    for j in range(3):
        total += float((K[j + 1] - K[j]).square().sum() + (b[j + 1] - b[j]).square().sum())
    x, labels = torch.zeros(1, 2), torch.zeros(1)
    once = WeightSmoothness(0.1)(network, x, labels)["weight_smoothness"].detach()
    assert float(once) == pytest.approx(0.1 * h * 0.5 * total, rel=1e-5)
    script = WeightSmoothness(0.1, count="script")(network, x, labels)["weight_smoothness"].detach()
    assert float(script) == pytest.approx(3 * float(once), rel=1e-5)


def test_loss_terms_are_logged_and_summed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    run = train("epochs=1", "objective=[cross_entropy,weight_smoothness]", "objective.weight_smoothness.alpha=5")
    metrics = METRICS.read(run.folder / "metrics.csv")
    value = {name: metrics[metrics["name"] == f"train/{name}"]["value"].iloc[-1] for name in
             ("loss", "cross_entropy", "weight_smoothness")}  # fmt: skip
    assert value["weight_smoothness"] > 0
    assert value["loss"] == pytest.approx(value["cross_entropy"] + value["weight_smoothness"], rel=1e-5)


GREY = DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c")))
NOISY = ("objective=[noisy_cross_entropy,weight_smoothness]", "objective.noisy_cross_entropy.var=0.3")


def test_noisy_inputs_are_those_of_the_protocol_drawn_anew():
    torch.manual_seed(0)
    network, x, labels = Network(GREY, ResNet(4, 2, Euler())), torch.rand(20, 1, 4, 4), torch.arange(20) % 3
    before = x.clone()

    def by_hand(protocol):
        z = torch.randn(20, 1, 4, 4)
        if protocol is DataSpace:
            noisy = (x + 0.3**0.5 * z).clamp(0, 1)
        else:  # on the normalised image, clipped to [-1, 1] there
            noisy = 0.1307 + 0.3081 * ((x - 0.1307) / 0.3081 + 0.3**0.5 * z).clamp(-1, 1)
        return functional.cross_entropy(network(noisy), labels).item()

    for protocol in (DataSpace, ChNode2022):
        objective = NoisyCrossEntropy(protocol(), var=0.3)
        torch.manual_seed(5)
        first, second = (objective(network, x, labels)["noisy_cross_entropy"].item() for _ in range(2))
        torch.manual_seed(5)
        assert [first, second] == pytest.approx([by_hand(protocol), by_hand(protocol)], rel=1e-5)
        assert first != second and torch.equal(x, before)
    NoisyCrossEntropy(DataSpace(), var=0.3)(network, x, labels)["noisy_cross_entropy"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("var", [-0.1, "much", [0.1, 0.2], float("nan")])
def test_noise_levels_that_make_no_sense(var):
    with pytest.raises(BadInput, match=r"objective.noisy_cross_entropy.var"):
        NoisyCrossEntropy(DataSpace(), var=var)


@pytest.mark.slow
def test_training_on_noise_resumes_with_the_draws_it_would_have_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    whole = train("epochs=2", "run=whole", *NOISY)
    train("epochs=1", "run=parted", *NOISY)
    parted = train("resume=parted", "epochs=2")
    one, two = (read_checkpoint(run.last)["state_dict"] for run in (whole, parted))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_noise_of_the_training_is_that_of_the_chosen_protocol():
    nodes = composed("experiment=chnode_2022/table1", "model=resnet", *NOISY).objective
    objective = build_each(nodes, drop=OF_OBJECTIVES)
    noisy, smooth = objective["noisy_cross_entropy"], objective["weight_smoothness"]
    assert isinstance(noisy.protocol, ChNode2022) and noisy.noise.severities == (0.3,)
    assert (smooth.alpha, smooth.count) == (1e-3, "script")  # the recipe's, also with another list of objectives

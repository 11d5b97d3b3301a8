"""The terms of the loss."""

import pytest
import torch
from small_runs import SMALL, composed, train

from robode.objectives.weight_smoothness import WeightSmoothness
from robode.report.records import read_metrics
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
    run = train("epochs=1", "objective=[cross_entropy,weight_smoothness]", "objective.weight_smoothness.alpha=5")
    metrics = read_metrics(run.folder / "metrics.csv")
    value = {name: metrics[metrics["name"] == f"train/{name}"]["value"].iloc[-1] for name in
             ("loss", "cross_entropy", "weight_smoothness")}  # fmt: skip
    assert value["weight_smoothness"] > 0
    assert value["loss"] == pytest.approx(value["cross_entropy"] + value["weight_smoothness"], rel=1e-5)

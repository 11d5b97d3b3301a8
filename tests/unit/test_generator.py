"""A generator against a 1-Lipschitz critic: one loss, gradients with opposite signs, distances that are proven."""

import numpy as np
import pytest
import torch
from small_runs import composed
from test_lecture_and_poster import collected
from torch import nn

from robode.certificates.radius import pair_lipschitz
from robode.data.module import DataModule
from robode.data.noise_and_samples import NoiseAndSamples
from robode.encoders import Augment, Generator, States
from robode.errors import BadInput, JobFailed
from robode.network import Network, build_network
from robode.objectives.kantorovich import Kantorovich
from robode.papers.figures.generated import Generated as Picture
from robode.quantities.generator import FILE, Generated, critic, distances, parts, potential
from robode.quantities.wasserstein import w1
from robode.runs.table import METRICS

STATES = States(6, True)


def built(*words):
    config = composed("experiment=lecture/wgan", "trainer.threads=1", *words)
    data = DataModule(NoiseAndSamples(train=64, test=40), 32, 0)
    data.prepare()
    torch.manual_seed(0)
    return build_network(config, data.info), data


def test_samples_are_kept_and_noise_goes_through_the_generator():
    torch.manual_seed(0)
    encoder = Generator((3,), STATES, hidden=[5])
    x = torch.tensor([[0.5, -1.0, 0.0], [0.5, -1.0, 1.0]])
    y = encoder(x)
    assert y.shape == (2, 6) and y[0].tolist() == [0.5, -1.0, 0, 0, 0, 0]
    assert torch.equal(y[1, :2], encoder.generate(x[1:, :2])[0]) and not y[1, 2:].any()
    assert encoder.lipschitz(torch.ones(3)) == float("inf")


def test_the_generator_gets_the_gradient_with_the_other_sign_and_nothing_else_does():
    """Against the same loss without the turn, through the chain rule of a plain network."""
    network, data = built("model.width=8", "depth=2")
    x, labels = data.split("train")
    names = dict(network.named_parameters())
    found = torch.autograd.grad(Kantorovich()(network, x, labels)["kantorovich"], list(names.values()))
    made = network.encoder.generate(x[:, :2])
    y = nn.functional.pad(torch.where(x[:, 2:] > 0, made, x[:, :2]), (0, 6))
    logits = network.head(network.flow(y))
    f = (logits[:, 1] - logits[:, 0]) / 2**0.5
    plain = torch.autograd.grad(f[labels == 0].mean() - f[labels == 1].mean(), list(names.values()))
    assert any(name.startswith("encoder") for name in names) and any(name.startswith("flow") for name in names)
    for name, ours, theirs in zip(names, found, plain, strict=True):
        sign = -1 if name.startswith("encoder") else 1
        torch.testing.assert_close(ours, sign * theirs, atol=1e-7, rtol=1e-4)
        assert float(ours.norm()) > 0 or name.endswith("bias")


def test_a_step_brings_generated_points_nearer_to_what_the_critic_takes_for_samples():
    """In the direction of a fixed linear critic, whose optimum is known."""
    torch.manual_seed(0)
    encoder = Generator((3,), States(2, True), hidden=[16])
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    x = torch.cat([torch.randn(50, 2), torch.ones(50, 1)], dim=1)
    w = torch.tensor([0.6, 0.8])
    before = float((encoder(x) @ w).mean().detach())
    for _ in range(20):
        optimizer.zero_grad()
        (encoder(x) @ w).mean().backward()  # the loss: minus (0 - mean f(generated))
        optimizer.step()
    assert float((encoder(x) @ w).mean().detach()) > before + 0.5


@pytest.mark.parametrize("words", [(), ("model=chnode_lipschitz", "encoder=generator", "model.width=8")])
def test_the_critic_is_what_is_behind_the_generator_and_proves_less_than_is_true(words, tmp_path):
    network, data = built("depth=2", *words)
    behind = critic(network)
    x, labels = data.split("test")
    true = x[labels == 1]
    torch.testing.assert_close(behind(true[:, :2].double()).float(), network(true), atol=1e-5, rtol=1e-5)
    assert float(pair_lipschitz(behind)[1, 0]) <= 2**0.5 * (1 + 1e-4)
    points = torch.randn(300, 2, dtype=torch.float64)
    f = potential(network, points)
    slopes = (f[:150] - f[150:]).abs() / (points[:150] - points[150:]).norm(dim=1)
    assert 0 < float(slopes.max()) <= 1
    rows = {line["quantity"]: line["value"] for line in Generated().measure(network, data, tmp_path)}
    noise, generated, samples = parts(network, x, labels)
    assert rows["w1_proven"] <= rows["w1_generated"] == pytest.approx(w1(generated, samples))
    assert rows["w1_noise"] == pytest.approx(w1(noise, samples)) and rows["w1_two_samples"] < rows["w1_noise"]
    METRICS.append(tmp_path / "metrics.csv", [
        {"epoch": 0, "step": 1, "name": f"wasserstein/{name}", "value": 1.0} for name in ("proven", "exact")
    ])  # fmt: skip
    ((_, figure, _, caption),) = Picture().draw(collected(tmp_path))
    assert len(figure.axes) == 2 and "test set" in caption and Picture(seed=2).draw(collected(tmp_path)) == []
    with np.load(tmp_path / FILE) as arrays:
        assert arrays["potential"].shape == (121, 121) and arrays["generated"].shape == (40, 2)


def test_a_critic_that_proves_too_much_is_no_result(monkeypatch):
    network, data = built("depth=2", "model.width=8")
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    monkeypatch.setattr("robode.quantities.generator.potential", lambda network, points: 9 * points @ direction)
    x, labels = data.split("test")
    x = x + torch.tensor([3.0, 0, 0]) * labels[:, None]
    with pytest.raises(JobFailed, match="proven below an exact distance of"):
        distances(network, x, labels)


def test_noise_and_samples_are_as_many_and_others_in_the_test_set():
    source = NoiseAndSamples(train=400, test=300, modes=4)
    train, test = source.load()
    assert train.target.bincount().tolist() == [400, 400] and test.target.bincount().tolist() == [300, 300]
    noise, true = train.x[train.target == 0], train.x[train.target == 1]
    assert bool((noise[:, 2] == 1).all()) and bool((true[:, 2] == 0).all())
    assert noise[:, :2].std(0).sub(1).abs().max() < 0.1
    radius = true[:, :2].norm(dim=1)
    assert abs(float(radius.mean()) - 2) < 0.05 and float(radius.std()) < 0.15
    near = torch.cdist(true[:, :2], torch.tensor([[2.0, 0], [0, 2], [-2, 0], [0, -2]])).argmin(1).bincount()
    assert near.shape == (4,) and int(near.min()) > 60
    assert not set(map(tuple, train.x.tolist())) & set(map(tuple, test.x.tolist()))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: Generator((1, 4, 4), STATES), "encoder=generator: expected vectors"),
        (lambda: Generator((9,), STATES), "model.width: expected at least the 8 numbers of a sample, got 6"),
        (lambda: Generator((3,), STATES, hidden=[0]), "encoder.hidden: expected widths >= 1"),
        (lambda: NoiseAndSamples(train=0), "data.source.train: expected a whole number >= 1, got 0"),
    ],
)
def test_nonsense_is_refused(call, expected):
    with pytest.raises(BadInput, match=expected):
        call()


def test_other_data_and_other_encoders_are_refused():
    other = composed("data=double_moons", "suite=clean").data.source.build().info
    assert "data=noise_and_samples" in str(Generated().refusal(other))
    network, data = built("depth=2", "model.width=8")
    plain = Network(data.info, network.flow, Augment((3,), States(8, True)), network.head)
    with pytest.raises(BadInput, match="expected encoder=generator, got Augment"):
        parts(plain, *data.split("test"))

"""Figures of the lecture and the poster, and what is measured for them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from small_runs import composed

from robode.data.batches import in_units
from robode.network import build_network
from robode.papers.figures.lecture import GradientFlow2D, Potential
from robode.papers.figures.poster import Adversarial
from robode.quantities.adversarial_samples import FILE, AdversarialSamples
from robode.quantities.wasserstein import Wasserstein
from robode.training.assembly import build_data

DIGITS = ("data=mnist5k", "data.limit_train=40", "depth=2", "model=resnet", "trainer.threads=1")
POINTS = ("data=two_samples", "data.source.n=64", "depth=2", "model.width=4", "trainer.threads=1")


def built(*words):
    config = composed(*words)
    data = build_data(config)
    data.prepare()
    torch.manual_seed(0)
    return build_network(config, data.info), data


def collected(folder, seed=1):
    runs = pd.DataFrame([{"folder": str(folder), "seed": seed, "row": 0, "group": "N = 2", "label": "ours"}])
    return SimpleNamespace(runs=runs)


def test_the_euler_map_of_the_lecture_is_one_lipschitz_up_to_2_and_not_beyond():
    flow = GradientFlow2D()
    a, b = np.random.default_rng(0).normal(size=(2, 5000, 2))

    def stretch(tau):
        moved = (a + tau * flow.field(a)) - (b + tau * flow.field(b))
        return float((np.linalg.norm(moved, axis=1) / np.linalg.norm(a - b, axis=1)).max())

    assert stretch(2.0) <= 1 + 1e-12 < 1.15 < stretch(2.2)
    ((stem, figure, _, caption),) = flow.draw(None)
    assert stem == "gradient_flow_2d" and len(figure.axes) == 4 and "‖W‖ = 1" in caption


def test_the_proven_distance_lies_below_the_exact_one_and_the_potential_is_drawn(tmp_path):
    network, data = built(*POINTS)
    proven, exact = (row["value"] for row in Wasserstein().measure(network, data, tmp_path))
    assert abs(proven) <= exact and 1 < exact < 3
    with np.load(tmp_path / "wasserstein.npz") as file:
        slope = np.hypot(*np.gradient(file["potential"], file["y"], file["x"]))
        assert 0 < slope.max() <= 1 + 1e-9
    ((_, figure, _, _),) = Potential().draw(collected(tmp_path))
    assert len(figure.axes) == 1
    assert Potential(seed=2).draw(collected(tmp_path)) == []
    assert "two samples" in Wasserstein().refusal(built(*DIGITS)[1].info)


def test_adversarial_samples_stay_within_eps_and_are_drawn(tmp_path):
    network, data = built(*DIGITS)
    x, _ = data.split("test")
    said = network(in_units(x)).argmax(1)  # labels that an untrained network gets right
    answered = SimpleNamespace(split=lambda name: (x, said), info=data.info)
    quantity = AdversarialSamples(count=3, eps=0.1)
    (row,) = quantity.measure(network, answered, tmp_path)
    with np.load(tmp_path / FILE) as file:
        arrays = dict(file)
    moved = np.abs(arrays["attacked"] - arrays["clean"])
    assert moved.max() == pytest.approx(0.1, abs=1e-6)
    assert 0 <= arrays["attacked"].min() and arrays["attacked"].max() <= 1
    right = (arrays["said"] == arrays["labels"]) & (arrays["said_attacked"] == arrays["labels"])
    assert row["value"] == pytest.approx(right.mean())
    ((_, figure, _, caption),) = Adversarial(samples=(0, 2, 9)).draw(collected(tmp_path))
    assert len(figure.axes) == 6 and "0.1 in pixels" in caption
    assert "images" in quantity.refusal(built(*POINTS)[1].info)

"""certified(r) <= robust under attacks of length r <= clean: attacked for each family, checked after evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robode.attacks.pgd import pgd
from robode.attacks.problem import make_problem
from robode.attacks.published import PublishedPGD
from robode.certificates.radius import Certified, certified_radii
from robode.corruptions.perturbation import Batch
from robode.data.info import DatasetInfo
from robode.errors import JobFailed
from robode.evaluation.consistency import check_order
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.network import Network
from robode.ode.flow import Flow
from robode.runs.results import Store, append_rows
from robode.tasks.classification import Classification
from robode.tasks.measure import CLASSIFICATION, mean_score
from robode.tasks.regression import Regression

IMAGES = DatasetInfo((1, 5, 4), (0.4,), (0.3,), (0.0, 1.0), Classification(tuple("abcd")))
FLOWS: dict[str, Callable[[], Flow]] = {
    "chnode etd": lambda: CHNode(4, 3, ETD()),
    "chnode imex": lambda: CHNode(4, 3, IMEX()),
    "chnode euler": lambda: CHNode(4, 2, Euler(), kappa=0.1, norm_bound=1.0),
    "hdnn": lambda: HDNN(4, 2, Euler(), step=0.2),
    "node": lambda: Node(4, 2, Euler(), step=0.2),
    "resnet": lambda: ResNet(4, 2, Euler(), step=0.3),
}


def problem(flow: Flow, steps: int) -> tuple[Network, Tensor, Tensor]:
    """A network in float64 after `steps` of training on blobs, and 100 samples with its own answers as labels."""
    network = Network(IMAGES, flow)
    centres = torch.rand(IMAGES.task.outputs, *IMAGES.shape)
    labels = torch.arange(100) % IMAGES.task.outputs
    x = (centres[labels] + 0.3 * torch.randn(100, *IMAGES.shape)).clamp(0, 1)
    adam = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(steps):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        adam.step()
        if hasattr(flow, "project_"):
            flow.project_()
    with torch.no_grad():
        network, x = network.eval().double(), x.double()
        return network, x, network(x).argmax(1)


@pytest.mark.parametrize("steps", [0, 30], ids=["random", "trained"])
@pytest.mark.parametrize("name", FLOWS)
def test_pgd_within_the_certified_radius_flips_nothing(name: str, steps: int) -> None:
    torch.manual_seed(5)
    network, x, labels = problem(FLOWS[name](), steps)
    radii = certified_radii(network, x, labels)
    assert float(radii.median()) > 0
    for loss in ("ce", "margin"):
        moved = pgd(make_problem(network, x, labels, eps=0.999 * radii, norm="l2"), loss=loss, steps=20)
        length = (moved - x).double().flatten(1).norm(dim=1)
        assert bool((length <= radii).all()) and float((length / radii).median()) > 0.9
        with torch.no_grad():
            assert torch.equal(network(moved).argmax(1), labels)
    far = pgd(make_problem(network, x, labels, eps=3.0, norm="l2"), loss="margin", steps=20)
    with torch.no_grad():  # the attack is no straw man
        assert float((network(far).argmax(1) != labels).float().mean()) > 0.3


def test_what_is_counted_survives_attacks_of_its_full_length() -> None:
    """A linear network, whose certificate is the distance to the boundary itself: nothing but rounding is between."""
    torch.manual_seed(5)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 4))
    x = torch.rand(4000, 1, 5, 4)
    with torch.no_grad():
        labels = network(x).argmax(1)
    level = float(certified_radii(network, x, labels).quantile(0.3))
    certified = Certified([level])
    batch = Batch(x, labels, None, None, prepared=certified.prepare(network, (1, 5, 4)))
    counted = certified.scores(network, Classification(tuple("abcd")), batch, [level]).scores[0] > 0
    moved = pgd(make_problem(network, x, labels, eps=level, norm="l2"), loss="margin", steps=20)
    with torch.no_grad():
        robust = network(moved).argmax(1) == labels
    assert 0.6 < float(counted.float().mean()) < 0.75
    assert not bool((counted & ~robust).any())
    assert float(robust.float().mean()) < 0.8


SAME = {
    "run": "r", "checkpoint": "best", "weights": "w", "experiment": "", "model": "m", "data": "d", "split": "test",
    "depth": 1, "integrator": "etd", "params": 1, "seed": 0, "protocol": "data_space", "noise_seed": 0, "suite": "s",
    "space": "data", "solver": "", "repeat": 0, "flow_ode": 1.0, "flow_discrete": 1.0, "seconds": 0.0, "commit": "",
    "task": str(CLASSIFICATION),
}  # fmt: skip
KINDS = {
    "clean": {"perturbation": "clean", "norm": "none", "severity_unit": "none"},
    "certified": {"perturbation": "certified", "norm": "l2", "severity_unit": "radius"},
    "pgd": {"perturbation": "pgd", "norm": "l2", "severity_unit": "eps"},
    "pgd linf": {"perturbation": "pgd", "norm": "linf", "severity_unit": "eps"},
    "script": {"perturbation": "s", "norm": "l2", "severity_unit": PublishedPGD(norm="l2").severity_unit},
    "pgd l1": {"perturbation": "pgd", "norm": "l1", "severity_unit": "eps"},
}


def evaluated(folder: Path, *found: tuple[str, float, str], **other: Any) -> None:
    """Rows of a kind, at a severity, with who is right (1 or 0 for each sample)."""
    store = Store(folder)
    for kind, severity, right in found:
        bits = np.array([each == "1" for each in right])
        row = SAME | KINDS[kind] | other | {"severity": severity, "evaluation": kind.replace(" ", "")}
        store.add([row | {"n": len(bits), "score": float(bits.mean())}], [bits])


GOOD = (("clean", 0.0, "11110"), ("certified", 0.1, "11000"), ("certified", 0.3, "10000"))
BROKEN: dict[str, tuple[tuple[tuple[str, float, str], ...], str]] = {
    "one": ((("pgd", 0.1, "10110"),), "1 of 5 samples are certified at radius 0.1 and broken by pgd (l2, eps=0.1)"),
    "a shorter one": ((("pgd", 0.05, "01110"),), "broken by pgd (l2, eps=0.05), first sample 0"),
    "both": ((("pgd", 0.1, "00110"),), "2 of 5 samples"),
    "an l1 attack": ((("pgd l1", 0.3, "01110"),), "radius 0.3 and broken by pgd (l1, eps=0.3)"),
    "better than clean": (
        (("pgd", 0.1, "11111"),),
        "leaves accuracy 100.0 % on 5 samples, better than 80.0 % without it",
    ),
}  # fmt: skip
HELD: Mapping[str, tuple[tuple[str, float, str], ...]] = {
    "no attack": (),
    "as many": (("pgd", 0.1, "11000"), ("pgd", 0.3, "10000")),
    "a longer attack": (("pgd", 0.2, "10000"), ("pgd", 0.31, "00000")),
    "another norm": (("pgd linf", 0.1, "00000"),),
    "other samples": (("pgd", 0.1, "000000"),),
    "a script whose clip breaks more": (("script", 0.1, "00000"),),
    "a script whose clip mends what was wrong": (("script", 0.1, "11111"),),
}


@pytest.mark.parametrize("name", HELD)
def test_evaluations_in_which_it_holds(name: str, tmp_path: Path) -> None:
    evaluated(tmp_path, *GOOD, *HELD[name])
    check_order(tmp_path, "w", "test", code="")


@pytest.mark.parametrize("name", BROKEN)
def test_evaluations_in_which_it_is_broken(name: str, tmp_path: Path) -> None:
    attacks, expected = BROKEN[name]
    evaluated(tmp_path, *GOOD, *attacks)
    with pytest.raises(JobFailed) as caught:
        check_order(tmp_path, "w", "test", code="")
    assert expected in str(caught.value)


def test_other_weights_and_splits_are_not_compared(tmp_path: Path) -> None:
    evaluated(tmp_path, *GOOD)
    evaluated(tmp_path, ("pgd", 0.1, "00000"), weights="v")
    evaluated(tmp_path, ("pgd", 0.1, "00000"), split="train")
    check_order(tmp_path, "w", "test", code="")


def test_rows_without_their_bits_are_passed_over(tmp_path: Path) -> None:
    evaluated(tmp_path, *GOOD)
    row = SAME | KINDS["pgd"] | {"severity": 0.1, "evaluation": "pgd", "n": 5, "score": 0.0}
    append_rows(tmp_path / "results.csv", [row])
    check_order(tmp_path, "w", "test", code="")


ERRORS = {
    "holds": ([0.5, 1.0], [0.6, 1.5], [0.7, 2.0], ""),
    "rounding": ([0.5, 1.0], [0.6, 1.5], [0.6 * (1 - 1e-6), 1.5], ""),
    "a broken bound": ([0.5, 1.0], [0.6, 1.5], [0.7, 1.2], "1 of 2 samples are certified at radius 0.1 and broken by"),
    "better than clean": ([0.5, 1.0], [0.2, 0.3], [0.7, 2.0], "leaves error 0.250 on 2 samples, better than 0.750"),
}  # clean, attacked, certified


@pytest.mark.parametrize("name", ERRORS)
def test_of_errors_the_certified_one_is_the_largest(name: str, tmp_path: Path) -> None:
    *found, expected = ERRORS[name]
    task, store = Regression(2), Store(tmp_path)
    for kind, severity, errors in zip(("clean", "pgd", "certified"), (0.0, 0.1, 0.1), found, strict=True):
        scores = np.array(errors, dtype=np.float32)
        low, high = task.interval(scores)
        row = SAME | KINDS[kind] | {"severity": severity, "evaluation": kind, "n": 2, "task": str(task.measure)}
        store.add([row | {"score": mean_score(scores), "score_low": low, "score_high": high}], [scores])
    if not expected:
        check_order(tmp_path, "w", "test", code="")
        return
    with pytest.raises(JobFailed) as caught:
        check_order(tmp_path, "w", "test", code="")
    assert expected in str(caught.value)

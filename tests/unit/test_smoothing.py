"""Randomised smoothing: the confidence bound is exact, radii of linear classifiers are known, noise is the images'."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn

from robode.certificates.smoothing import ABSTAIN, Smoothing, certified_radius, lower_confidence_bound
from robode.corruptions.noise import Draws
from robode.corruptions.perturbation import Clean
from robode.corruptions.protocols import Sound
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.suite import evaluate_suite
from robode.tasks.classification import Classification

POINTS = DatasetInfo((6,), (0.0,) * 6, (1.0,) * 6, None, Classification(("a", "b")))


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.1), (20, 0.05), (1000, 0.001)])
def test_the_bound_is_where_the_observation_has_probability_alpha(n: int, alpha: float) -> None:
    k = np.arange(n + 1)
    low = lower_confidence_bound(k, n, alpha)
    assert low[0] == 0 and bool((np.diff(low) > 0).all()) and bool((low <= k / n).all())
    np.testing.assert_allclose(binom.sf(k[1:] - 1, n, low[1:]), alpha, rtol=1e-6)
    assert low[n] == pytest.approx(alpha ** (1 / n))


@pytest.mark.parametrize("p", [0.3, 0.55, 0.9, 0.999])
def test_its_coverage_is_at_least_what_it_says_for_every_p(p: float) -> None:
    n, alpha = 200, 0.05
    k = np.arange(n + 1)
    failures = float(binom.pmf(k, n, p)[lower_confidence_bound(k, n, alpha) > p].sum())
    assert failures <= alpha


def test_the_radius_is_that_of_the_papers_theorem() -> None:
    found = certified_radius(np.array([500, 550, 990, 1000]), 1000, 0.5, 0.001)
    low = lower_confidence_bound(np.array([990]), 1000, 0.001)[0]
    assert found[0] == 0 and found[2] == pytest.approx(0.5 * norm.ppf(low))
    assert found[1] > 0 and found[3] == pytest.approx(0.5 * norm.ppf(0.001**0.001))


def linear() -> tuple[nn.Linear, Tensor]:
    """A linear classifier, and samples within two deviations of its boundary with their distances to it."""
    torch.manual_seed(0)
    network = nn.Linear(6, 2)
    w = (network.weight[0] - network.weight[1]).detach()
    b = float((network.bias[0] - network.bias[1]).detach())
    x = torch.randn(600, 6)
    x = x - ((x @ w + b) / w.norm() ** 2)[:, None] * w  # onto the boundary
    return network, x + torch.linspace(-1, 1, 600)[:, None] * w / w.norm()


def test_the_radius_of_a_linear_classifier_is_its_distance_from_both_sides() -> None:
    """P[f(x + e) = A] = Phi(distance / sigma), so that the smoothed radius is the distance itself."""
    network, x = linear()
    distance = torch.linspace(-1, 1, 600).double().abs()
    sigma, alpha = 0.5, 0.1
    suite = Smoothing([0.1], sigma=sigma, n0=50, n=2000, alpha=alpha)
    with torch.no_grad():
        answers, radii = suite.certify(network, x, Draws((1, 0, 2), range(600)))
    right = answers == network(x).argmax(1)
    too_large = ((radii > distance) | ~right) & (answers != ABSTAIN)
    # at most alpha each; 600 independent samples, five deviations
    assert int(too_large.sum()) <= 600 * alpha + 5 * math.sqrt(600 * alpha * (1 - alpha))
    assert int(too_large.sum()) >= 0.3 * 600 * alpha  # it does not hold for free: the bound is sharp
    clear = (distance > 0.2) & (distance < 0.9)
    assert bool((radii[clear] > 0.7 * distance[clear]).all())
    assert bool((answers[distance < 0.005] == ABSTAIN).any())
    assert torch.equal(answers == ABSTAIN, radii == 0)


def counts(network: nn.Module, x: Tensor, labels: Tensor, suite: Smoothing, **options) -> dict[float, int]:
    rows = evaluate_suite(
        network, x, labels, suite={"clean": Clean(), "smoothing": suite}, protocol=Sound(), info=POINTS, repeats=3,
        seed=0, **options,
    )  # fmt: skip
    smoothed = [row for row in rows if row["perturbation"] == "smoothing"]
    assert {row["repeat"] for row in smoothed} == {0} and {row["norm"] for row in smoothed} == {"l2"}
    assert {row["severity_unit"] for row in smoothed} == {"radius at 99 %"}
    return {row["severity"]: round(row["score"] * len(x)) for row in smoothed}


def test_rows_count_right_answers_with_a_radius_and_abstentions_as_wrong() -> None:
    network, x = linear()
    labels = network(x).argmax(1)
    labels[::5] = 1 - labels[::5]
    suite = Smoothing([0.0, 0.3, 0.6], sigma=0.5, n0=20, n=400, alpha=0.01)
    found = counts(network, x, labels, suite)
    with torch.no_grad():
        answers, radii = suite.certify(network, x, Draws((0, 0, 2), range(600)))
    assert found == {r: int(((answers == labels) & (radii >= r)).sum()) for r in (0.0, 0.3, 0.6)}
    assert int((network(x).argmax(1) == labels).sum()) > found[0.0] > found[0.3] > found[0.6] > 0


def test_counts_depend_on_the_seed_but_not_on_batches_or_other_networks() -> None:
    network, x = linear()
    labels = network(x).argmax(1)
    suite = Smoothing([0.2], sigma=0.5, n0=20, n=200, alpha=0.01)
    assert counts(network, x, labels, suite, batch_size=50) == counts(network, x, labels, suite, batch_size=600)
    other = nn.Linear(6, 2)
    before = counts(other, x, labels, suite)
    counts(network, x, labels, suite)
    assert counts(other, x, labels, suite) == before


def test_noise_that_comes_in_pieces_is_the_same_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robode.certificates.smoothing.ENTRIES", 50 * 6 * 7)  # seven draws at a time
    monkeypatch.setattr("robode.certificates.smoothing.FORWARD", 11)
    network, x = linear()
    suite = Smoothing([0.2], sigma=0.5, n0=20, n=100, alpha=0.01)
    with torch.no_grad():
        whole = suite.certify(network, x[:130], Draws((3,), range(130)))
        parts = [suite.certify(network, x[a:b], Draws((3,), range(a, b))) for a, b in ((0, 50), (50, 77), (77, 130))]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


class Nowhere(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 2), math.nan)


def test_logits_that_are_not_finite_are_no_votes() -> None:
    suite = Smoothing([0.0], sigma=0.5, n0=5, n=50, alpha=0.01)
    answers, radii = suite.certify(Nowhere(), torch.zeros(3, 6), Draws((0,), range(3)))
    assert bool((answers == ABSTAIN).all()) and float(radii.max()) == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sigma": 0.0}, "suite.smoothing.sigma=0.0"),
        ({"alpha": 0.6}, "suite.smoothing.alpha=0.6"),
        ({"n": 0}, "suite.smoothing.n=0"),
        ({"n0": 1.5}, "suite.smoothing.n0=1.5"),
        ({"radii": -1}, "suite.smoothing.radii=-1"),
        ({"radii": [0.1, 2.0]}, "n=1000 draws can certify 0.6158 at most"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        Smoothing(**({"radii": [0.1], "sigma": 0.25} | settings))

"""An attack may leave out what is certified: the counts are those of the whole attack, and the time is saved."""

import pytest
import torch
from torch import nn

from robode.attacks.apgd import apgd
from robode.attacks.attack import Attack
from robode.attacks.ensemble import AutoAttack
from robode.certificates.radius import certified_radii
from robode.corruptions.noise import Clean
from robode.corruptions.protocols import DataSpace
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan, evaluation_digest
from robode.tasks.classification import Classification

INFO = DatasetInfo((1, 5, 5), (0.4,), (0.3,), (0.0, 1.0), Classification(tuple("abcd")))
EPS = (0.1, 0.25)


class Watched(Attack):
    """Strong in the plane of four classes, and aware of how many samples it was given."""

    def __init__(self, norm: str = "l2") -> None:
        super().__init__("watched", EPS, norm, "attacks")
        self._given: list[int] = []

    def find(self, problem):
        self._given.append(len(problem.x))
        return apgd(problem, loss="dlr", steps=20)


def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 4)).eval()
    x = torch.rand(80, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = network(x).argmax(1)
    labels[:8] = (labels[:8] + 1) % 4
    return network, x, labels


def counts(attack, network, x, labels):
    suite = {"clean": Clean(), attack.name: attack}
    rows = evaluate_suite(network, x, labels, Plan(suite, DataSpace(), INFO, repeats=1, seed=5))
    return [round(row["score"] * row["n"]) for row in rows]


def test_only_samples_that_stand_without_a_certificate_are_attacked():
    network, x, labels = problem()
    whole, skipping = Watched(), Watched()
    skipping.skip_certified()
    assert counts(whole, network, x, labels) == counts(skipping, network, x, labels)
    radii = certified_radii(network, x, labels)
    open_ = [int(((radii >= 0) & (radii < eps * (1 + 1e-4))).sum()) for eps in EPS]
    assert whole._given[0] == 72 and 0 < skipping._given[0] == open_[0] < 40
    assert 0 < skipping._given[1] < whole._given[1]


def test_a_certificate_that_is_wrong_would_be_seen(monkeypatch):
    """The counts are equal because the certificate holds, not because nothing depends on it."""
    network, x, labels = problem()
    honest, fooled = Watched(), Watched()
    fooled.skip_certified()
    monkeypatch.setattr("robode.certificates.radius.certified_radii", lambda *_: torch.full((len(x),), 9.0))
    assert counts(fooled, network, x, labels) > counts(honest, network, x, labels)
    assert fooled._given == []


def test_the_evaluation_is_another_one_and_that_without_it_stays():
    attack, skipping = Watched(), Watched()
    before = evaluation_digest(attack, DataSpace(), "data")
    skipping.skip_certified()
    assert evaluation_digest(attack, DataSpace(), "data") == before != evaluation_digest(skipping, DataSpace(), "data")


def test_norms_that_reach_out_of_the_ball_are_refused():
    with pytest.raises(BadInput, match=r"skip_certified: expected norm l2 or l1, got linf"):
        Watched("linf").skip_certified()


def test_autoattack_takes_it_from_the_suite():
    pytest.importorskip("pyautoattack")
    network, x, labels = problem()
    attack = AutoAttack(EPS[0], norm="l2", skip_certified=True)
    clean, left = counts(attack, network, x, labels)
    proven = int((certified_radii(network, x, labels) >= EPS[0] * (1 + 1e-4)).sum())
    assert clean == 72 and proven <= left < clean
    assert attack.skips_certified

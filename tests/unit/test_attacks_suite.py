"""Attacks as entries of a suite: monotone curves, rows that do not depend on what else is asked, early refusals."""

import copy
import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from small_runs import build_each
from torch import nn

from robode.attacks.apgd import APGD
from robode.attacks.attack import Attack
from robode.attacks.balls import length
from robode.attacks.ensemble import AutoAttack, Ensemble
from robode.attacks.fmn import FMN
from robode.attacks.pgd import FGSM, PGD
from robode.attacks.problem import make_problem
from robode.attacks.square import Square
from robode.config.config import Part
from robode.config.levels import check_suite
from robode.corruptions.noise import Clean, PerSampleRNG
from robode.corruptions.perturbation import Batch
from robode.corruptions.protocols import ChNode2022, DataSpace
from robode.data.batches import evaluating
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import answered
from robode.evaluation.suite import Plan
from robode.tasks.classification import Classification

CONF = Path(__file__).parents[2] / "conf"
SUITES = ("attacks_quick", "attacks_standard", "autoattack", "curve_l2", "curve_linf")
INFO = DatasetInfo((1, 5, 5), (0.4,), (0.3,), (0.0, 1.0), Classification(tuple("abcd")))
EPS = [0.3, 0.0, 0.1, 0.2]
FEW = {
    "fgsm_linf": lambda: FGSM(EPS),
    "pgd_linf": lambda: PGD(EPS, steps=6, restarts=2),
    "pgd_margin_l1": lambda: PGD([3.0, 0.0, 1.0, 2.0], norm="l1", loss="margin", steps=6),
    "apgd_dlr_l2": lambda: APGD(EPS, norm="l2", loss="dlr", steps=8),
    "apgd_targeted_linf": lambda: APGD(EPS, steps=5, targets=2),
    "square_linf": lambda: Square(EPS, queries=15),
    "ensemble_l2": lambda: Ensemble(EPS, norm="l2", steps=5, targets=2, queries=10),
    "fmn_l2": lambda: FMN(EPS, steps=10),
}
N = 110


def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 12), nn.Tanh(), nn.Linear(12, 4))
    x = torch.rand(N, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = network(x).argmax(1)
    labels[:10] = (labels[:10] + 1) % 4
    return network, x, labels


def evaluated(suite, network, x, labels, protocol=None, batch_size=500, severity=None):
    """Rows without their seconds; those of one severity alone, where that is asked for."""
    plan = Plan(suite, protocol or DataSpace(), INFO, repeats=2, seed=5)
    work = [(level, row) for level, row in plan.rows() if severity in (None, level.severity)]
    found = {}
    for answers in answered(network, x, labels, plan, work, batch_size):
        found |= answers
    rows = [found[place][0] for place in range(len(work))]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def moved_by(attack, network, batch, eps):
    (moved,) = attack.perturbed(network, INFO.task, batch, [eps])
    return moved


@pytest.mark.parametrize("name", FEW)
def test_the_curve_never_rises_and_begins_at_the_clean_accuracy(name):
    network, x, labels = problem()
    clean, *rows = evaluated({"clean": Clean(), name: FEW[name]()}, network, x, labels)
    assert [row["severity"] for row in rows] == list(FEW[name]().severities)
    scores = [row["score"] for row in rows]
    assert scores[0] == clean["score"] == (N - 10) / N
    assert scores == sorted(scores, reverse=True) and scores[-1] < scores[0]
    for row in rows:
        assert (row["perturbation"], row["norm"]) == (name, name.split("_")[-1])
        assert (row["severity_unit"], row["space"], row["repeat"]) == ("eps", "data", 0)


@pytest.mark.parametrize("name", FEW)
def test_rows_depend_neither_on_the_batches_nor_on_the_other_rows_nor_on_the_protocol(name):
    network, x, labels = problem()
    whole = evaluated({name: FEW[name]()}, network, x, labels)
    assert evaluated({name: FEW[name]()}, network, x, labels, batch_size=1) == whole
    for severity in FEW[name]().severities[1:]:
        one = evaluated({name: FEW[name]()}, network, x, labels, severity=severity)
        assert one == [row for row in whole if row["severity"] == severity]
    legacy = evaluated({name: FEW[name]()}, network, x, labels, protocol=ChNode2022())
    assert [row["score"] for row in legacy] == [row["score"] for row in whole]
    assert {row["space"] for row in legacy} == {"data"}


@pytest.mark.parametrize("name", FEW)
def test_what_fell_at_a_smaller_eps_stays_where_it_fell(name):
    network, x, labels = problem()
    attack = FEW[name]()
    before, eps_of = None, attack.severities[1:]
    batch = Batch(x, labels, None, INFO.bounds, PerSampleRNG((1,), range(N)))
    for eps, moved in zip(eps_of, attack.perturbed(network, INFO.task, batch, eps_of), strict=True):
        assert bool((length(moved - x, attack.norm) <= eps + 1e-6).all())
        if before is not None:
            fell = network(before).argmax(1) != labels
            assert bool(fell.any()) and torch.equal(moved[fell], before[fell])
        before = moved


def test_new_weights_are_attacked_anew():
    network, x, labels = problem()
    attack, batch = FMN(0.3, steps=10), Batch(x, labels, None, INFO.bounds, None)
    moved_by(attack, network, batch, 0.3)
    with torch.no_grad():
        network[1].weight.neg_()
    moved = moved_by(attack, network, batch, 0.3)
    assert torch.equal(moved, moved_by(FMN(0.3, steps=10), network, batch, 0.3))


def test_a_copy_of_the_network_scores_again():
    network, x, labels = problem()
    batch = Batch(x, labels, None, INFO.bounds, None, reference=copy.deepcopy(network))
    curve = PGD(0.2, steps=5).scores(network, INFO.task, batch, [0.2])
    assert 0 < float(curve.scores.mean()) < 1 and torch.equal(curve.reference, curve.scores)


@pytest.mark.parametrize("name", SUITES)
def test_suites_are_built_and_named_by_their_keys(name):
    if name == "autoattack":
        pytest.importorskip("pyautoattack")
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        suite = compose(overrides=[f"+suite={name}"]).suite
    built = build_each(suite)
    assert isinstance(built.pop("clean"), Clean) and built
    for key, attack in built.items():
        assert isinstance(attack, Attack) and attack.name == key and attack.attacks and attack.in_data_units


@pytest.mark.parametrize("eps", [-0.1, "much", [0.1, -1], [], True])
def test_a_bad_eps_is_refused_without_building_anything(eps):
    with pytest.raises(BadInput, match="suite.pgd_linf.eps"):
        check_suite({"pgd_linf": Part("", "pgd_linf", {"eps": eps})})


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: PGD(-1), "eps=-1"),
        (lambda: PGD([0.1, 0.2], steps=10, step_size=0.03), "step_size=0.03: 10 steps travel 0.3"),
        (lambda: PGD(0.1, norm="l7"), "norm=l7"),
        (lambda: APGD(0.1, norm="l1"), "norm=l1: expected one of linf, l2"),
        (lambda: Square(0.1, queries=0), "queries=0"),
        (lambda: FMN(0.1, steps=2.5), "steps=2.5"),
        (lambda: PGD(0.1, loss=["ce"]), r"loss=\['ce'\]: expected the name of a loss, or null"),
        (lambda: PGD(0.1, step_size="abc"), "step_size=abc: expected a number above 0, or null for 2.5"),
        (lambda: PGD(0.1, step_size=True), "step_size=True: expected a number"),
        (lambda: PGD(0.0, step_size=0), "step_size=0: expected a number above 0"),
        (lambda: PGD(0.1, step_size=math.inf), "step_size=inf: expected a number"),
        (lambda: APGD(0.1, targets=-1), "targets=-1: expected a whole number of at least 0"),
        (lambda: APGD(0.1, loss="dlr", targets=True), "targets=True: expected a whole number"),
        (lambda: APGD(0.1, targets=1.5), "targets=1.5"),
        (lambda: AutoAttack(0.1, norm="l2", skip_certified="maybe"), "skip_certified=maybe: expected true or"),
    ],
)
def test_mistakes(build, expected):
    with pytest.raises(BadInput, match=expected):
        build()


@pytest.mark.slow
def test_the_published_attack_finds_no_more_than_ours_and_leaves_the_generator_alone():
    pytest.importorskip("pyautoattack")
    network, x, labels = problem()
    x, labels, state = x[:50], labels[:50], torch.get_rng_state()
    batch = Batch(x, labels, None, INFO.bounds, PerSampleRNG((1,), range(50)))
    with evaluating(network):
        moved, ours = (moved_by(attack, network, batch, 0.1) for attack in (AutoAttack(0.1), Ensemble(0.1)))
        left = [int(INFO.task.score(network(each), labels).sum()) for each in (ours, moved)]
    assert torch.equal(torch.get_rng_state(), state)
    assert bool((length(moved - x, "linf") <= 0.1 + 1e-6).all())
    assert 0 < left[1] < 40 and left[0] <= left[1]


def test_the_published_attack_says_what_it_needs(monkeypatch):
    pytest.importorskip("pyautoattack")
    attack = AutoAttack(0.1)
    assert attack.refusal((0.0, 1.0)) is None
    assert "AutoAttack is for images in [0, 1]" in attack.refusal(None)
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    with pytest.raises(BadInput, match="needs at least 4 classes, these data have 3"):
        attack.find(make_problem(network, torch.rand(2, 1, 5, 5), torch.zeros(2).long(), eps=0.1, bounds=(0.0, 1.0)))
    monkeypatch.setattr("robode.attacks.ensemble.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"AutoAttack needs the package pyautoattack: pip install"):
        AutoAttack(0.1)


@pytest.mark.parametrize(
    ("eps", "expected"), [("8/255", (8 / 255,)), (["2/255", 0.5, "1 / 4"], (2 / 255, 0.25, 0.5)), ("8", None)]
)
def test_a_radius_may_be_a_quotient(eps, expected):
    if expected is None:
        with pytest.raises(BadInput, match="^eps=8: expected a number"):
            PGD(eps)
    else:
        assert PGD(eps).severities == expected


def test_a_radius_in_grey_levels_is_warned_of():
    line = PGD([0.1, 8]).warning((0.0, 1.0))
    assert line.startswith("eps=8: the data lie in [0, 1]") and "eps=8/255" in line
    assert PGD(8 / 255).warning((0.0, 1.0)) is None
    assert PGD(8).warning(None) is None and PGD(8).warning((0.0, 255.0)) is None

"""One call answers a whole curve: as level by level, for any task, and nothing is remembered in between."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robode.attacks.apgd import APGD
from robode.attacks.balls import length
from robode.attacks.ensemble import Ensemble
from robode.attacks.fmn import FMN
from robode.attacks.pgd import FGSM, PGD
from robode.attacks.square import Square
from robode.certificates import radius as certificates
from robode.certificates.radius import Certified
from robode.certificates.smoothing import Smoothing
from robode.corruptions.common import Contrast
from robode.corruptions.noise import Clean, Gaussian, PerSampleRNG, SaltAndPepper, base_noise
from robode.corruptions.perturbation import Batch
from robode.corruptions.protocols import DataSpace
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import answered, evaluate_suite
from robode.evaluation.suite import Plan, refusals
from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.masking.reference_attacks import GradientMasking
from robode.network import Network
from robode.quantities.plane import EpsR, Field2D
from robode.quantities.wasserstein import Wasserstein
from robode.tasks.classification import Classification
from robode.tasks.task import Task

GREY = DatasetInfo((1, 5, 4), (0.4,), (0.3,), (0.0, 1.0), Classification(tuple("abcd")))
N = 90
CURVES = {
    "clean": lambda: Clean(),
    "gaussian": lambda: Gaussian([0.05, 0.2, 0.1]),
    "salt_and_pepper": lambda: SaltAndPepper([0.1, 0.3]),
    "contrast": lambda: Contrast([0.5, 0.9]),
    "certified": lambda: Certified([0.001, 0.01, 0.02]),
    "smoothing": lambda: Smoothing([0.0, 0.05, 0.1], 0.25, n0=10, n=60),
    "fgsm_linf": lambda: FGSM([0.0, 0.05, 0.1]),
    "pgd_linf": lambda: PGD([0.02, 0.05, 0.1], steps=4, restarts=2),
    "apgd_dlr_l2": lambda: APGD([0.1, 0.3], norm="l2", loss="dlr", steps=5),
    "square_linf": lambda: Square([0.05, 0.1], queries=8),
    "ensemble_l2": lambda: Ensemble([0.1, 0.3], norm="l2", steps=4, targets=2, queries=5),
    "fmn_l2": lambda: FMN([0.1, 0.2, 0.3], steps=6),
}


def case():
    torch.manual_seed(3)
    network = Network(GREY, CHNode(4, 2, ETD())).eval()
    x = torch.rand(N, *GREY.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.head.bias -= network(x).mean(0)
        labels = network(x).argmax(1)
    labels[:10] = (labels[:10] + 1) % 4
    return network, x, labels


def given(perturbation, network, x, targets, task=GREY.task):
    noise = perturbation.noise and base_noise(perturbation.noise, 0, 0, 0, len(x), tuple(x.shape[1:]))
    prepared = perturbation.prepare(network, tuple(x.shape[1:]))
    bounds = (0.0, 1.0) if x.ndim == 4 else None
    return Batch(x, targets, noise, bounds, PerSampleRNG((0, 0, 2), range(len(x))), prepared=prepared)


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_what_its_levels_are_one_by_one(name):
    network, x, labels = case()
    perturbation = CURVES[name]()
    levels = list(perturbation.severities)
    batch = given(perturbation, network, x, labels)
    whole = perturbation.scores(network, GREY.task, replace(batch, reference=network), levels)
    assert whole.scores.shape == whole.reference.shape == (len(levels), N) and whole.scores.dtype == torch.float32
    assert len(whole.seconds) == len(levels) and min(whole.seconds) >= 0
    for place, level in enumerate(levels):
        one = perturbation.scores(network, GREY.task, batch, [level])
        assert torch.equal(one.scores[0], whole.scores[place]) and one.reference is None
    if name not in ("clean", "contrast"):
        assert 0 < float(whole.scores.mean()) < 1
    if perturbation.attacks:
        assert bool((whole.scores.diff(dim=0) <= 0).all()) and torch.equal(whole.reference, whole.scores)
    if perturbation.severity_unit == "radius":
        assert float(whole.scores[0].sum()) > float(whole.scores[-1].sum())


@pytest.mark.parametrize("name", CURVES)
def test_scoring_leaves_no_trace_in_a_perturbation(name):
    network, x, labels = case()
    perturbation = CURVES[name]()
    before = copy.deepcopy(vars(perturbation))
    evaluate_suite(network, x, labels, Plan({name: perturbation}, DataSpace(), GREY, repeats=1, seed=0), batch_size=50)
    after = vars(perturbation)
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert type(value) is type(before[key]) and not isinstance(value, Tensor | nn.Module)
        assert value == before[key]


def test_each_batch_is_counted_out_once_and_each_network_prepared_once(monkeypatch):
    network, x, labels = case()
    calls = []

    def watched(owner, name):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kw: calls.append(name) or plain(*args, **kw))

    for owner, name in ((certificates, "constants"), (certificates, "certified_radii"), (Smoothing, "certify")):
        watched(owner, name)
    watched(FMN, "find")
    suite = {name: CURVES[name]() for name in ("certified", "smoothing", "fmn_l2")}
    evaluate_suite(network, x, labels, Plan(suite, DataSpace(), GREY, repeats=2, seed=0), batch_size=50)
    counts = {name: calls.count(name) for name in set(calls)}
    assert counts == {"constants": 1, "certified_radii": 2, "certify": 2, "find": 2}  # two batches


def test_only_missing_levels_are_answered_and_what_an_attack_goes_through_before_them(monkeypatch):
    network, x, labels = case()
    asked, found = {}, []
    suite = {name: CURVES[name]() for name in ("clean", "gaussian", "pgd_linf")}
    for name, each in suite.items():
        plain = each.scores
        each.scores = lambda *args, name=name, plain=plain: asked.setdefault(name, args[-1]) and plain(*args)
    attack = suite["pgd_linf"]
    plain_find = attack.find
    attack.find = lambda problem: found.append(round(float(problem.eps[0]), 6)) or plain_find(problem)
    plan = Plan(suite, DataSpace(), GREY, repeats=1)
    work = [
        (level, row)
        for level, row in plan.rows()
        if row["perturbation"] != "clean" and row["severity"] not in (0.02, 0.1)
    ]
    (answers,) = answered(network, x, labels, plan, work, batch_size=N)
    rows = [row for row, _ in answers.values()]
    assert asked == {"gaussian": [0.05, 0.2], "pgd_linf": [0.05]} and found == [0.02, 0.05]
    assert [(row["perturbation"], row["severity"]) for row in rows] == [
        ("gaussian", 0.05), ("gaussian", 0.2), ("pgd_linf", 0.05)
    ]  # fmt: skip


class Nearness(Task):
    """Numbers: the score is the distance to the target, less is better."""

    name, score_name, better, worst, outputs = "nearness", "distance", "lower", math.inf, 2

    def check(self, target, name):
        return None

    def loss(self, output, target):
        return self.score(output, target).mean()

    def score(self, output, target):
        return (output - target).norm(dim=1).float().nan_to_num(math.inf)

    def failed(self, output, target):
        return ~output.isfinite().all(dim=1)

    attack_losses = {"distance": lambda output, target: (output - target).norm(dim=1)}

    def certified(self, output, target, pairs, radius, room=0.0):
        return (self.score(output, target) + radius * pairs[0, 0] + room).float()

    def interval(self, scores):
        return float(scores.min()), float(scores.max())


VECTORS = DatasetInfo((3,), (0.0,) * 3, (1.0,) * 3, None, Nearness())
ANY_TASK = {
    "fgsm_l2": lambda: FGSM([0.1, 0.3], norm="l2"),
    "pgd_l2": lambda: PGD([0.1, 0.2, 0.3], norm="l2", steps=10, restarts=2),
    "apgd_distance_l2": lambda: APGD([0.1, 0.3], norm="l2", loss="distance", steps=10),
    "square_l2": lambda: Square([0.1, 0.3], norm="l2", queries=20),
}


def regression():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    x = torch.randn(N, 3)
    with torch.no_grad():
        return network, x, network(x) + 0.1 * torch.randn(N, 2)


@pytest.mark.parametrize("name", ANY_TASK)
def test_attacks_make_any_score_worse_and_a_certificate_bounds_them(name):
    network, x, targets = regression()
    attack, task = ANY_TASK[name](), VECTORS.task
    levels = list(attack.severities)
    batch = given(attack, network, x, targets)
    curve = attack.scores(network, task, batch, levels).scores
    with torch.no_grad():
        clean = task.score(network(x), targets)
    assert bool((curve.diff(dim=0) >= 0).all()) and float((curve[-1] - clean).mean()) > 0.02
    assert bool((curve[0] >= clean - 1e-6).all()) or name == "fgsm_l2"
    for level, moved, score in zip(levels, attack.perturbed(network, task, batch, levels), curve, strict=True):
        assert bool((length(moved - x, "l2") <= level * (1 + 1e-5)).all())
        with torch.no_grad():  # x' is where the score is
            torch.testing.assert_close(task.score(network(moved), targets), score)
    certified = Certified(levels)
    bound = certified.scores(network, task, given(certified, network, x, targets), levels).scores
    assert bool((bound >= curve).all()) and bool(bound.isfinite().all())
    assert torch.equal(attack.scores(network, task, batch, levels[-1:]).scores[0], curve[-1])


def test_an_output_that_is_not_finite_has_failed_and_is_left_alone():
    network, x, targets = regression()
    with torch.no_grad():
        targets[3] = math.nan
        x[5] = math.nan
    attack = PGD([0.1, 0.2], norm="l2", steps=3)
    curve = attack.scores(network, VECTORS.task, given(attack, network, x, targets), [0.1, 0.2]).scores
    assert curve[:, 5].tolist() == [math.inf, math.inf]


def test_a_loss_that_the_task_does_not_have_is_refused_and_the_default_is_its_first():
    def refused(suite, info=VECTORS):
        return refusals(suite, DataSpace(), info)

    assert refused({"pgd_linf": PGD(0.1), "a": APGD(0.1, norm="l2", loss="distance")}) == {}
    with pytest.raises(BadInput, match=r"suite.pgd_linf.loss=ce: expected distance for a nearness task$"):
        refused({"pgd_linf": PGD(0.1, loss="ce")})
    with pytest.raises(BadInput, match=r"suite.a.loss=hinge: expected one of ce, margin, dlr for a "):
        refused({"a": APGD(0.1, norm="l2", loss="hinge")}, GREY)
    classes = {
        "smoothing": Smoothing(0.1, 1), "apgd_targeted_linf": APGD(0.1, targets=2),
        "ensemble_linf": Ensemble(0.1), "fmn_l2": FMN(0.1),
    }  # fmt: skip
    assert refused(classes) == dict.fromkeys(classes, "needs classes, and this is a nearness task")
    assert refused(classes, GREY) == {}


def test_quantities_that_are_about_classes_are_left_out_for_other_tasks():
    plane = DatasetInfo((2,), (0.0,) * 2, (1.0,) * 2, None, Nearness())
    classes = replace(plane, task=Classification(("a", "b")))
    for each in (EpsR(), Field2D(), Wasserstein(), GradientMasking()):
        assert each.refusal(plane) == "needs classes, and this is a nearness task"
        assert each.refusal(classes) is None


def test_rows_of_any_task_carry_its_mean_score():
    network, x, targets = regression()
    suite = {"clean": Clean(), "gaussian": Gaussian([0.1, 0.4]), "pgd_l2": PGD([0.1, 0.3], norm="l2", steps=5)}
    plan = Plan(suite, DataSpace(), VECTORS, repeats=1)
    (answers,) = answered(network, x, targets, plan, plan.rows(), batch_size=50)
    rows, kept = zip(*answers.values(), strict=True)
    assert [row["score"] for row in rows] == pytest.approx([float(each.double().mean()) for each in kept])
    with torch.no_grad():
        torch.testing.assert_close(kept[0], VECTORS.task.score(network(x), targets))
    scores = {(row["perturbation"], row["severity"]): row["score"] for row in rows}
    assert scores["clean", 0.0] < scores["pgd_l2", 0.1] < scores["pgd_l2", 0.3]
    assert scores["clean", 0.0] < scores["gaussian", 0.1] < scores["gaussian", 0.4]

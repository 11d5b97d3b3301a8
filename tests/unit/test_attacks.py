"""Attacks: x' stays where it may be, every image keeps its gradient, nobody's result depends on the others."""

import functools
import itertools
import math

import pytest
import torch
from torch import nn

from robode.attacks.apgd import apgd
from robode.attacks.balls import NORMS, length
from robode.attacks.ensemble import ensemble
from robode.attacks.fmn import fmn
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import loss_named, make_problem
from robode.attacks.square import square
from robode.corruptions.noise import PerSampleRNG
from robode.tasks.classification import misclassified

SMOOTH = ("linf", "l2")
UNIT = (0.0, 1.0)
EPS = {"linf": 0.05, "l2": 0.5, "l1": 2.0}
FEW = {
    "fgsm": fgsm,
    "pgd": functools.partial(pgd, steps=8),
    "pgd, to the end": functools.partial(pgd, steps=8, early=False),
    "pgd, restarts": functools.partial(pgd, steps=5, restarts=3, loss="margin"),
    "apgd": functools.partial(apgd, steps=12),
    "apgd, dlr": functools.partial(apgd, steps=12, loss="dlr", restarts=2),
    "apgd, targeted": functools.partial(apgd, steps=8, loss="dlr", targets=3),
    "square": functools.partial(square, queries=30),
    "ensemble": functools.partial(ensemble, steps=8, queries=20),
}
N = 130


class Net(nn.Module):
    """A small network that counts the rows it is asked about."""

    def __init__(self, shape=(1, 6, 6), classes=5, gain=4.0):
        super().__init__()
        torch.manual_seed(1)
        size = math.prod(shape)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, 20), nn.Tanh(), nn.Linear(20, classes))
        self.gain, self.rows = gain, 0

    def forward(self, x):
        self.rows += len(x)
        return self.layers(self.gain * (x - 0.5))


def samples(shape=(1, 6, 6), n=N, classes=5, wrong=0.2):
    """(network, x, labels); a share of the labels is wrong, and some pixels are at the bounds."""
    network = Net(shape, classes)
    x = (1.6 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(2)) - 0.3).clamp(0, 1)
    labels = network(x).argmax(1)
    labels[: int(wrong * n)] = (labels[: int(wrong * n)] + 1) % classes
    network.rows = 0
    return network, x, labels


def run(attack, network, x, labels, *, norm="linf", eps=None, bounds=UNIT, part=None, random=True):
    """x' of some of the samples, with the random numbers that belong to them."""
    part = part or range(len(x))
    rng = PerSampleRNG((3,), part) if random else None
    mine = slice(part.start, part.stop)
    eps = EPS[norm] if eps is None else eps
    eps = eps[mine] if isinstance(eps, torch.Tensor) else eps
    return attack(make_problem(network, x[mine], labels[mine], eps=eps, norm=norm, bounds=bounds, rng=rng))


def norms_of(name):
    return NORMS if name.startswith(("fgsm", "pgd")) else SMOOTH


CASES = [(name, norm) for name in FEW for norm in norms_of(name)]


@pytest.mark.parametrize("name, norm", CASES)
@pytest.mark.parametrize("shape, bounds", [((1, 6, 6), UNIT), ((3, 5, 4), UNIT), ((7,), None), ((2,), None)])
def test_moves_stay_in_the_ball_and_the_bounds_and_nothing_is_mutated(name, norm, shape, bounds):
    network, x, labels = samples(shape)
    before, state = x.clone(), {key: value.clone() for key, value in network.state_dict().items()}
    eps = EPS[norm] * torch.linspace(0, 1, N)
    generator = torch.get_rng_state()
    moved = run(FEW[name], network, x, labels, norm=norm, eps=eps, bounds=bounds)
    assert moved.shape == x.shape and moved.dtype == x.dtype and not moved.requires_grad
    assert bool((length(moved - x, norm) <= eps + 1e-6).all()) and torch.equal(moved[0], x[0])
    if bounds:
        assert 0 <= float(moved.min()) and float(moved.max()) <= 1
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    if "end" not in name:
        wrong = misclassified(network(x), labels)
        assert bool(wrong.any()) and torch.equal(moved[wrong], x[wrong])


@pytest.mark.parametrize("name, norm", CASES)
def test_the_split_into_batches_changes_nothing(name, norm):
    network, x, labels = samples()
    whole = run(FEW[name], network, x, labels, norm=norm)
    assert 0.1 < float(misclassified(network(whole), labels)[26:].float().mean()) <= 1
    for cuts in ((0, 50, 100, N), (0, 100, N), (0, 30, 73, N)):
        parts = [run(FEW[name], network, x, labels, norm=norm, part=range(a, b)) for a, b in itertools.pairwise(cuts)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, norm", CASES)
def test_a_number_for_all_is_the_same_as_one_for_each(name, norm):
    network, x, labels = samples(n=60)
    one = run(FEW[name], network, x, labels, norm=norm)
    each = run(FEW[name], network, x, labels, norm=norm, eps=torch.full((60,), EPS[norm]))
    assert torch.equal(one, each)


@pytest.mark.parametrize("name, norm", CASES)
def test_two_classes_no_samples_and_inference_mode(name, norm):
    network, x, labels = samples(classes=2)
    attack = FEW[name]
    if "dlr" in name or "targeted" in name:
        attack = functools.partial(attack, loss="margin")
    moved = run(attack, network, x, labels, norm=norm)
    assert bool(moved.isfinite().all())
    assert run(attack, network, x[:0], labels[:0], norm=norm, part=range(0)).shape == (0, 1, 6, 6)
    with torch.inference_mode():
        inside = run(attack, network, x + 0, labels + 0, norm=norm)
    torch.testing.assert_close(inside, moved, rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [fgsm, pgd, apgd, functools.partial(pgd, early=False)])
def test_black_and_white_images_keep_their_gradients(attack, norm):
    if attack is apgd and norm == "l1":
        return
    network = Net()
    for level in (0.0, 1.0):
        x = torch.full((4, 1, 6, 6), level)
        labels = network(x).argmax(1)
        moved = run(attack, network, x, labels, norm=norm, random=False)
        away = (moved - x).abs() > 1e-6
        assert bool(away.flatten(1).any(1).all())
        if norm == "linf":
            assert 0.3 < float(away.float().mean()) < 0.7  # all that may move, and only inwards


def test_only_what_is_still_right_is_attacked_again():
    network, x, labels = samples()
    right = int((~misclassified(network(x), labels)).sum())
    network.rows = 0
    run(functools.partial(pgd, steps=5, restarts=4), network, x, labels, eps=1.0)  # everything falls at once
    assert network.rows < N + 3 * right
    network.rows = 0
    run(functools.partial(pgd, steps=5, restarts=4), network, x, labels, eps=0.0)  # nothing ever falls
    assert network.rows == N + 4 * 6 * right
    network.rows = 0
    run(functools.partial(square, queries=50), network, x, labels, eps=0.0)
    assert network.rows == N + 50 * right
    network.rows = 0
    run(functools.partial(pgd, steps=5, early=False), network, x, labels, eps=1.0)
    assert network.rows == 5 * N + N


def test_restarts_targets_and_the_ensemble_never_do_worse():
    network, x, labels = samples()

    def left(attack):
        return N - int(misclassified(network(run(attack, network, x, labels)), labels).sum())

    assert left(functools.partial(pgd, steps=5, restarts=5)) <= left(functools.partial(pgd, steps=5))
    apgd_ce = left(functools.partial(apgd, steps=8))
    assert left(functools.partial(apgd, steps=8, restarts=4)) <= apgd_ce
    assert left(functools.partial(ensemble, steps=8, queries=20)) <= apgd_ce


MORE = {
    "pgd, restarts": (functools.partial(pgd, steps=5, loss="margin"), {"restarts": 4}, "margin"),
    "apgd, restarts": (functools.partial(apgd, steps=8), {"restarts": 4}, "ce"),
    "apgd, targets": (functools.partial(apgd, steps=8, loss="dlr", targets=1), {"targets": 3}, "margin"),
    "apgd, classes that are not there": (functools.partial(apgd, steps=8, targets=4), {"targets": 9}, "margin"),
    "ensemble": (functools.partial(apgd, steps=8), functools.partial(ensemble, steps=8, queries=20), "margin"),
}


@pytest.mark.parametrize("name", MORE)
def test_more_attempts_bring_no_sample_farther_from_falling(name):
    network, x, labels = samples()
    attack, more, loss = MORE[name]
    more = functools.partial(attack, **more) if isinstance(more, dict) else more
    few, many = (run(each, network, x, labels, eps=0.02) for each in (attack, more))
    right = ~misclassified(network(many), labels)
    gain = (loss_named(loss)(network(many), labels) - loss_named(loss)(network(few), labels))[right]
    assert int(right.sum()) > 20 and bool((gain > -1e-5).all())


@pytest.mark.parametrize("norm", SMOOTH)
def test_apgd_is_no_weaker_than_pgd_with_as_many_steps(norm):
    network, x, labels = samples()
    for eps in (0.4 * EPS[norm], 0.7 * EPS[norm]):
        left = [
            N - int(misclassified(network(run(attack, network, x, labels, norm=norm, eps=eps)), labels).sum())
            for attack in (functools.partial(apgd, steps=40), functools.partial(pgd, steps=40))
        ]
        assert 0 < left[1] < N and left[0] <= left[1]


@pytest.mark.parametrize("norm", NORMS)
def test_the_minimal_norm_is_within_what_pgd_needs(norm):
    network, x, labels = samples()
    rng = PerSampleRNG((3,), range(N))
    moved = fmn(make_problem(network, x, labels, eps=0.0, norm=norm, bounds=UNIT, rng=rng), restarts=2)
    assert bool(misclassified(network(moved), labels).all()) and 0 <= float(moved.min()) and float(moved.max()) <= 1
    wrong, distance = misclassified(network(x), labels), length(moved - x, norm)
    assert torch.equal(moved[wrong], x[wrong])
    eps = float(distance[~wrong].median())
    problem = make_problem(network, x, labels, eps=eps, norm=norm, bounds=UNIT)
    by_pgd = pgd(problem, loss="margin", steps=100)
    assert int((distance <= eps).sum()) >= int(misclassified(network(by_pgd), labels).sum()) - 1


def test_a_network_without_gradients_falls_to_the_black_box_only():
    network, x, labels = samples()

    def masked(z):
        with torch.no_grad():
            return network(z)

    eps = 0.3
    problem = make_problem(masked, x, labels, eps=eps, bounds=UNIT)
    assert torch.equal(fgsm(problem), x)
    for attack in (pgd, apgd):
        torch.testing.assert_close(attack(problem), x, rtol=0, atol=1e-6)
    assert torch.equal(fmn(problem), x)
    moved = run(functools.partial(square, queries=200), masked, x, labels, eps=eps)
    assert bool(misclassified(network(moved), labels).all())

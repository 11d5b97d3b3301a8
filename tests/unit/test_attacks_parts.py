"""What attacks are made of: losses, balls, checkpoints, frozen parameters; and what they refuse."""

import math
import re
import warnings

import pytest
import torch
from torch import nn

from robode.attacks.apgd import apgd, checkpoints
from robode.attacks.balls import NORMS, length, project, random_start, step_direction
from robode.attacks.ensemble import ensemble
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import CLASSES, attacking, make_problem
from robode.attacks.square import square
from robode.corruptions.noise import PerSampleRNG
from robode.errors import BadInput
from robode.tasks.classification import dlr, margin, misclassified


def samples(n=3, classes=5):
    """(network, x, labels)."""
    torch.manual_seed(1)
    return nn.Linear(6, classes), torch.rand(n, 6), torch.zeros(n, dtype=torch.long)


def test_the_checkpoints_are_the_published_ones():
    assert checkpoints(100)[:5] == [22, 41, 57, 70, 80] and checkpoints(100)[-1] <= 100
    assert checkpoints(1) == [1]


def test_losses_are_worst_for_wrong_answers_and_defined_at_ties():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [1.0, 3.0, 0.0, -1.0], [2.0, 2.0, 2.0, 2.0]])
    labels = torch.zeros(3, dtype=torch.long)
    for loss in CLASSES.attack_losses.values():
        values = loss(logits, labels)
        assert bool(values.isfinite().all()) and float(values[1]) > float(values[2]) > float(values[0])
    torch.testing.assert_close(dlr(logits, labels)[:2], torch.tensor([-2 / 3, 2 / 3]))
    torch.testing.assert_close(dlr(7 * logits + 5, labels), dlr(logits, labels))
    assert margin(logits, labels).tolist() == [-2.0, 2.0, 0.0]
    assert misclassified(torch.tensor([[1.0, math.nan], [1.0, 0.0]]), labels[:2]).tolist() == [True, False]


@pytest.mark.parametrize("norm", NORMS)
def test_projections_starts_and_directions(norm):
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(40, 3, 4, generator=generator)
    eps = torch.linspace(0, 2, 40)
    back = project(delta, eps, norm)
    assert bool((length(back, norm) <= eps + 1e-6).all())
    small = project(1e-3 * delta, eps + 1, norm)
    torch.testing.assert_close(small, 1e-3 * delta)
    for _ in range(20):  # no point of the ball is nearer
        other = project(torch.randn(40, 3, 4, generator=generator) + delta, eps, norm)
        assert bool((length(back - delta, "l2") <= length(other - delta, "l2") + 1e-5).all())
    start = random_start(PerSampleRNG((0,), range(40)), delta, eps, norm)
    assert bool((length(start, norm) <= eps + 1e-6).all()) and bool((length(start, norm)[1:] > 0).all())
    direction = step_direction(1e-30 * delta, norm)
    torch.testing.assert_close(length(direction, norm), torch.ones(40))
    assert not bool(step_direction(torch.zeros(2, 3), norm).any())


def test_parameters_come_back_as_they_were_after_a_failure():
    network = samples()[0]
    network.bias.requires_grad_(False)
    wanted = [p.requires_grad for p in network.parameters()]
    with pytest.raises(RuntimeError), attacking(network):
        assert not any(p.requires_grad for p in network.parameters())
        raise RuntimeError
    assert [p.requires_grad for p in network.parameters()] == wanted


def test_steps_too_short_for_the_ball_are_warned_about():
    network, x, labels = samples(n=5)
    with pytest.warns(UserWarning, match="step_size=0.01: 10 steps travel 0.1, less than the ball's width 0.2"):
        pgd(make_problem(network, x, labels, eps=0.1), steps=10, step_size=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgd(make_problem(network, x, labels, eps=0.1), steps=10, step_size=0.02)


@pytest.mark.parametrize(
    ("attack", "how", "expected"),
    [
        (fgsm, {"norm": "l3"}, "norm=l3: expected one of linf, l2, l1"),
        (apgd, {"norm": "l1"}, "norm=l1: expected one of linf, l2"),
        (square, {"norm": "l1"}, "norm=l1"),
        (pgd, {"loss": "hinge"}, "loss=hinge: expected one of ce, margin, dlr"),
        (pgd, {"eps": -1.0}, "eps=-1.0"),
        (pgd, {"eps": [0.1, 0.2]}, "eps of shape (2,): expected a number, or one for each of the 3 samples"),
        (pgd, {"steps": 0}, "steps=0"),
        (apgd, {"restarts": 0}, "restarts=0"),
        (square, {"queries": 0}, "queries=0"),
    ],
)
def test_mistakes(attack, how, expected):
    network, x, labels = samples(n=3)
    with pytest.raises(BadInput, match=re.escape(expected)):
        where = {key: value for key, value in how.items() if key in ("eps", "norm")}
        settings = {key: value for key, value in how.items() if key not in where}
        attack(make_problem(network, x, labels, **{"eps": 0.1, **where}), **settings)


@pytest.mark.parametrize("attack", [fgsm, pgd, apgd, square, ensemble])
@pytest.mark.parametrize(
    ("eps", "expected"),
    [
        ([0.1, -0.1, 0.1], "eps=-0.1: expected finite numbers of at least 0"),
        ([0.1, math.nan, 0.1], "eps=nan: expected"),
        ([0.1, math.inf, 0.1], "eps=inf: expected"),
        (-0.1, "eps=-0.1: expected"),
        ([0.1, 0.1], "eps of shape (2,): expected a number, or one for each of the 3 samples"),
        ([0.1], "eps of shape (1,): expected"),
        ([[0.1, 0.1, 0.1]], "eps of shape (1, 3): expected"),
    ],
)
def test_every_sample_has_an_eps_that_is_a_radius(attack, eps, expected):
    network, x, labels = samples(n=3)
    with pytest.raises(BadInput, match=re.escape(expected)):
        attack(make_problem(network, x, labels, eps=torch.tensor(eps), norm="l2"))


def test_a_tensor_without_dimensions_is_a_number():
    network, x, labels = samples(n=3)
    assert torch.equal(
        fgsm(make_problem(network, x, labels, eps=torch.tensor(0.1))), fgsm(make_problem(network, x, labels, eps=0.1))
    )


def test_dlr_needs_three_classes():
    network, x, labels = samples(n=3, classes=2)
    with pytest.raises(BadInput, match="dlr needs at least 3 classes, got 2"):
        pgd(make_problem(network, x, labels, eps=0.1), loss="dlr")

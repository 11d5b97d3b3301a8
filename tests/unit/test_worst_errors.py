"""Attacks on an error: it is convex in the output and has a maximum on every side of it; the worst one is wanted."""

import itertools
import math

import pytest
import torch
from torch import nn

from robode.attacks.apgd import apgd
from robode.attacks.balls import length
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import make_problem
from robode.corruptions.noise import PerSampleRNG
from robode.data.pendulum import Pendulum
from robode.families.resnet import ResNet
from robode.integrators.euler import Euler
from robode.network import Network

SOURCE = Pendulum(train=1000, test=300)
TASK = SOURCE.info.task


@pytest.fixture(scope="module", params=[0, 1, 2])
def trained(request):
    """A ResNet that has learned the pendulum's flow, and states with where they are after the time."""
    train, test = SOURCE.load()
    torch.manual_seed(request.param)
    network = Network(SOURCE.info, ResNet(8, 4, Euler(), step=0.25))
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(25):
        for rows in torch.randperm(len(train.x)).split(50):
            optimizer.zero_grad()
            TASK.loss(network(train.x[rows]), train.target[rows]).backward()
            optimizer.step()
    return network.eval(), test.x, test.target


@torch.no_grad()
def error(network, x, target):
    return TASK.score(network(x), target)


def worst_of(network, x, target, moves):
    return torch.stack([error(network, x + move, target) for move in moves]).amax(0)


def problem(network, x, target, eps, norm="linf", first=0):
    rng = PerSampleRNG((0, 0, 2), range(first, first + len(x)))
    return make_problem(network, x, target, eps=eps, norm=norm, rng=rng, task=TASK)


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("attack", [pgd, apgd])
def test_no_corner_of_the_box_is_worse_by_one_percent(attack, eps, trained):
    """The corners are 4 of the x' that are allowed; with one random start PGD found 9 to 12 % less than they."""
    network, x, target = trained
    assert float(error(network, x, target).mean()) < 0.15
    corners = worst_of(network, x, target, eps * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2))))
    moved = attack(problem(network, x, target, eps), steps=20)
    assert bool((length(moved - x, "linf") <= eps + 1e-6).all())
    found = error(network, moved, target)
    assert float(found.mean()) >= 0.99 * float(corners.mean())
    one_step = error(network, fgsm(problem(network, x, target, eps)), target)
    assert float(found.mean()) >= float(one_step.mean()) and bool((found >= 0.9 * one_step).all())


def test_no_point_of_the_circle_is_worse_by_one_percent(trained):
    network, x, target = trained
    angles = torch.arange(72) * math.tau / 72
    circle = worst_of(network, x, target, 0.2 * torch.stack([angles.cos(), angles.sin()], dim=1))
    found = error(network, pgd(problem(network, x, target, 0.2, "l2"), steps=20), target)
    assert float(found.mean()) >= 0.99 * float(circle.mean())


def test_what_a_state_gets_depends_on_no_other(trained):
    network, x, target = trained
    whole = pgd(problem(network, x, target, 0.1), steps=10)
    parts = [pgd(problem(network, x[a:b], target[a:b], 0.1, first=a), steps=10) for a, b in ((0, 70), (70, 300))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)


def test_of_a_linear_map_the_outward_start_alone_is_the_worst_corner():
    torch.manual_seed(0)
    network, x = nn.Linear(2, 2, bias=False), torch.zeros(200, 2)
    target = 0.01 * torch.randn(200, 2)
    corners = worst_of(network, x, target, torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2))))
    start = problem(network, x, target, 1.0).outward_start(TASK.attack_losses["error"])
    found = error(network, start, target)
    assert float((found >= corners - 1e-6).float().mean()) > 0.97

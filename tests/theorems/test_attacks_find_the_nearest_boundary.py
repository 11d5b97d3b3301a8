"""A linear classifier tells how far its boundary is: attacks of 1.05 times that succeed, of 0.999 times none can.

The distance of x to where class j beats the label y is (z_y - z_j) / ||w_y - w_j||_dual.
"""

import functools
import itertools
import math

import pytest
import torch
from torch import nn

from robode.attacks.apgd import apgd
from robode.attacks.balls import length
from robode.attacks.ensemble import ensemble
from robode.attacks.fmn import fmn
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import make_problem
from robode.attacks.square import square
from robode.corruptions.noise import PerSampleRNG
from robode.tasks.classification import misclassified

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
UNIT = (0.0, 1.0)
SHAPES = {"points": ((2,), None), "vectors": ((30,), None), "grey": ((1, 4, 4), UNIT), "colour": ((3, 6, 6), None)}
N = 60

# With more than two classes a loss may lead towards another boundary than the nearest, in a linear classifier too.
TWO_CLASSES = {
    "fgsm": fgsm,
    "fgsm, margin": functools.partial(fgsm, loss="margin"),
    "pgd": pgd,
    "pgd, margin": functools.partial(pgd, loss="margin"),
    "pgd, restarts": functools.partial(pgd, restarts=3),
    "apgd": apgd,
    "apgd, margin": functools.partial(apgd, loss="margin"),
}
ANY_CLASSES = {
    "apgd, targeted": functools.partial(apgd, steps=30, targets=9),
    "apgd, targeted dlr": functools.partial(apgd, steps=30, targets=9, loss="dlr"),
    "apgd, targeted, restarts": functools.partial(apgd, steps=10, targets=9, restarts=2),
    "ensemble": functools.partial(ensemble, steps=10, queries=10),
}


class Linear:
    """A random linear classifier, samples with their own answers as labels, and their distances to the boundary."""

    def __init__(self, kind: str, classes: int, norm: str):
        shape, self.bounds = SHAPES[kind]
        torch.manual_seed(3)
        layer = nn.Linear(math.prod(shape), classes)
        self.model = nn.Sequential(nn.Flatten(), layer).requires_grad_(False)
        x = 0.45 + 0.1 * torch.rand(3 * N, *shape)  # far from the bounds, and near the boundaries
        layer.bias -= self.model(torch.full((1, *shape), 0.5))[0]
        logits = self.model(x)
        labels, self.norm = logits.argmax(1), norm
        margins = logits.gather(1, labels[:, None]) - logits
        slopes = torch.linalg.vector_norm(layer.weight[labels][:, None] - layer.weight, DUAL[norm], dim=2)
        distance = (margins / slopes).scatter(1, labels[:, None], math.inf).amin(1)
        self.distance, far = distance.topk(N)  # rounding may decide about the others
        self.x, self.labels = x[far], labels[far]
        if self.bounds:
            assert float(self.distance.max()) < 0.4

    def left(self, attack, factor: float) -> int:
        """Right answers after an attack of `factor` times each sample's distance."""
        eps, rng = factor * self.distance, PerSampleRNG((1,), range(N))
        where = {"eps": eps, "norm": self.norm, "bounds": self.bounds}
        moved = attack(make_problem(self.model, self.x, self.labels, rng=rng, **where))
        assert bool((length(moved - self.x, self.norm) <= eps + 1e-6).all())
        if self.bounds:
            assert self.bounds[0] <= float(moved.min()) and float(moved.max()) <= self.bounds[1]
        assert moved.dtype == torch.float32 and not moved.requires_grad
        return N - int(misclassified(self.model(moved), self.labels).sum())


def cells() -> list:
    """Ten classes, of which a targeted attack tries nine, take as long as all the rest: fast once in each norm."""
    each = itertools.product([2, 3, 10], SHAPES, ["linf", "l2"])
    slow = [(10, kind, norm) for kind, norm in itertools.product(SHAPES, ["linf", "l2"])
            if (kind, norm) not in {("grey", "linf"), ("vectors", "l2")}]  # fmt: skip
    return [pytest.param(*cell, marks=[pytest.mark.slow] if cell in slow else []) for cell in each]


@pytest.mark.parametrize(("classes", "kind", "norm"), cells())
def test_every_gradient_attack_succeeds_just_beyond_the_distance_and_none_before(classes, kind, norm):
    problem = Linear(kind, classes, norm)
    for name, attack in (TWO_CLASSES | ANY_CLASSES if classes == 2 else ANY_CLASSES).items():
        if classes == 2 and "dlr" in name:
            continue
        assert problem.left(attack, 1.05) == 0, name
        assert problem.left(attack, 0.999) == N, name


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_the_same_in_the_sum_norm(loss, kind):
    problem = Linear(kind, 2, "l1")
    attack = functools.partial(pgd, loss=loss)
    assert problem.left(attack, 1.05) == 0
    assert problem.left(attack, 0.999) == N


@pytest.mark.parametrize("norm, kind", [("linf", "points"), ("l2", "points"), ("linf", "grey"), ("linf", "vectors")])
def test_the_black_box_succeeds_just_beyond_the_distance_and_not_before(norm, kind):
    problem = Linear(kind, 2, norm)
    assert problem.left(functools.partial(square, queries=1500), 1.05) == 0
    assert problem.left(functools.partial(square, queries=200), 0.999) == N


@pytest.mark.parametrize("kind, factor", [("grey", 1.5), ("colour", 3), ("vectors", 1.1)])
def test_the_black_box_in_the_euclidean_norm_needs_room(kind, factor):
    assert Linear(kind, 2, "l2").left(functools.partial(square, queries=1500), factor) == 0


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_minimal_norm_is_the_distance(classes, kind, norm):
    problem = Linear(kind, classes, norm)
    moved = fmn(make_problem(problem.model, problem.x, problem.labels, eps=0.0, norm=norm, bounds=problem.bounds))
    assert bool(misclassified(problem.model(moved), problem.labels).all())
    ratio = length(moved - problem.x, norm) / problem.distance
    assert 0.999 < float(ratio.min()) and float(ratio.max()) < 1.05

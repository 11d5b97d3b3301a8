"""FMN, the fast minimum-norm attack: the nearest wrong answer, x' of (nearly) minimal norm that changes it.

Steps towards another class inside a ball whose radius follows the boundary: it shrinks while x' is answered wrongly,
grows while it is not, and is extrapolated linearly until the first wrong answer. Source: Pintor, Roli, Brendel, Biggio,
"Fast minimum-norm adversarial attacks", NeurIPS 2021. Differently from there, step lengths are relative to the radius,
so that any unit will do; the class is the one whose boundary is nearest by linearisation at x, and later that of the
nearest wrong answer; and x' is brought to the boundary by bisection.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robode.attacks.attack import Attack
from robode.attacks.balls import Region, beside, length, possible, random_start, step_direction
from robode.attacks.problem import Problem, attacking, gradient
from robode.corruptions.perturbation import Batch
from robode.errors import BadInput
from robode.tasks.classification import margin_targeted
from robode.tasks.task import Task

STEP = (1.0, 0.01)
"""Of the radius, at the first and at the last step; falls like a cosine."""
CHANGE = (0.1, 0.001)
"""Relative change of the radius in a step, likewise."""
HALVINGS = 10
CLASSES = 9
"""Of the best other classes, those whose boundaries are compared at x."""
FAR = 1e6
"""In data units: no radius is extrapolated further."""
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def fmn(problem: Problem, *, steps: int = 100, restarts: int = 1) -> Tensor:
    """x' like x, answered wrongly and as near to x as was found; x itself where it is wrong, or nothing was found.

    problem: a classification, whose eps plays no part. The first start is x; a restart begins anywhere within the
    distance found so far. Raises BadInput for steps or restarts < 1.
    """
    if steps < 1 or restarts < 1:
        raise BadInput(f"steps={steps}, restarts={restarts}: expected at least 1 of each")
    result = problem.x.clone()
    with attacking(problem.model):
        rows = torch.nonzero(~problem.failed(problem.model(problem.x), problem.target))[:, 0]
        if len(rows):
            result[rows] = _Hunt(problem.of(rows)).run(steps, restarts)
    return result


class _Hunt:
    """The nearest wrong answer so far: best like x, distance (B,), inf where there is none; goal: its class (B,)."""

    def __init__(self, problem: Problem):
        self.problem, self.best = problem, problem.x.clone()
        self.distance = torch.full_like(problem.eps, math.inf)
        self.goal = _nearest_class(problem)

    def run(self, steps: int, restarts: int) -> Tensor:
        for restart in range(restarts):
            x = self.problem.x
            away = torch.where(self.distance.isfinite(), self.distance, 0.0)
            self._descend(x + random_start(self.problem.rng, x, away, self.problem.norm) if restart else x, steps)
            self._bisect()
        return self.best

    def _offer(self, moved: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Take x' where it is wrong and nearer. Returns its distances, and where it is wrong, (B,) each."""
        distance = length(moved - self.problem.x, self.problem.norm)
        wrong = self.problem.failed(logits, self.problem.target)
        better = wrong & (distance < self.distance)
        self.best[better], self.distance[better] = moved[better], distance[better]
        answer = logits.argmax(dim=1)  # where logits are not finite, it may be the label
        self.goal = torch.where(better & (answer != self.problem.target), answer, self.goal)
        return distance, wrong

    def _towards(self, logits: Tensor, target: Tensor) -> Tensor:
        return margin_targeted(logits, target, self.goal)

    def _descend(self, moved: Tensor, steps: int) -> None:
        problem, radius = self.problem, torch.where(self.distance.isfinite(), self.distance, 0.0)
        for step in range(steps):
            value, logits, grad = gradient(problem.model, self._towards, moved, problem.target)
            grad = possible(grad, moved, problem.bounds)
            distance, wrong = self._offer(moved, logits)
            reach = (distance + _extrapolated(value, grad, problem.norm)).clamp(0, FAR)
            change = _cosine(CHANGE, step, steps)
            # more than the extrapolation, which would end on this side of a flat boundary
            grown = torch.where(self.distance.isfinite(), (1 + change) * radius, (1 + CHANGE[0]) * reach)
            radius = torch.minimum(torch.where(wrong, (1 - change) * radius, grown), self.distance)
            push = beside(_cosine(STEP, step, steps) * radius, moved) * step_direction(grad, problem.norm)
            moved = Region(problem.x, radius, problem.norm, problem.bounds).back(moved + push)
        self._offer(moved, problem.model(moved))

    def _bisect(self) -> None:
        """Towards x, as long as the answer stays wrong."""
        far, near = self.best.clone(), self.problem.x
        for _ in range(HALVINGS):
            middle = torch.lerp(near, far, 0.5)
            wide = beside(self._offer(middle, self.problem.model(middle))[1], middle)
            far, near = torch.where(wide, middle, far), torch.where(wide, near, middle)


def _nearest_class(problem: Problem) -> Tensor:
    """The other class whose boundary is nearest to x by linearisation: (B,)."""
    logits = problem.model(problem.x)
    ranked = logits.scatter(1, problem.target[:, None], -math.inf).argsort(dim=1, descending=True)
    found, nearest = ranked[:, 0], torch.full_like(problem.eps, math.inf)
    for goal in ranked[:, : min(CLASSES, logits.shape[1] - 1)].unbind(1):
        loss = functools.partial(margin_targeted, targets=goal)
        value, _, grad = gradient(problem.model, loss, problem.x, problem.target)
        distance = _extrapolated(value, possible(grad, problem.x, problem.bounds), problem.norm)
        found, nearest = torch.where(distance < nearest, goal, found), torch.minimum(distance, nearest)
    return found


def _extrapolated(value: Tensor, grad: Tensor, norm: str) -> Tensor:
    """How far a linear function with this value and gradient is from 0, (B,); 0 where it does not change."""
    slope = length(grad, DUAL[norm])
    return torch.where(slope > 0, -value / slope, 0.0)


def _cosine(ends: tuple[float, float], step: int, steps: int) -> float:
    """From the first of the ends to the second."""
    return ends[1] + (ends[0] - ends[1]) * (1 + math.cos(math.pi * step / steps)) / 2


class FMN(Attack):
    """The nearest wrong answer, once for all eps: x' is that where it is within eps, and x where it is not."""

    needs_classes = True
    steps: int
    restarts: int

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "l2",
        steps: int = 100,
        restarts: int = 1,
        suite: str = "attacks",
    ) -> None:
        super().__init__("fmn", eps, norm, suite, steps=steps, restarts=restarts)

    @torch.no_grad()
    def climb(
        self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        nearest = self.find(self.problem(network, task, batch, max(levels)))
        distance = length(nearest - batch.x, self.norm)
        for eps in levels:
            moved = torch.where(beside(distance <= eps, batch.x), nearest, batch.x)
            yield moved, task.score(network(moved), batch.targets)

    def find(self, problem: Problem) -> Tensor:
        return fmn(problem, steps=self.steps, restarts=self.restarts)

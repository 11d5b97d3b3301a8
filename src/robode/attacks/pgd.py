"""FGSM and PGD: steps up the loss's gradient, one of full length or many small ones that stay in ball and bounds.

Sources: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015 (FGSM); Madry,
Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks", ICLR 2018 (PGD).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from robode.attacks.attack import Attack, Climber
from robode.attacks.balls import beside, possible, step_direction
from robode.attacks.problem import NEAR, Problem, Start, attacking, gradient, in_turn, loss_named
from robode.corruptions.perturbation import clip
from robode.errors import BadInput
from robode.tasks.task import AttackLoss

TRAVEL = 2.5
"""Steps times step size over eps, where no step size is given: enough to cross the ball, 2 eps wide, and turn."""

START = {"linf": 1.0, "l2": NEAR, "l1": NEAR}
"""Share of eps within which the first start lies. Of 500 digits, a small CNN and 40 steps, linf left 217 to 218 from
anywhere and 219 from near x; l2 left 190 to 193 from anywhere and 188 from near x, where the gradient is the best."""

ROUNDING = 1 + 1e-6
"""Of eps in float32."""


def fgsm(problem: Problem, *, loss: str | None = None) -> Tensor:
    """x' = x + eps times the steepest direction of norm 1, then the bounds; x itself for wrong answers.

    loss: one of the task's, None for its first. Raises BadInput for an unknown loss.
    """
    x = problem.x
    with attacking(problem.model):
        _, output, grad = gradient(problem.model, loss_named(loss, problem.task), x, problem.target)
        if problem.norm == "l1":
            grad = possible(grad, x, problem.bounds)
        moved = x + beside(problem.eps, x) * step_direction(grad, problem.norm)
        wrong = beside(problem.failed(output, problem.target), x)
        return torch.where(wrong, x, clip(moved, problem.bounds))


def pgd(
    problem: Problem,
    *,
    loss: str | None = None,
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    early: bool = True,
) -> Tensor:
    """x' (like x) after `steps` steps of length step_size (None: 2.5 eps / steps) up the loss, from `restarts` starts:
    where they do not change the answer, that of the largest loss.

    loss: one of the task's, None for its first. The first start is near x or anywhere in the ball (`START`), or x
    itself where the problem says so; restarts are anywhere in the ball. Of a score that is an error, the first run is
    two: from x, and from the outward start, and the worst x' on the way counts.
    early: a sample is let go at the first iterate that is answered wrongly, and wrong ones stay x. That changes no
    other sample (but for the rounding of sums in a shorter batch) and no answer's being wrong. False, for training:
    every sample takes all steps of one run and ends where the last one leads.
    Warns where steps * step_size < 2 eps, too short a travel to reach all of the ball. Raises BadInput for an unknown
    loss, or for steps or restarts < 1.
    """
    if min(steps, restarts) < 1:
        raise BadInput(f"steps={steps}, restarts={restarts}: expected at least 1 of each")
    short = short_travel(float(problem.eps.max()) if len(problem.x) else 0.0, steps, step_size)
    if short:
        warnings.warn(short, stacklevel=2)
    wanted = loss_named(loss, problem.task)
    run = functools.partial(_run, loss=wanted, steps=steps, step_size=step_size, early=early)
    here = functools.partial(Problem.start, share=0.0)
    first = here if problem.from_x else functools.partial(Problem.start, share=START[problem.norm])
    starts: list[Start] = [first]
    if problem.endless:
        starts = [here, functools.partial(Problem.outward_start, loss=wanted)]
    starts += [functools.partial(Problem.start, share=1.0)] * (restarts - 1)
    with attacking(problem.model):
        if not early and len(problem.x):
            return run(problem, start=first)[0]
        return in_turn(problem, [functools.partial(run, start=start) for start in starts])


def short_travel(eps: float, steps: int, step_size: float | None) -> str | None:
    """Why so many steps of that length are too few, in one line, or None."""
    if step_size is None or steps * step_size * ROUNDING >= 2 * eps:
        return None
    return (
        f"step_size={step_size:g}: {steps} steps travel {steps * step_size:g}, less than the ball's width {2 * eps:g}"
    )


def _run(
    problem: Problem, *, loss: AttackLoss, steps: int, step_size: float | None, early: bool, start: Start
) -> tuple[Tensor, Tensor, Tensor]:
    """One run from one start, an `Attempt`."""
    target, region, endless = problem.target, problem.region, problem.endless and early
    moved = start(problem)
    size = beside(TRAVEL * problem.eps / steps if step_size is None else torch.full_like(problem.eps, step_size), moved)
    result, fell = torch.empty_like(moved), torch.zeros_like(problem.eps, dtype=torch.bool)
    values = torch.full_like(problem.eps, -math.inf)
    rows = torch.arange(len(target), device=target.device)
    for _ in range(steps):
        found, output, grad = gradient(problem.model, loss, moved, target)
        if endless:
            _keep_worst(result, values, moved, found)
        gone = problem.failed(output, target) if early else fell
        if early and bool(gone.any()):
            result[rows[gone]], fell[rows[gone]] = moved[gone], True
            keep = ~gone
            region = region.of(keep)
            rows, target, size, moved, grad = (each[keep] for each in (rows, target, size, moved, grad))
            if not len(rows):
                return result, fell, values
        if problem.norm == "l1":
            grad = possible(grad, moved, problem.bounds)
        moved = region.back(moved.addcmul_(step_direction(grad, problem.norm), size))
    output = problem.model(moved)
    if endless:
        _keep_worst(result, values, moved, loss(output, target))
        return result, fell, values
    result[rows], fell[rows], values[rows] = moved, problem.failed(output, target), loss(output, target).to(values)
    return result, fell, values


def _keep_worst(result: Tensor, values: Tensor, moved: Tensor, found: Tensor) -> None:
    """Puts x' whose loss is the largest so far into result, and the loss into values (B,)."""
    worse = found > values
    result.copy_(torch.where(beside(worse, moved), moved, result))
    values.copy_(torch.where(worse, found.to(values), values))


class FGSM(Attack):
    """One gradient step up the first loss of the task."""

    def __init__(self, eps: float | Sequence[float], norm: str = "linf", suite: str = "attacks") -> None:
        super().__init__("fgsm", eps, norm, suite)

    def find(self, problem: Problem) -> Tensor:
        return fgsm(problem)


class PGD(Climber):
    """Projected gradient descent. step_size: in data units, None for 2.5 eps / steps."""

    steps: int
    restarts: int

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "linf",
        loss: str | None = None,
        steps: int = 40,
        step_size: float | None = None,
        restarts: int = 1,
        suite: str = "attacks",
    ) -> None:
        super().__init__("pgd", loss, eps, norm, suite, steps=steps, restarts=restarts)
        number = isinstance(step_size, int | float) and not isinstance(step_size, bool)
        if step_size is not None and not (number and 0 < step_size < math.inf):
            raise BadInput(f"step_size={step_size}: expected a number above 0, or null for {TRAVEL} eps / steps")
        self.step_size = step_size
        if norm == "linf":  # rows of the time when it began near x are of another evaluation
            self.start = START[norm]
        if short := short_travel(max(self.severities), steps, step_size):
            raise BadInput(f"{short}; set a larger one, or none")

    def find(self, problem: Problem) -> Tensor:
        return pgd(problem, loss=self.wanted, steps=self.steps, step_size=self.step_size, restarts=self.restarts)

"""Projected gradient descent: small steps, each brought back into ball and bounds. Source: Madry et al., ICLR 2018."""

from __future__ import annotations

import functools
import math
import warnings

import torch
from torch import Tensor

from robode.attacks.balls import beside, possible, step_direction
from robode.attacks.losses import Loss, loss_named
from robode.attacks.problem import NEAR, Model, Problem, attacking, gradient, in_turn, pose
from robode.corruptions.noise import Draws
from robode.corruptions.perturbation import Bounds
from robode.errors import BadInput
from robode.tasks.task import Task

TRAVEL = 2.5
"""Steps times step size over eps, where no step size is given: enough to cross the ball, 2 eps wide, and turn."""

START = {"linf": 1.0, "l2": NEAR, "l1": NEAR}
"""Share of eps within which the first start lies. Of 500 digits, a small CNN and 40 steps, linf left 217 to 218 from
anywhere and 219 from near x; l2 left 190 to 193 from anywhere and 188 from near x, where the gradient is the best."""

ROUNDING = 1 + 1e-6
"""Of eps in float32."""


def pgd(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    loss: str | None = None,
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    bounds: Bounds | None = None,
    draws: Draws | None = None,
    early: bool = True,
    near: float | None = None,
    task: Task | None = None,
) -> Tensor:
    """x' (like x) after `steps` steps of length step_size (None: 2.5 eps / steps) up the loss, from `restarts` starts:
    where they do not change the answer, that of the largest loss.

    x: (B, *shape) in data units; labels: (B, ...) of the task, None for classification; loss: one of the task's, None
    for its first; eps: in data units, a number or (B,).
    draws: of these samples, for the random starts; without them the first start is x itself. near: the share of eps
    within which the first start lies, None for that of `START`; restarts are anywhere in the ball.
    early: a sample is let go at the first iterate that is answered wrongly, and wrong ones stay x. That changes no
    other sample (but for the rounding of sums in a shorter batch) and no answer's being wrong. False, for training:
    every sample takes all steps of one run and ends where the last one leads.
    Warns where steps * step_size < 2 eps, too short a travel to reach all of the ball. Raises BadInput for an unknown
    norm or loss, or for steps or restarts < 1.
    """
    if min(steps, restarts) < 1:
        raise BadInput(f"steps={steps}, restarts={restarts}: expected at least 1 of each")
    problem = pose(model, x, labels, eps=eps, norm=norm, bounds=bounds, draws=draws, task=task)
    reach = short_travel(float(problem.eps.max()) if len(x) else 0.0, steps, step_size)
    if reach:
        warnings.warn(reach, stacklevel=2)
    endless = task is not None and task.better == "lower"  # nothing ever fails: the worst x' on the way counts
    climb = loss_named(loss, task)
    run = functools.partial(_run, loss=climb, steps=steps, step_size=step_size, early=early, endless=endless)
    near = START[norm] if near is None else near
    first = functools.partial(run, share=0.0 if draws is None else near)
    with attacking(model):
        if not early and len(x):
            return first(problem)[0]
        return in_turn(problem, [first] + [functools.partial(run, share=1.0)] * (restarts - 1))


def short_travel(eps: float, steps: int, step_size: float | None) -> str | None:
    """Why so many steps of that length are too few, in one line, or None."""
    if step_size is None or steps * step_size * ROUNDING >= 2 * eps:
        return None
    return (
        f"step_size={step_size:g}: {steps} steps travel {steps * step_size:g}, less than the ball's width {2 * eps:g}"
    )


def _run(
    problem: Problem, *, loss: Loss, steps: int, step_size: float | None, early: bool, endless: bool, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One run from one start, an `Attempt`."""
    labels, region = problem.labels, problem.region
    moved = problem.start(share)
    size = beside(TRAVEL * problem.eps / steps if step_size is None else torch.full_like(problem.eps, step_size), moved)
    result, fell = torch.empty_like(moved), torch.zeros_like(problem.eps, dtype=torch.bool)
    values = torch.full_like(problem.eps, -math.inf)
    rows = torch.arange(len(labels), device=labels.device)
    for _ in range(steps):
        found, logits, grad = gradient(problem.model, loss, moved, labels)
        if endless:
            _keep_worst(result, values, moved, found)
        gone = problem.failed(logits, labels) if early else fell
        if early and bool(gone.any()):
            result[rows[gone]], fell[rows[gone]] = moved[gone], True
            keep = ~gone
            region, (rows, labels, size, moved, grad) = (
                region.of(keep),
                (each[keep] for each in (rows, labels, size, moved, grad)),
            )
            if not len(rows):
                return result, fell, values
        if problem.norm == "l1":
            grad = possible(grad, moved, problem.bounds)
        moved = region.back(moved.addcmul_(step_direction(grad, problem.norm), size))
    logits = problem.model(moved)
    if endless:
        _keep_worst(result, values, moved, loss(logits, labels))
        return result, fell, values
    result[rows], fell[rows], values[rows] = moved, problem.failed(logits, labels), loss(logits, labels).to(values)
    return result, fell, values


def _keep_worst(result: Tensor, values: Tensor, moved: Tensor, found: Tensor) -> None:
    """Puts x' whose loss is the largest so far into result, and the loss into values (B,)."""
    worse = found > values
    result.copy_(torch.where(beside(worse, moved), moved, result))
    values.copy_(torch.where(worse, found.to(values), values))

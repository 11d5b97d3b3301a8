"""Square attack: random squares (images) or random steps (vectors), kept where they help. It sees logits only.

Source: Andriushchenko, Croce, Flammarion, Hein, "Square Attack", ECCV 2020.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from robode.attacks.losses import Loss, loss_named, margin
from robode.attacks.problem import Model, Problem, attacking, in_turn, pose
from robode.attacks.square_moves import moves_for
from robode.corruptions.noise import Draws
from robode.corruptions.perturbation import Bounds
from robode.errors import BadInput
from robode.tasks.task import Task

FIRST = 0.8
"""Share of the image that the first squares cover."""
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10 000, after which that share is halved."""


def square(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    queries: int = 1000,
    bounds: Bounds | None = None,
    draws: Draws | None = None,
    task: Task | None = None,
) -> Tensor:
    """x' (like x) of the largest margin that `queries` random changes found, the first wrong answer if there is one; of
    a task without a margin, of the largest first loss.

    x: (B, *shape) in data units, images (C, H, W) or vectors (d,); labels: (B, ...) of the task, None for
    classification; eps: in data units, a number or (B,);
    norm: linf or l2; queries: forward passes of one sample. No gradients. A sample is let go at its first wrong
    answer, and wrong ones stay x, which changes no other sample. Raises BadInput for another norm, or queries < 1.
    """
    if queries < 1:
        raise BadInput(f"queries={queries}: expected at least 1")
    norms = ("linf", "l2")
    problem = pose(model, x, labels, eps=eps, norm=norm, bounds=bounds, draws=draws, norms=norms, task=task)
    loss = margin if task is None else task.attack_losses.get("margin", loss_named(None, task))
    with attacking(model):
        return in_turn(problem, [functools.partial(_search, loss=loss, queries=queries)])


def share(query: int, queries: int) -> float:
    """Of the image, that the squares of a query cover."""
    return FIRST / 2 ** sum(query * 10_000 // queries > limit for limit in HALVED_AT)


def _search(problem: Problem, *, loss: Loss, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """An `Attempt`."""
    start, change = moves_for(problem.x, problem.norm)
    region, labels, draws = problem.region, problem.labels, problem.draws
    result, fell = problem.x.clone(), torch.zeros_like(problem.eps, dtype=torch.bool)
    rows = torch.arange(len(labels), device=labels.device)
    values = torch.full_like(problem.eps, -math.inf)
    best, best_value = problem.x.clone(), values.clone()
    for query in range(queries):
        moved = change(region, best, draws, share(query, queries)) if query else start(region, draws)
        logits = problem.model(region.back(moved))
        value, gone = loss(logits, labels), problem.failed(logits, labels)
        better = value > best_value
        best[better], best_value[better] = moved[better], value[better]
        if bool(gone.any()):
            result[rows[gone]], fell[rows[gone]] = moved[gone], True
            keep = ~gone
            region, draws = region.of(keep), draws.of(keep)
            rows, labels, best, best_value = rows[keep], labels[keep], best[keep], best_value[keep]
            if not len(rows):
                return result, fell, values
    result[rows], values[rows] = best, best_value
    return result, fell, values

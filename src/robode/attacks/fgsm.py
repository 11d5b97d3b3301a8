"""The fast gradient (sign) method: one step. Source: Goodfellow, Shlens, Szegedy, ICLR 2015."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.attacks.balls import beside, inside, possible, step_direction
from robode.attacks.losses import loss_named
from robode.attacks.problem import Model, attacking, gradient, pose
from robode.corruptions.perturbation import Bounds
from robode.tasks.task import Task


def fgsm(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    loss: str | None = None,
    bounds: Bounds | None = None,
    task: Task | None = None,
) -> Tensor:
    """x' = x + eps times the steepest direction of norm 1, then the bounds; x itself for wrong answers.

    x: (B, *shape) in data units; labels: (B, ...) of the task, None for classification; loss: one of the task's, None
    for its first; eps: in data units, a number or (B,); returns x' like x.
    Raises BadInput for an unknown norm or loss.
    """
    problem = pose(model, x, labels, eps=eps, norm=norm, bounds=bounds, draws=None, task=task)
    with attacking(model):
        _, logits, grad = gradient(model, loss_named(loss, task), problem.x, problem.labels)
        if norm == "l1":
            grad = possible(grad, problem.x, bounds)
        moved = problem.x + beside(problem.eps, x) * step_direction(grad, norm)
        wrong = beside(problem.failed(logits, problem.labels), x)
        return torch.where(wrong, problem.x, inside(moved, bounds))

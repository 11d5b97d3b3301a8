"""robode's standard attack: four that fail for different reasons, each on what the others have left.

The plan of AutoAttack (Croce and Hein, ICML 2020) without its fourth member FAB, for any number of classes and for data
without bounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from robode.attacks.apgd import apgd
from robode.attacks.losses import fallen, margin
from robode.attacks.problem import Attempt, Model, Problem, attacking, in_turn, pose
from robode.attacks.square import square
from robode.corruptions.noise import Draws
from robode.corruptions.perturbation import Bounds


def ensemble(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    steps: int = 100,
    targets: int = 9,
    queries: int = 1000,
    bounds: Bounds | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """x' (like x) of APGD-CE, APGD-DLR, targeted APGD-DLR and Square, each only on what is still answered correctly.

    Where none of them changes the answer, the x' of the largest margin. With fewer than 4 classes the margin takes the
    place of DLR. x: (B, *shape) in data units; labels: (B,); eps: in data units, a number or (B,); norm: linf or l2;
    targets: at most, of the best other classes; steps: of each APGD.
    """
    problem = pose(model, x, labels, eps=eps, norm=norm, bounds=bounds, draws=draws, norms=("linf", "l2"))
    with attacking(model):
        many = len(x) > 0 and model(problem.x[:1]).shape[1] >= 4
        loss = "dlr" if many else "margin"
        attempts = [
            _attempt(apgd, loss="ce", steps=steps),
            _attempt(apgd, loss=loss, steps=steps),
            _attempt(apgd, loss=loss, steps=steps, targets=targets),
            _attempt(square, queries=queries),
        ]
        return in_turn(problem, attempts)


def _attempt(attack: Callable[..., Tensor], **settings: Any) -> Attempt:
    return functools.partial(_try, attack=attack, settings=settings)


def _try(problem: Problem, *, attack: Callable[..., Tensor], settings: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    moved = attack(
        problem.model, problem.x, problem.labels, eps=problem.eps, norm=problem.norm, bounds=problem.bounds,
        draws=problem.draws, **settings,
    )  # fmt: skip
    logits = problem.model(moved)
    return moved, fallen(logits, problem.labels), margin(logits, problem.labels)

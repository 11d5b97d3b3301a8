"""Auto-PGD: gradient steps with momentum that choose their own length, for the cross entropy, the margin and DLR.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, Algorithm 1 and sections 3 and 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robode.attacks.balls import Region, beside, step_direction
from robode.attacks.losses import Loss, dlr_targeted, loss_named, margin_targeted
from robode.attacks.problem import NEAR, Attempt, Model, Problem, attacking, gradient, in_turn, pose
from robode.corruptions.noise import Draws
from robode.corruptions.perturbation import Bounds
from robode.errors import BadInput
from robode.tasks.task import Task

Aimed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, targets) -> (B,); an attack without targets ignores them."""

MOMENTUM = 0.75
"""Weight of the new step beside the last one."""
RISES = 0.75
"""Share of the steps between two checkpoints that must gain, or the step is halved."""


def apgd(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    loss: str | None = None,
    steps: int = 100,
    restarts: int = 1,
    bounds: Bounds | None = None,
    draws: Draws | None = None,
    targets: int = 0,
    task: Task | None = None,
) -> Tensor:
    """x' (like x): where it is answered wrongly the first such iterate, elsewhere the iterate of the largest loss.

    x: (B, *shape) in data units; labels: (B, ...) of the task, None for classification; loss: one of the task's, None
    for its first; eps: in data units, a number or (B,); norm: linf or l2.
    targets: run towards each of so many of the best other classes instead, with the targeted DLR for loss=dlr and
    z_t - z_y otherwise or for fewer than 4 classes; as many as there are, where there are fewer.
    draws: of these samples, for the random starts. With them the first run (of each target) is split: a quarter of the
    steps from near x, the rest, for what is left, from anywhere in the ball, where restarts begin too. Without them it
    begins at x. Of 1000 blobs (10 classes, l2) DLR then changed 633, with all steps from anywhere 568.

    A sample is let go at its first wrong answer, and wrong ones stay x. That changes no other sample (but for the
    rounding of sums in a shorter batch) and no answer's being wrong.
    Raises BadInput for an unknown norm or loss, for dlr with fewer than 3 classes, and for steps or restarts < 1.
    """
    if steps < 1 or restarts < 1 or targets < 0:
        raise BadInput(f"steps={steps}, restarts={restarts}, targets={targets}: expected at least 1, 1 and 0")
    norms, plain = ("linf", "l2"), loss_named(loss, task)
    problem = pose(model, x, labels, eps=eps, norm=norm, bounds=bounds, draws=draws, norms=norms, task=task)
    runs: list[Attempt] = []
    for target in range(1, targets + 1) if targets else [0]:
        run = functools.partial(_run, plain=plain, dlr=loss == "dlr", target=target)
        first = [(steps, 0.0)] if draws is None else [(steps // 4, NEAR), (steps - steps // 4, 1.0)]
        starts = first + [(steps, 1.0)] * (restarts - 1)
        runs += [functools.partial(run, steps=count, share=share) for count, share in starts if count]
    with attacking(model):
        return in_turn(problem, runs)


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step length is judged: at 22 % of all, then at shorter and shorter distances."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({math.ceil(share * steps - 1e-9) for share in shares[1:] if share <= 1})


@dataclass
class _State:
    """Everything that belongs to the samples still under attack, (B, …) each."""

    rows: Tensor
    labels: Tensor
    targets: Tensor
    moved: Tensor
    before: Tensor  # the iterate before `moved`
    grad: Tensor  # of the loss at `moved`
    value: Tensor  # the loss there, (B,)
    size: Tensor  # step length, (B,)
    best: Tensor  # the iterate of the largest loss, its gradient and its loss
    best_grad: Tensor
    best_value: Tensor
    rises: Tensor  # steps since the last checkpoint that gained, (B,)
    halved: Tensor  # at the last checkpoint, (B,) bool
    at_check: Tensor  # best_value at the last checkpoint

    def of(self, keep: Tensor) -> _State:
        """Without the others. keep: (B,) bool."""
        return _State(*(getattr(self, field.name)[keep] for field in fields(self)))

    def arrive(self, moved: Tensor, value: Tensor, grad: Tensor) -> None:
        """One step further, and the best so far."""
        self.rises += value > self.value
        self.before, self.moved, self.value, self.grad = self.moved, moved, value, grad
        better = value > self.best_value
        self.best[better], self.best_grad[better], self.best_value[better] = moved[better], grad[better], value[better]

    def check(self, length: int) -> None:
        """At a checkpoint, `length` steps after the last: halve the step and return to the best where that is due.

        Due where too few steps gained, or where the step was kept at the last checkpoint and the best is the same.
        """
        due = (self.rises < RISES * length) | ~self.halved & (self.best_value <= self.at_check)
        self.size = torch.where(due, self.size / 2, self.size)
        wide = beside(due, self.moved)
        self.moved = torch.where(wide, self.best, self.moved)
        self.grad = torch.where(wide, self.best_grad, self.grad)
        self.value = torch.where(due, self.best_value, self.value)
        self.halved, self.at_check, self.rises = due, self.best_value.clone(), torch.zeros_like(self.rises)


def _run(
    problem: Problem, *, plain: Loss, dlr: bool, steps: int, target: int, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One run, an `Attempt`. target: the rank of the class to run towards, by DLR or its margin; 0 for none, which
    climbs the plain loss; share: of eps, to start in."""
    region, norm = problem.region, problem.norm
    moved = problem.start(share)
    aimed, targets = _aim(problem, plain, dlr, target)
    fell, values = torch.zeros_like(problem.eps, dtype=torch.bool), torch.full_like(problem.eps, -math.inf)
    if targets is None:
        return problem.x, fell, values
    result = torch.empty_like(moved)
    state, judged = _begin(problem, moved, targets), 0
    due = checkpoints(steps)
    for step in range(steps + 1):
        if step:
            moved = _step(state, region, norm, first=step == 1)
        value, logits, grad = gradient(problem.model, functools.partial(_at, aimed, state), moved, state.labels)
        gone = problem.failed(logits, state.labels)
        state.arrive(moved, value, grad)
        if bool(gone.any()):
            result[state.rows[gone]], fell[state.rows[gone]] = moved[gone], True
            state, region = state.of(~gone), region.of(~gone)
            if not len(state.rows):
                return result, fell, values
        if step in due and step < steps:
            state.check(step - judged)
            judged = step
    result[state.rows], values[state.rows] = state.best, state.best_value
    return result, fell, values


def _begin(problem: Problem, moved: Tensor, targets: Tensor) -> _State:
    """Before the first gradient: any loss will be the best, and none a rise."""
    labels, rows = problem.labels, torch.arange(len(problem.eps), device=problem.eps.device)
    worst, none = torch.full_like(problem.eps, -math.inf), torch.zeros_like(moved)
    return _State(
        rows=rows, labels=labels, targets=targets, moved=moved, before=moved,
        grad=none, value=-worst, size=2 * problem.eps, best=moved.clone(), best_grad=none.clone(), best_value=worst,
        rises=torch.zeros_like(rows), halved=torch.ones_like(rows, dtype=torch.bool), at_check=worst.clone(),
    )  # fmt: skip


def _step(state: _State, region: Region, norm: str, first: bool) -> Tensor:
    """The next iterate: a step of the present length, averaged with the last step unless it is the first."""
    moved = region.back(torch.addcmul(state.moved, step_direction(state.grad, norm), beside(state.size, state.moved)))
    if first:
        return moved
    moved = torch.lerp(state.moved, moved, MOMENTUM)
    return region.back(moved.add_(state.moved, alpha=1 - MOMENTUM).sub_(state.before, alpha=1 - MOMENTUM))


def _at(aimed: Aimed, state: _State, logits: Tensor, labels: Tensor) -> Tensor:
    return aimed(logits, labels, state.targets)


def _aim(problem: Problem, plain: Loss, dlr: bool, target: int) -> tuple[Aimed, Tensor | None]:
    """What to climb, and towards which class of each sample, (B,); None where there is no class of that rank."""
    if not target:
        return lambda logits, labels, targets: plain(logits, labels), problem.labels
    logits = problem.model(problem.x)
    if target >= logits.shape[1]:
        return margin_targeted, None
    ranked = logits.scatter(1, problem.labels[:, None], -math.inf).argsort(dim=1, descending=True)
    wanted = dlr_targeted if dlr and logits.shape[1] >= 4 else margin_targeted
    return wanted, ranked[:, target - 1]

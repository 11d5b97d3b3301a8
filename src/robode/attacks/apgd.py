"""Auto-PGD: gradient steps with momentum that choose their own length, for the cross entropy, the margin and DLR.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, Algorithm 1 and sections 3 and 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robode.attacks.attack import Climber
from robode.attacks.balls import SMOOTH, Region, beside, check_norm, step_direction
from robode.attacks.problem import NEAR, Attempt, Problem, Start, attacking, gradient, in_turn, loss_named
from robode.config.levels import check_count
from robode.errors import BadInput
from robode.tasks.classification import dlr_targeted, margin_targeted
from robode.tasks.task import AttackLoss

Aimed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(output, target, goal) -> (B,): what to climb; goal: the class to run towards, ignored by losses without one."""

MOMENTUM = 0.75
"""Weight of the new step beside the last one."""
RISES = 0.75
"""Share of the steps between two checkpoints that must gain, or the step is halved."""


def apgd(problem: Problem, *, loss: str | None = None, steps: int = 100, restarts: int = 1, targets: int = 0) -> Tensor:
    """x' (like x): where it is answered wrongly the first such iterate, elsewhere the iterate of the largest loss.

    problem: with norm linf or l2. loss: one of the task's, None for its first.
    targets: run towards each of so many of the best other classes instead, with the targeted DLR for loss=dlr and
    z_t - z_y otherwise or for fewer than 4 classes; as many as there are, where there are fewer.
    The first run (of each target) is split: a quarter of the steps from near x, the rest, for what is left, from
    anywhere in the ball, where restarts begin too; of a score that is an error, from the outward start. A problem from
    x begins there, with all steps. Of 1000 blobs (10 classes, l2) DLR changed 633, with all steps from anywhere 568.

    A sample is let go at its first wrong answer, and wrong ones stay x. That changes no other sample (but for the
    rounding of sums in a shorter batch) and no answer's being wrong.
    Raises BadInput for another norm or loss, for dlr with fewer than 3 classes, and for steps or restarts < 1.
    """
    if steps < 1 or restarts < 1 or targets < 0:
        raise BadInput(f"steps={steps}, restarts={restarts}, targets={targets}: expected at least 1, 1 and 0")
    check_norm(problem.norm, SMOOTH)
    plain = loss_named(loss, problem.task)
    anywhere = functools.partial(Problem.start, share=1.0)
    far = functools.partial(Problem.outward_start, loss=plain) if problem.endless else anywhere
    first: list[tuple[int, Start]] = [(steps // 4, functools.partial(Problem.start, share=NEAR))]
    first = [*first, (steps - steps // 4, far)]
    if problem.from_x:
        first = [(steps, functools.partial(Problem.start, share=0.0))]
    runs: list[Attempt] = []
    for rank in range(1, targets + 1) if targets else [0]:
        run = functools.partial(_run, plain=plain, dlr=loss == "dlr", rank=rank)
        starts = first + [(steps, anywhere)] * (restarts - 1)
        runs += [functools.partial(run, steps=count, start=start) for count, start in starts if count]
    with attacking(problem.model):
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
    target: Tensor
    goal: Tensor
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
    problem: Problem, *, plain: AttackLoss, dlr: bool, rank: int, steps: int, start: Start
) -> tuple[Tensor, Tensor, Tensor]:
    """One run, an `Attempt`. rank: of the class to run towards, by DLR or its margin; 0 for none, which climbs the
    plain loss."""
    region, norm = problem.region, problem.norm
    moved = start(problem)
    aimed, goal = _aim(problem, plain, dlr, rank)
    fell, values = torch.zeros_like(problem.eps, dtype=torch.bool), torch.full_like(problem.eps, -math.inf)
    if goal is None:
        return problem.x, fell, values
    result = torch.empty_like(moved)
    state, judged = _begin(problem, moved, goal), 0
    due = checkpoints(steps)
    for step in range(steps + 1):
        if step:
            moved = _step(state, region, norm, first=step == 1)
        value, output, grad = gradient(problem.model, functools.partial(_at, aimed, state), moved, state.target)
        gone = problem.failed(output, state.target)
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


def _begin(problem: Problem, moved: Tensor, goal: Tensor) -> _State:
    """Before the first gradient: any loss will be the best, and none a rise."""
    target, rows = problem.target, torch.arange(len(problem.eps), device=problem.eps.device)
    worst, none = torch.full_like(problem.eps, -math.inf), torch.zeros_like(moved)
    return _State(
        rows=rows, target=target, goal=goal, moved=moved, before=moved,
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


def _at(aimed: Aimed, state: _State, output: Tensor, target: Tensor) -> Tensor:
    return aimed(output, target, state.goal)


def _aim(problem: Problem, plain: AttackLoss, dlr: bool, rank: int) -> tuple[Aimed, Tensor | None]:
    """What to climb, and towards which class of each sample, (B,); None where there is no class of that rank."""
    if not rank:
        return lambda output, target, goal: plain(output, target), problem.target
    logits = problem.model(problem.x)
    if rank >= logits.shape[1]:
        return margin_targeted, None
    ranked = logits.scatter(1, problem.target[:, None], -math.inf).argsort(dim=1, descending=True)
    wanted = dlr_targeted if dlr and logits.shape[1] >= 4 else margin_targeted
    return wanted, ranked[:, rank - 1]


class APGD(Climber):
    """Auto-PGD. targets: run towards each of so many other classes; 0 for the loss alone."""

    norms = SMOOTH
    steps: int
    restarts: int

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "linf",
        loss: str | None = None,
        steps: int = 100,
        restarts: int = 1,
        targets: int = 0,
        suite: str = "attacks",
    ) -> None:
        check_count("targets", targets, least=0)
        super().__init__("apgd", loss, eps, norm, suite, steps=steps, restarts=restarts)
        if targets:
            self.name = self.name.removesuffix(f"_{norm}") + f"_targeted_{norm}"
        self.targets = targets

    @property
    def needs_classes(self) -> bool:  # type: ignore[override]
        """With targets only: they are classes."""
        return self.targets > 0

    def find(self, problem: Problem) -> Tensor:
        return apgd(problem, loss=self.wanted, steps=self.steps, restarts=self.restarts, targets=self.targets)

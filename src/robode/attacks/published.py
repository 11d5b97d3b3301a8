"""PGD as a paper ran it, beside PGD as the paper describes it: where the two differ, both are measured.

Source: Jimenez Rodriguez, Ames, Yue, "LyaNet: a Lyapunov framework for training neural ODEs", ICML 2022, section 6 (the
text: PGD, 10 steps), and the released script, which calls PGD and PGDL2 of torchattacks 3.2.6.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robode.attacks.attack import FIRST, Attack
from robode.attacks.balls import SMOOTH, beside, length
from robode.attacks.pgd import pgd, short_travel
from robode.attacks.problem import Problem, attacking, gradient, loss_named
from robode.config.levels import one_level
from robode.corruptions.perturbation import Batch, Bounds
from robode.errors import BadInput
from robode.tasks.task import Task

VARIANTS = ("script", "text")

BATCH = 1028
"""Images a batch of the script, which climbs the mean of their losses."""

DIVISION = 1e-10
"""What torchattacks adds to the 2-norm of the gradient of that mean: a sample whose gradient is far smaller stays."""


def script_pgd(problem: Problem, *, steps: int = 10, step_size: float = 2 / 255) -> Tensor:
    """x' like problem.x (B, *shape) after all steps, in problem.bounds: clip(x + change), with a change of norm eps at
    most, so within eps of clip(x), which is x itself only where x keeps the bounds.

    linf: from anywhere in the ball, steps along the sign of the gradient. l2: from x itself, unclipped (until version
    3.3.0 PGDL2 draws a start and does not use it), steps along the gradient over its norm. Where x lies farther than
    eps from the bounds, each projection multiplies the last step by rho = eps / (distance - step_size) < 1 at most, and
    x' is clip(x) up to step_size * (rho / (1 - rho) + rho^(steps - 1)) in the 2-norm: hardly attacked.
    Every sample is attacked, those that are answered wrongly too, and ends where the last step leads.
    """
    loss, region = loss_named(FIRST, problem.task), problem.region
    moved = problem.start(1.0) if problem.norm == "linf" else problem.x.clone()
    for _ in range(steps):
        grad = gradient(problem.model, loss, moved, problem.target)[2]
        if problem.norm == "linf":
            direction = grad.sign()
        else:
            direction = grad / beside(length(grad, "l2") + BATCH * DIVISION, grad)
        moved = region.back(moved.add_(direction, alpha=step_size))
    return moved


class PublishedPGD(Attack):
    """PGD on the cross-entropy within one eps, from one start, with steps that are not fitted to eps.

    variant: text, as it is described: in data units, within their bounds, with robode's `pgd`. script, as it was run:
    `script_pgd` in the space of the protocol, with the protocol's clip, where eps and step_size are too; what counts is
    the answer at x' alone, whatever it was at x. Under protocol=lyanet_2022 the clip moves an image much farther than
    eps, so the rows of the script have a unit of their own: no statement about a ball around x in data units
    (certificates, the order of attacks, verdicts) is about them.
    """

    norms = SMOOTH
    needs_classes = True
    steps: int

    def __init__(
        self,
        eps: float | str = 8 / 255,
        norm: str = "linf",
        variant: str = "script",
        steps: int = 10,
        step_size: float = 2 / 255,
        suite: str = "attacks",
    ) -> None:
        if variant not in VARIANTS:
            raise BadInput(f"variant={variant}: expected one of {', '.join(VARIANTS)}")
        super().__init__(f"pgd_{variant}", one_level("eps", eps), norm, suite, steps=steps)
        self.variant, self.step_size = variant, one_level("step_size", step_size)
        if not self.step_size:
            raise BadInput(f"step_size={step_size}: expected a number above 0")
        self.in_data_units = variant == "text"
        if variant == "script":
            self.severity_unit = "eps_of_script"

    def refusal(self, bounds: Bounds | None) -> str | None:
        if bounds is None and not self.in_data_units:
            return "variant=script speaks of images only, whose bounds it clips to; variant=text needs none"
        return None

    def warning(self, bounds: Bounds | None) -> str | None:
        """Too short a travel is part of what was published, and to be known."""
        return super().warning(bounds) or short_travel(self.severities[0], self.steps, self.step_size)

    def find(self, problem: Problem) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a short travel: `warning` says so once
            return pgd(problem, loss=FIRST, steps=self.steps, step_size=self.step_size)

    @torch.no_grad()
    def climb(
        self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if self.in_data_units:
            yield from super().climb(network, task, batch, levels)
            return

        def inside(x: Tensor) -> Tensor:
            """The outputs at x in the protocol's space."""
            output: Tensor = network(batch.decode(x))
            return output

        for eps in levels:
            with attacking(network):
                problem = self.problem(inside, task, batch, eps)
                moved = script_pgd(problem, steps=self.steps, step_size=self.step_size)
            yield moved, task.score(inside(moved), batch.targets)

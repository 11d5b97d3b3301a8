"""An attack as an entry of a suite: it goes from small eps to large and keeps what has failed."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from robode.attacks.balls import INSIDE, NORMS, beside, check_norm
from robode.attacks.problem import Model, Problem, loss_named, make_problem
from robode.certificates.radius import Certified
from robode.config.levels import UPPER, check_count, noise_levels
from robode.corruptions.perturbation import Batch, Bounds, Curve, Perturbation, Scoring
from robode.errors import BadInput
from robode.tasks.task import Task

FIRST = "ce"


class Attack(Perturbation):
    """An attack within eps, one or more, in data units. The eps are taken from small to large: what has failed at a
    smaller one of the list is kept, and so is what was worse there, so that the curve cannot get better. Each eps gets
    the same random numbers.

    norms: those that it knows. counts: settings that are whole numbers above 0. What is wrong with a setting is said
    by its name alone; who builds a suite knows the entry's key.
    """

    severity_unit = "eps"
    in_data_units = True
    attacks = True
    norms: tuple[str, ...] = NORMS

    def __init__(self, name: str, eps: float | Sequence[float], norm: str, suite: str, **counts: int) -> None:
        check_norm(norm, self.norms)
        self.name, self.norm = f"{name}_{norm}", norm
        super().__init__(suite, tuple(sorted(noise_levels("eps", eps, UPPER["eps"]))))
        for what, count in counts.items():
            check_count(what, count)
            setattr(self, what, count)
        self._proof: Certified | None = None

    def warning(self, bounds: Bounds | None) -> str | None:
        """Radii in units of 0 to 255 are the usual mistake."""
        largest = max(self.severities)
        if bounds is None or self.norm != "linf" or largest < bounds[1] - bounds[0]:
            return None
        return (
            f"eps={largest:g}: the data lie in [{bounds[0]:g}, {bounds[1]:g}], and every sample may become any other; "
            f"radii are in these units, for example eps=8/255"
        )

    def skip_certified(self) -> None:
        """From now on do not attack samples that are certified at eps: they cannot fail, and are left as they are.

        Raises:
            BadInput: a norm whose ball is not inside that of the 2-norm, which certificates are about.
        """
        if self.norm not in INSIDE:
            raise BadInput(f"skip_certified: expected norm {' or '.join(INSIDE)}, got {self.norm}")
        self._proof, self.skips_certified = Certified(list(self.severities)), True  # in the digest of the evaluation

    @abstractmethod
    def find(self, problem: Problem) -> Tensor:
        """x' like problem.x."""

    def prepare(self, network: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
        return None if self._proof is None else self._proof.prepare(network, shape)

    def perturbed(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Iterator[Tensor]:
        return (moved for moved, _ in self.climb(network, task, batch, levels))

    def scores(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Curve:
        scoring = Scoring(network, task, batch)
        for moved, score in self.climb(network, task, batch, levels):
            scoring.add(score, batch.decode(moved))
        return scoring.curve

    @torch.no_grad()
    def climb(
        self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """x' like batch.x and the score there (B,) for each level; those of the list between them are attacked too, so
        that a row does not depend on which others are asked for."""
        moved = batch.x.detach().clone()
        output = network(moved)
        worst = task.score(output, batch.targets)
        every = [eps for eps in sorted({*self.severities, *levels}) if eps <= max(levels)]
        skipped = self._skipped(network, task, batch, every)
        for place, eps in enumerate(every):
            correct = ~task.failed(output, batch.targets)
            left = torch.nonzero(correct if skipped is None else correct & ~skipped[place])[:, 0]
            if eps and len(left):
                found = moved.index_copy(0, left, self.find(self.problem(network, task, batch, eps).of(left)))
                output = network(found)
                score = task.score(output, batch.targets)
                kept = task.worse(worst, score) != score  # x' of a smaller eps was worse
                moved, worst = torch.where(beside(kept, found), moved, found), task.worse(worst, score)
            if eps in levels:
                yield moved, worst

    def problem(self, network: Model, task: Task, batch: Batch, eps: float) -> Problem:
        """What is to be solved within eps, from the beginning of the samples' random numbers."""
        return make_problem(
            network, batch.x, batch.targets, eps=eps, norm=self.norm, bounds=batch.bounds,
            rng=copy.deepcopy(batch.rng), task=task,
        )  # fmt: skip

    def _skipped(self, network: nn.Module, task: Task, batch: Batch, every: Sequence[float]) -> Tensor | None:
        """Who is certified within each eps, (E, B) bool; None where nobody is to be skipped."""
        if self._proof is None:
            return None
        if task.better != "higher":
            raise BadInput(f"{self.name}: skip_certified: expected a task whose scores can fall to a worst")
        return self._proof.scores(network, task, replace(batch, reference=None), every).scores != task.worst


class Climber(Attack):
    """An attack that climbs one of the task's losses: ce, margin or dlr in classification; None: the task's first.

    loss: its name in the digest of an evaluation, where None is ce, which the rows of classification have always been.
    """

    def __init__(
        self, name: str, loss: str | None, eps: float | Sequence[float], norm: str, suite: str, **counts: int
    ) -> None:
        if loss is not None and not isinstance(loss, str):
            raise BadInput(f"loss={loss}: expected the name of a loss, or null for the task's first")
        super().__init__(name if loss in (None, FIRST) else f"{name}_{loss}", eps, norm, suite, **counts)
        self.loss, self._default, self.least_classes = loss or FIRST, loss is None, 3 if loss == "dlr" else 2

    @property
    def wanted(self) -> str | None:
        """The loss that was asked for."""
        return None if self._default else self.loss

    def check(self, task: Task) -> None:
        loss_named(self.wanted, task)

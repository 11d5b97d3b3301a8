"""What all attacks of a suite have in common: they go from small eps to large and keep what has failed."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robode.attacks.balls import INSIDE, beside
from robode.certificates.radius import Certified
from robode.config.levels import UPPER, check_count, noise_levels
from robode.corruptions.perturbation import Batch, Curve, Perturbation, Scoring
from robode.errors import BadInput
from robode.tasks.task import Task


class Attack(Perturbation):
    """An attack within eps, one or more, in data units. The eps are taken from small to large: what has failed at a
    smaller one of the list is kept, and so is what was worse there, so that the curve cannot get better. Each eps gets
    the same random numbers.
    """

    severity_unit = "eps"
    in_data_units = True
    attacks = True

    def __init__(self, name: str, eps: float | Sequence[float], norm: str, suite: str, **counts: int) -> None:
        self.name, self.norm = f"{name}_{norm}", norm
        key = f"suite.{self.name}"
        super().__init__(suite, tuple(sorted(noise_levels(f"{key}.eps", eps, UPPER["eps"]))))
        for what, count in counts.items():
            check_count(f"{key}.{what}", count)
            setattr(self, what, count)
        self._proof: Certified | None = None

    def spare_certified(self) -> None:
        """From now on do not attack samples that are certified at eps: they cannot fall, and are left as they are.

        Raises:
            BadInput: a norm whose ball is not inside that of the 2-norm, which certificates are about.
        """
        if self.norm not in INSIDE:
            raise BadInput(f"suite.{self.name}.spare_certified: expected norm {' or '.join(INSIDE)}, got {self.norm}")
        self._proof, self.spares_certified = Certified(list(self.severities)), True  # in the digest of the evaluation

    @abstractmethod
    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        """x' like x. where: eps (a number), norm, bounds, draws, task."""

    def prepare(self, network: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
        return None if self._proof is None else self._proof.prepare(network, shape)

    def perturbed(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Iterator[Tensor]:
        return (moved for moved, _ in self.climb(network, task, batch, levels))

    def scores(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Curve:
        scoring = Scoring(network, task, batch)
        for moved, score in self.climb(network, task, batch, levels):
            scoring.add(score, moved)
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
        spared = self._spared(network, task, batch, every)
        for place, eps in enumerate(every):
            standing = ~task.failed(output, batch.targets)
            left = torch.nonzero(standing if spared is None else standing & ~spared[place])[:, 0]
            if eps and len(left):
                found = moved.index_copy(0, left, self._found(network, task, batch, eps, left))
                output = network(found)
                score = task.score(output, batch.targets)
                kept = task.worse(worst, score) != score  # x' of a smaller eps was worse
                moved, worst = torch.where(beside(kept, found), moved, found), task.worse(worst, score)
            if eps in levels:
                yield moved, worst

    def _spared(self, network: nn.Module, task: Task, batch: Batch, every: Sequence[float]) -> Tensor | None:
        """Who is certified within each eps, (E, B) bool; None where nobody is to be spared."""
        if self._proof is None:
            return None
        if task.better != "higher":
            raise BadInput(f"suite.{self.name}.spare_certified: expected a task whose scores can fall to a worst")
        return self._proof.scores(network, task, replace(batch, reference=None), every).scores != task.worst

    def _found(self, network: nn.Module, task: Task, batch: Batch, eps: float, left: Tensor) -> Tensor:
        """x' within eps of the samples `left`."""
        draws = None if batch.draws is None else copy.deepcopy(batch.draws).of(left)
        where = {"eps": eps, "norm": self.norm, "bounds": batch.bounds, "draws": draws, "task": task}
        return self.find(network, batch.x[left], batch.targets[left], **where)

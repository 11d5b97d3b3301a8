"""The attacks as entries of a suite: x' for every eps of a list, in data units within the bounds of the data."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robode.attacks.apgd import apgd
from robode.attacks.attack import Attack
from robode.attacks.autoattack import CLASSES, autoattack, check_installed, why_not
from robode.attacks.balls import beside, check_norm, length
from robode.attacks.ensemble import ensemble
from robode.attacks.fgsm import fgsm
from robode.attacks.fmn import minimal_norm
from robode.attacks.losses import loss_named
from robode.attacks.pgd import START, TRAVEL, pgd, short_travel
from robode.attacks.square import square
from robode.config.levels import check_count
from robode.corruptions.perturbation import Batch, Bounds
from robode.errors import BadInput
from robode.tasks.task import Task

SMOOTH = ("linf", "l2")
FIRST = "ce"


class FGSM(Attack):
    """One gradient step up the first loss of the task."""

    def __init__(self, eps: float | Sequence[float], norm: str = "linf", suite: str = "attacks") -> None:
        check_norm(norm)
        super().__init__("fgsm", eps, norm, suite)

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        return fgsm(network, x, targets, **{key: value for key, value in where.items() if key != "draws"})


class Climber(Attack):
    """An attack that climbs one of the task's losses: ce, margin or dlr in classification; None: the task's first.

    loss: its name in the digest of an evaluation, where None is ce, which the rows of classification have always been.
    """

    loss: str
    _default: bool

    @property
    def needs_classes(self) -> bool:  # type: ignore[override]
        return self.loss in ("margin", "dlr") or getattr(self, "targets", 0) > 0

    @property
    def wanted(self) -> str | None:
        """The loss that was asked for."""
        return None if self._default else self.loss

    def _set_loss(self, loss: str | None) -> None:
        self.loss, self._default, self.least_classes = loss or FIRST, loss is None, 3 if loss == "dlr" else 2

    def check(self, task: Task) -> None:
        try:
            loss_named(self.wanted, task)
        except BadInput as error:
            raise BadInput(f"suite.{self.name}.{error}") from None


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
        check_norm(norm)
        super().__init__(_named("pgd", loss), eps, norm, suite, steps=steps, restarts=restarts)
        self._set_loss(loss)
        self.step_size = _checked(step_size, self.name)
        if norm == "linf":  # rows of the time when it began near x are of another evaluation
            self.start = START[norm]
        reason = short_travel(max(self.severities), steps, step_size)
        if reason:
            raise BadInput(f"suite.{self.name}.{reason}; set a larger one, or none")

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        how: dict[str, Any] = {
            "loss": self.wanted,
            "steps": self.steps,
            "step_size": self.step_size,
            "restarts": self.restarts,
        }
        return pgd(network, x, targets, **where, **how)


class APGD(Climber):
    """Auto-PGD. targets: run towards each of so many other classes; 0 for the loss alone."""

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
        check_norm(norm, SMOOTH)
        name = _named("apgd", loss)
        check_count(f"suite.{name}_{norm}.targets", targets, least=0)
        super().__init__(name + ("_targeted" if targets else ""), eps, norm, suite, steps=steps, restarts=restarts)
        self._set_loss(loss)
        self.targets = targets

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        how: dict[str, Any] = {
            "loss": self.wanted,
            "steps": self.steps,
            "restarts": self.restarts,
            "targets": self.targets,
        }
        return apgd(network, x, targets, **where, **how)


class Square(Attack):
    """The square attack, which sees logits only."""

    queries: int

    def __init__(
        self, eps: float | Sequence[float], norm: str = "linf", queries: int = 1000, suite: str = "attacks"
    ) -> None:
        check_norm(norm, SMOOTH)
        super().__init__("square", eps, norm, suite, queries=queries)

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        return square(network, x, targets, **where, queries=self.queries)


class Ensemble(Attack):
    """robode's standard: APGD-CE, APGD-DLR, targeted APGD-DLR and Square in turn."""

    needs_classes = True
    steps: int
    targets: int
    queries: int

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "linf",
        steps: int = 100,
        targets: int = 9,
        queries: int = 1000,
        suite: str = "attacks",
    ) -> None:
        check_norm(norm, SMOOTH)
        super().__init__("standard", eps, norm, suite, steps=steps, targets=targets, queries=queries)

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        where.pop("task")  # it is classification
        return ensemble(network, x, targets, **where, steps=self.steps, targets=self.targets, queries=self.queries)


class AutoAttack(Attack):
    """The published AutoAttack, standard version (extra robode[attacks]); for images in [0, 1] of 4 classes or more.

    Its random numbers belong to places in the batch: another batch size may flip a few samples. spare_certified:
    do not attack what cannot fall (l2 and l1): of a network with a good certificate most of the time is saved.
    """

    needs_classes = True
    least_classes = CLASSES

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "linf",
        suite: str = "attacks",
        spare_certified: bool = False,
    ) -> None:
        check_norm(norm)
        super().__init__("autoattack", eps, norm, suite)
        if not isinstance(spare_certified, bool):
            raise BadInput(f"suite.{self.name}.spare_certified={spare_certified}: expected true or false")
        if spare_certified:
            self.spare_certified()
        check_installed(f"suite.{self.name}")

    def refusal(self, bounds: Bounds | None) -> str | None:
        return why_not(bounds)

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        return autoattack(network, x, targets, eps=where["eps"], norm=where["norm"], bounds=where["bounds"])


class MinimalNorm(Attack):
    """The nearest wrong answer, once for all eps: x' is that where it is within eps, and x where it is not."""

    needs_classes = True
    steps: int
    restarts: int

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "l2",
        steps: int = 100,
        restarts: int = 1,
        suite: str = "attacks",
    ) -> None:
        check_norm(norm)
        super().__init__("minimal", eps, norm, suite, steps=steps, restarts=restarts)

    @torch.no_grad()
    def climb(
        self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        draws = copy.deepcopy(batch.draws)
        nearest = self.find(network, batch.x, batch.targets, norm=self.norm, bounds=batch.bounds, draws=draws)
        distance = length(nearest - batch.x, self.norm)
        for eps in levels:
            moved = torch.where(beside(distance <= eps, batch.x), nearest, batch.x)
            yield moved, task.score(network(moved), batch.targets)

    def find(self, network: nn.Module, x: Tensor, targets: Tensor, **where: Any) -> Tensor:
        return minimal_norm(network, x, targets, **where, steps=self.steps, restarts=self.restarts)


def _named(attack: str, loss: object) -> str:
    if loss is not None and not isinstance(loss, str):
        raise BadInput(f"suite.{attack}.loss={loss}: expected the name of a loss, or null for the task's first")
    return attack if loss in (None, FIRST) else f"{attack}_{loss}"


def _checked(step_size: Any, name: str) -> float | None:
    """As it is: a step size of the attack of that name. Raises BadInput for what is none."""
    number = isinstance(step_size, int | float) and not isinstance(step_size, bool)
    if step_size is None or number and 0 < step_size < math.inf:
        return step_size
    raise BadInput(f"suite.{name}.step_size={step_size}: expected a number above 0, or null for {TRAVEL} eps / steps")

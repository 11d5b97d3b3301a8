"""What a perturbation is: one way to disturb inputs, at one or more levels, scored as a whole curve."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robode.tasks.task import Task

if TYPE_CHECKING:
    from robode.corruptions.noise import Kind, PerSampleRNG

Bounds = tuple[float, float]
"""The least and the largest number that an entry of x may be, in some space; images in data units: (0, 1)."""


def as_it_is(x: Tensor) -> Tensor:
    """x."""
    return x


@dataclass(frozen=True)
class Batch:
    """What a perturbation is given. x: (B, *shape) in the space in which it acts; targets: (B, ...); noise: the base
    noise of these samples, like x; bounds: where x' is clipped, None for nowhere; rng: further random numbers of
    these samples, the same for every level; decode: from that space to data units; prepared: what `prepare` found;
    reference: the network with the reference solver, which scores the same x' again; None where nobody asks."""

    x: Tensor
    targets: Tensor
    noise: Tensor | None
    bounds: Bounds | None
    rng: PerSampleRNG | None = None
    decode: Callable[[Tensor], Tensor] = as_it_is
    prepared: Tensor | None = None
    reference: nn.Module | None = None


@dataclass(frozen=True)
class Curve:
    """What was found of B samples at L levels: scores (L, B) float32; reference, those of the network with the
    reference solver at the same x', or None; seconds (L,), of finding x' and scoring it once."""

    scores: Tensor
    reference: Tensor | None
    seconds: tuple[float, ...]


class Scoring:
    """A curve in the making: one level after another is scored, and the time between them is theirs."""

    def __init__(self, network: nn.Module, task: Task, batch: Batch):
        self.network, self.task, self.batch = network, task, batch
        self._scores: list[Tensor] = []
        self._reference: list[Tensor] = []
        self._seconds: list[float] = []
        self._begin = time.perf_counter()

    @torch.inference_mode()
    def score(self, x: Tensor) -> Tensor:
        """Of the network at x (B, *shape) in data units: (B,)."""
        return self.task.score(self.network(x), self.batch.targets)

    def add(self, score: Tensor, x: Tensor) -> None:
        """The next level: score (B,), found at x (B, *shape) in data units."""
        self._scores.append(score)
        self._seconds.append(time.perf_counter() - self._begin)
        if self.batch.reference is not None:
            with torch.inference_mode():
                self._reference.append(self.task.score(self.batch.reference(x), self.batch.targets))
        self._begin = time.perf_counter()

    @property
    def curve(self) -> Curve:
        """All levels that were added."""
        reference = torch.stack(self._reference) if self._reference else None
        return Curve(torch.stack(self._scores), reference, tuple(self._seconds))


class Perturbation(ABC):
    """One way to disturb inputs, at one or more levels (severities); the rows of a results file carry its attributes.
    Scoring changes none of them: what is found for a network or a batch is kept nowhere.

    noise: the kind of base noise it needs; None means that it is deterministic and evaluated once.
    corrupts: False only for the untouched data, which no protocol may alter either.
    in_data_units: acts on x in data units, within the bounds of the data, whatever the protocol.
    needs_classes: makes sense for classification only. least_classes: of such data; with fewer it makes no sense.
    attacks: looks for the worst x'; it is scored a second time with the reference solver.
    optional: of data that it makes no sense for it is left out, with a line; any other perturbation is refused.
    """

    name: str
    severity_unit: str
    norm: str = "none"
    noise: Kind | None = None
    corrupts: bool = True
    in_data_units: bool = False
    attacks: bool = False
    optional: bool = False
    needs_classes: bool = False
    least_classes: int = 2

    def __init__(self, suite: str, severities: tuple[float, ...] = (0.0,)) -> None:
        self.suite = suite
        self.severities = severities

    @property
    def stochastic(self) -> bool:
        """Whether repeats differ."""
        return self.noise is not None

    def refusal(self, bounds: Bounds | None) -> str | None:
        """Why it makes no sense for data with these bounds, or None."""
        return None

    def warning(self, bounds: Bounds | None) -> str | None:
        """What somebody who measures it on data with these bounds should know, in one line, or None."""
        return None

    def check(self, task: Task) -> None:
        """Raises BadInput for a task that it cannot serve as it is set up."""
        return None

    def prepare(self, network: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
        """What all batches of one network need, worked out once an evaluation; comes back as `Batch.prepared`.
        shape: of one sample."""
        return None

    @abstractmethod
    def perturbed(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Iterator[Tensor]:
        """x' like batch.x, which stays as it is, for one level after another; levels: ascending for attacks."""

    def scores(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Curve:
        """The whole curve of a batch. network: in eval mode; levels: L of them, ascending for attacks."""
        scoring = Scoring(network, task, batch)
        for moved in self.perturbed(network, task, batch, levels):
            x = batch.decode(moved)
            scoring.add(scoring.score(x), x)
        return scoring.curve


class Corruption(Perturbation):
    """A perturbation that looks at no network."""

    @abstractmethod
    def perturb(self, batch: Batch, severity: float) -> Tensor:
        """x' like batch.x, which stays as it is."""

    def perturbed(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Iterator[Tensor]:
        return (self.perturb(batch, level) for level in levels)


def clip(x: Tensor, bounds: Bounds | None) -> Tensor:
    """x (any shape) clipped to bounds, in place; as it is without bounds. Not for a differentiated path."""
    return x if bounds is None else x.clamp_(*bounds)

"""Noisy copies of the data, batch by batch, and who gets them right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.data.batches import in_units
from robode.data.facts import DataFacts
from robode.robustness.corruptions import Batch, Clean, Perturbation
from robode.robustness.noise import BLOCK, Draws, Kind, base_noise
from robode.robustness.protocols import EvaluationProtocol

DRAWS = 2  # after the two kinds of base noise


@dataclass
class Level:
    """A perturbation at one severity, and the time that one copy of the data has taken."""

    perturbation: Perturbation
    severity: float
    seconds: float = 0.0
    correct_finer: int | None = None  # right answers of the network with a finer solver, for attacks and beside them

    @property
    def title(self) -> str:
        """For people: "gaussian 0.05", "clean"."""
        unit = self.perturbation.severity_unit
        return self.perturbation.name if unit == "none" else f"{self.perturbation.name} {self.severity:g}"

    def runs_in(self, repeat: int) -> bool:
        """Always if it is random; once is enough if it is not."""
        return self.perturbation.stochastic or repeat == 0


class Noise:
    """The base noise of one batch, drawn on first use and kept for the other severities."""

    def __init__(self, words: tuple[int, int, int, int, tuple[int, ...]], device: torch.device) -> None:
        self.words = words
        self.device = device
        self.drawn: dict[Kind, Tensor] = {}

    def of(self, kind: Kind | None) -> Tensor | None:
        """Base noise like the batch; None for None."""
        if kind is None:
            return None
        if kind not in self.drawn:
            self.drawn[kind] = base_noise(kind, *self.words).to(self.device)
        return self.drawn[kind]

    def draws(self) -> Draws:
        """From the start of the images' stream."""
        seed, repeat, start, stop, _ = self.words
        return Draws((seed, repeat, DRAWS), range(start, stop), self.device)


@dataclass
class Copies:
    """How perturbed copies are made and counted."""

    network: nn.Module
    protocol: EvaluationProtocol
    facts: DataFacts
    seed: int
    finer: nn.Module | None = None  # the network with a finer solver, where it has one

    def noise(self, repeat: int, part: range, device: torch.device) -> Noise:
        """Of the images `part`."""
        return Noise((self.seed, repeat, part.start, part.stop, self.facts.shape), device)

    def perturbed(self, level: Level, x: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        """x (B, *shape) float32 in data units, perturbed: a new tensor, or x itself where it stays clean."""
        perturbation, facts = level.perturbation, self.facts
        if not perturbation.corrupts:
            return x
        if perturbation.in_data_units:
            batch = Batch(x, labels, noise.of(perturbation.noise), facts.bounds, noise.draws())
            return perturbation.perturb(self.network, batch, level.severity)
        inside = self.protocol.encode(x, facts)
        batch = Batch(inside, labels, noise.of(perturbation.noise), self.protocol.bounds(facts))
        return self.protocol.decode(perturbation.perturb(self.network, batch, level.severity), facts)

    def count(
        self,
        tally: list[Level],
        repeat: int,
        x: Tensor,
        labels: Tensor,
        batch_size: int,
        counted: Callable[[int], object],
    ) -> Tensor:
        """Go through one copy of x (n, *shape) and add the time it takes to every level.

        counted: told how many images a batch had, over all levels.

        Returns:
            Who is right: (levels, n) bool on the CPU.
        """
        # One tensor: small ones kept from every batch would sit between the large ones and pin the heap (gigabytes).
        found = torch.empty(len(tally), len(labels), dtype=torch.bool)
        for part, batch, targets in batches(self.network, x, labels, batch_size):
            noise = self.noise(repeat, part, batch.device)
            for level, right in zip(tally, found, strict=True):
                begin = time.perf_counter()
                moved = self.perturbed(level, batch, targets, noise)
                with torch.inference_mode():
                    answers = level.perturbation.right(self.network, moved, targets, level.severity)
                    right[part.start : part.stop] = answers
                level.seconds += time.perf_counter() - begin
                self._score_again(level, moved, targets)
            counted(len(targets) * len(tally))
        return found

    @torch.inference_mode()
    def _score_again(self, level: Level, moved: Tensor, labels: Tensor) -> None:
        if self.finer is not None and (level.perturbation.attacks or isinstance(level.perturbation, Clean)):
            right = level.perturbation.right(self.finer, moved, labels, level.severity)
            level.correct_finer = (level.correct_finer or 0) + int(right.sum())


def batches(network: nn.Module, x: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """(image indices, x in data units, labels) on the device of the network, cut at whole noise blocks."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    size = -(-batch_size // BLOCK) * BLOCK
    for start in range(0, len(labels), size):
        part = range(start, min(start + size, len(labels)))
        rows = slice(part.start, part.stop)
        yield part, in_units(x[rows].to(device)), labels[rows].to(device)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards every submodule in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

"""Noisy copies of the data, batch by batch, and what each sample scores."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robode.corruptions.noise import BLOCK, Draws, Kind, base_noise, streamed
from robode.corruptions.perturbation import Batch, Clean, Perturbation
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.batches import in_units
from robode.data.info import DatasetInfo

DRAWS = 2  # after the two kinds of base noise

Wanted = Mapping[Perturbation, Sequence[float]]
"""Levels by perturbation, in the order in which rows come; ascending for attacks."""


class Noise:
    """The base noise of one batch, drawn on first use and kept for the other perturbations."""

    def __init__(self, words: tuple[int, int, int, int, tuple[int, ...]], device: torch.device) -> None:
        self.words = words
        self.device = device
        self.drawn: dict[Kind, Tensor] = {}

    def of(self, kind: Kind | None) -> Tensor | None:
        """Base noise like the batch; None for None."""
        if kind is None:
            return None
        if kind not in self.drawn:
            self.drawn[kind] = streamed(base_noise(kind, *self.words), self.device)
        return self.drawn[kind]

    def draws(self) -> Draws:
        """From the start of the images' stream."""
        seed, repeat, start, stop, _ = self.words
        return Draws((seed, repeat, DRAWS), range(start, stop), self.device)


@dataclass
class Found:
    """What one copy of n samples has shown, a row for each level: scores (rows, n) float32, score_finer (rows,) float64
    (nan where nobody asked), seconds (rows,)."""

    scores: Tensor
    score_finer: Tensor
    seconds: list[float]


@dataclass
class Copies:
    """How perturbed copies are made and scored."""

    network: nn.Module
    protocol: EvaluationProtocol
    info: DatasetInfo
    seed: int
    finer: nn.Module | None = None  # the network with a finer solver, where it has one
    prepared: dict[Perturbation, Tensor | None] = field(default_factory=dict)

    def prepare(self, perturbations: Sequence[Perturbation]) -> None:
        """What they need to know of the network, once for all batches and copies."""
        self.prepared = {each: each.prepare(self.network, self.info.shape) for each in perturbations}

    def noise(self, repeat: int, part: range, device: torch.device) -> Noise:
        """Of the images `part`."""
        return Noise((self.seed, repeat, part.start, part.stop, self.info.shape), device)

    def batch(self, perturbation: Perturbation, x: Tensor, targets: Tensor, noise: Noise) -> Batch:
        """What a perturbation is given of x (B, *shape) float32 in data units and targets (B, ...)."""
        info, base = self.info, noise.of(perturbation.noise)
        known = self.prepared.get(perturbation)
        if perturbation.in_data_units or not perturbation.corrupts:
            finer = self.finer if perturbation.attacks or isinstance(perturbation, Clean) else None
            draws = noise.draws() if perturbation.in_data_units else None
            return Batch(x, targets, base, info.bounds, draws, prepared=known, finer=finer)
        decode = functools.partial(self.protocol.decode, info=info)
        inside, bounds = self.protocol.encode(x, info), self.protocol.bounds(info)
        return Batch(inside, targets, base, bounds, decode=decode, prepared=known)

    def measure(
        self,
        wanted: Wanted,
        repeat: int,
        x: Tensor,
        targets: Tensor,
        batch_size: int,
        counted: Callable[[int], object],
    ) -> Found:
        """Go through one copy of x (n, *shape), uint8 or data units, with targets (n, ...).

        counted: told how many images a batch had, over all levels.
        """
        rows = sum(len(levels) for levels in wanted.values())
        device = device_of(self.network)
        # One tensor: small ones kept from every batch would sit between the large ones and pin the heap (gigabytes).
        scores = torch.empty(rows, len(targets), device=device)
        finer = torch.full((rows,), math.nan, dtype=torch.float64, device=device)
        seconds = [0.0] * rows
        for part, batch, aims in batches(self.network, x, targets, batch_size):
            noise, row = self.noise(repeat, part, batch.device), 0
            for perturbation, levels in wanted.items():
                here, begin = slice(row, row + len(levels)), time.perf_counter()
                given = self.batch(perturbation, batch, aims, noise)
                seconds[row] += time.perf_counter() - begin
                curve = perturbation.scores(self.network, self.info.task, given, levels)
                scores[here, part.start : part.stop] = curve.scores
                if curve.finer is not None:
                    finer[here] = finer[here].nan_to_num(0.0) + curve.finer.double().sum(1)
                for more in curve.seconds:
                    seconds[row], row = seconds[row] + more, row + 1
            counted(len(aims) * rows)
        begin = time.perf_counter()
        scores, finer = scores.cpu(), finer.cpu() / len(targets)
        waited = (time.perf_counter() - begin) / rows  # what a GPU still had to do belongs to all levels
        return Found(scores, finer, [each + waited for each in seconds])


def device_of(network: nn.Module) -> torch.device:
    """Where its parameters lie; the CPU where it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def batches(network: nn.Module, x: Tensor, targets: Tensor, batch_size: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """(image indices, x in data units, targets) on the device of the network, cut at whole noise blocks."""
    device = device_of(network)
    size = -(-batch_size // BLOCK) * BLOCK
    for start in range(0, len(targets), size):
        part = range(start, min(start + size, len(targets)))
        rows = slice(part.start, part.stop)
        yield part, in_units(x[rows].to(device)), targets[rows].to(device)


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

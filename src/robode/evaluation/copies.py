"""Noisy copies of the data, batch by batch, and what each sample scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from robode.corruptions.noise import BLOCK, DRAWS, Clean, Kind, PerSampleRNG, base_noise, streamed
from robode.corruptions.perturbation import Batch, Curve, Perturbation
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.batches import device_of, evaluating, in_units
from robode.data.info import DatasetInfo
from robode.evaluation.suite import Level, Plan, levels
from robode.foreign import copied, native, unchanged

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

    def draws(self) -> PerSampleRNG:
        """From the start of the images' stream."""
        seed, repeat, start, stop, _ = self.words
        return PerSampleRNG((seed, repeat, DRAWS), range(start, stop), self.device)


@dataclass
class Found:
    """What one copy of n samples has shown, a row for each level: scores (rows, n) float32, score_reference (rows,)
    float64 (nan where nobody asked), seconds (rows,)."""

    scores: Tensor
    score_reference: Tensor
    seconds: list[float]


@dataclass
class Copies:
    """How perturbed copies are made and scored."""

    network: nn.Module
    protocol: EvaluationProtocol
    info: DatasetInfo
    seed: int
    reference: nn.Module | None = None  # the network with the reference solver, where it has one
    prepared: dict[Perturbation, Tensor | None] = field(default_factory=dict)

    def prepare(self, perturbations: Sequence[Perturbation]) -> None:
        """What they need to know of the network, once for all batches and copies."""
        self.prepared = {each: each.prepare(self.network, self.info.shape) for each in perturbations}

    def noise(self, repeat: int, part: range, device: torch.device) -> Noise:
        """Of the images `part`."""
        return Noise((self.seed, repeat, part.start, part.stop, self.info.shape), device)

    def batch(self, perturbation: Perturbation, x: Tensor, targets: Tensor, noise: Noise) -> Batch:
        """What a perturbation is given of x (B, *shape) float32 in data units and targets (B, ...): copies, where it is
        somebody else's."""
        info, base = self.info, noise.of(perturbation.noise)
        if not (native(perturbation) and native(self.protocol)):
            x, targets, base = copied(x), copied(targets), copied(base)
        if perturbation.in_data_units or not perturbation.corrupts:
            given = Batch(x, targets, base, info.bounds)
        else:
            given = self.protocol.batch(x, targets, base, info)
        reference = self.reference if perturbation.attacks or isinstance(perturbation, Clean) else None
        draws = noise.draws() if perturbation.attacks or perturbation.in_data_units else None
        return replace(given, rng=draws, prepared=self.prepared.get(perturbation), reference=reference)

    def _curve(self, perturbation: Perturbation, batch: Batch, levels: Sequence[float]) -> Curve:
        """The scores of a batch; raises `BadInput` for a perturbation of somebody's that changes the batch, where its
        next level begins."""
        if native(perturbation):
            return perturbation.scores(self.network, self.info.task, batch, levels)
        with unchanged(f"suite: {perturbation.name}", x=batch.x, targets=batch.targets, noise=batch.noise):
            return perturbation.scores(self.network, self.info.task, batch, levels)

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
        reference = torch.full((rows,), math.nan, dtype=torch.float64, device=device)
        seconds = [0.0] * rows
        for part, batch, aims in batches(self.network, x, targets, batch_size):
            noise, row = self.noise(repeat, part, batch.device), 0
            for perturbation, severities in wanted.items():
                here, begin = slice(row, row + len(severities)), time.perf_counter()
                given = self.batch(perturbation, batch, aims, noise)
                seconds[row] += time.perf_counter() - begin
                curve = self._curve(perturbation, given, severities)
                scores[here, part.start : part.stop] = curve.scores
                if curve.reference is not None:
                    reference[here] = reference[here].nan_to_num(0.0) + curve.reference.double().sum(1)
                for more in curve.seconds:
                    seconds[row], row = seconds[row] + more, row + 1
            counted(len(aims) * rows)
        begin = time.perf_counter()
        scores, reference = scores.cpu(), reference.cpu() / len(targets)
        waited = (time.perf_counter() - begin) / rows  # what a GPU still had to do belongs to all levels
        return Found(scores, reference, [each + waited for each in seconds])


def batches(network: nn.Module, x: Tensor, targets: Tensor, batch_size: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """(image indices, x in data units, targets) on the device of the network, cut at whole noise blocks."""
    device = device_of(network)
    size = -(-batch_size // BLOCK) * BLOCK
    for start in range(0, len(targets), size):
        part = range(start, min(start + size, len(targets)))
        rows = slice(part.start, part.stop)
        yield part, in_units(x[rows].to(device)), targets[rows].to(device)


def sample_grid(network: nn.Module, x: Tensor, targets: Tensor, plan: Plan) -> list[tuple[str, Tensor, Tensor]]:
    """(title, x', predictions) per level for x (k, *shape), the first k images of an evaluation, of a curve its two
    ends, with the noise of repeat 0. x' (k, *shape) float32 in data units, predictions (k,), the place of the largest
    output; on the CPU."""
    copies = Copies(network, plan.protocol, plan.info, plan.seed)
    shown = _shown(levels(plan.suite, plan.protocol, plan.info))
    found = []
    with evaluating(network):
        copies.prepare([level.perturbation for level in shown])
        for part, batch, aims in batches(network, x, targets, len(targets)):
            noise = copies.noise(0, part, batch.device)
            for perturbation, group in groupby(shown, key=lambda level: level.perturbation):
                chosen = list(group)
                given = copies.batch(perturbation, batch, aims, noise)
                every = perturbation.perturbed(network, plan.info.task, given, [level.severity for level in chosen])
                for level, moved in zip(chosen, map(given.decode, every), strict=True):
                    with torch.inference_mode():
                        found.append((level.title, moved.cpu(), network(moved).argmax(dim=1).cpu()))
    return found


def _shown(every: list[Level]) -> list[Level]:
    """Levels whose samples are worth a look: of a curve the ends, and nothing twice that leaves x as it is."""
    found = []
    for level in every:
        severities = level.perturbation.severities
        inside = len(severities) > 3 and severities[0] < level.severity < severities[-1]
        if not inside and (level.perturbation.corrupts or level.perturbation.severity_unit == "none"):
            found.append(level)
    return found

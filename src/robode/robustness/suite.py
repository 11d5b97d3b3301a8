"""Run a suite of perturbations on a network: one tidy row per perturbation, severity and noisy copy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robode.data.batches import in_units
from robode.data.facts import DataFacts
from robode.robustness.corruptions import Batch, Perturbation
from robode.robustness.levels import check_repeats
from robode.robustness.noise import BLOCK, Kind, base_noise
from robode.robustness.protocols import EvaluationProtocol

logger = logging.getLogger(__name__)

Suite = Mapping[str, Perturbation]
Progress = Callable[[int, int], None]


@dataclass
class Level:
    """A perturbation at one severity, and the tally of one copy of the data."""

    perturbation: Perturbation
    severity: float
    correct: int = 0
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """For people: "gaussian 0.05", "clean"."""
        unit = self.perturbation.severity_unit
        return self.perturbation.name if unit == "none" else f"{self.perturbation.name} {self.severity:g}"

    def runs_in(self, repeat: int) -> bool:
        """Always if it is random; once is enough if it is not."""
        return self.perturbation.stochastic or repeat == 0


def evaluate_suite(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    suite: Suite,
    protocol: EvaluationProtocol,
    facts: DataFacts,
    repeats: int,
    seed: int,
    batch_size: int = 500,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Accuracy of `network` on perturbed copies of x (n, *shape; uint8 images or data units), labels (n,).

    Noise is a function of (seed, repeat, image index), shared by all severities: rows of different networks
    or severities are paired, and `batch_size` (rounded up to whole noise blocks) does not change it. The
    network is in eval mode for the time being and left as it was. Logits that are not finite count as wrong.
    `progress(done, total)` counts images. Perturbations that make no sense for these data are left out with
    a warning. Raises BadInput for repeats < 1 and for data that the protocol does not speak of.
    """
    check_repeats(repeats)
    for name, reason in refusals(suite, protocol, facts).items():
        logger.warning("%s is left out: %s", name, reason)
    plan = levels(suite, protocol, facts)
    total = len(labels) * sum(level.runs_in(repeat) for level in plan for repeat in range(repeats))
    copy = _Copy(network, protocol, facts, seed)
    rows, done = [], 0
    with _evaluating(network):
        for repeat in range(repeats):
            tally = [Level(level.perturbation, level.severity) for level in plan if level.runs_in(repeat)]
            for part, batch, targets in _batches(network, x, labels, batch_size):
                copy.count(tally, repeat, part, batch, targets)
                done += len(targets) * len(tally)
                if progress is not None:
                    progress(done, total)
            rows += [_row(level, protocol, repeat, len(labels)) for level in tally]
    place = {(level.perturbation.name, level.severity): i for i, level in enumerate(plan)}
    return sorted(rows, key=lambda row: (place[row["perturbation"], row["severity"]], row["repeat"]))


def sample_grid(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    suite: Suite,
    protocol: EvaluationProtocol,
    facts: DataFacts,
    seed: int,
) -> list[tuple[str, Tensor, Tensor]]:
    """(title, x', predictions) per level for x (k, *shape), the first k images that `evaluate_suite` gets,
    with the noise of its repeat 0. x' (k, *shape) float32 in data units, predictions (k,); on the CPU."""
    copy = _Copy(network, protocol, facts, seed)
    found = []
    with _evaluating(network):
        for part, batch, targets in _batches(network, x, labels, len(labels)):
            noise = copy.noise(0, part, batch.device)
            for level in levels(suite, protocol, facts):
                moved = copy.perturbed(level, batch, targets, noise)
                with torch.inference_mode():
                    found.append((level.title, moved.cpu(), network(moved).argmax(dim=1).cpu()))
    return found


def refusals(suite: Suite, protocol: EvaluationProtocol, facts: DataFacts) -> dict[str, str]:
    """Name and reason of every perturbation that makes no sense for these data.

    Raises BadInput if the protocol does not speak of such data at all."""
    bounds = protocol.bounds(facts)
    reasons = {perturbation.name: perturbation.refusal(bounds) for perturbation in suite.values()}
    return {name: reason for name, reason in reasons.items() if reason}


def levels(suite: Suite, protocol: EvaluationProtocol, facts: DataFacts) -> list[Level]:
    """Every perturbation that makes sense at every severity, and the rows that the protocol adds."""
    refused = refusals(suite, protocol, facts)
    chosen = [perturbation for perturbation in suite.values() if perturbation.name not in refused]
    if any(perturbation.corrupts for perturbation in chosen):
        chosen += protocol.extras
    return [Level(perturbation, severity) for perturbation in chosen for severity in perturbation.severities]


class _Noise:
    """The base noise of one batch, drawn on first use and kept for the other severities."""

    def __init__(self, words: tuple[int, int, int, int, tuple[int, ...]], device: torch.device) -> None:
        self.words = words
        self.device = device
        self.drawn: dict[Kind, Tensor] = {}

    def of(self, kind: Kind | None) -> Tensor | None:
        if kind is None:
            return None
        if kind not in self.drawn:
            self.drawn[kind] = base_noise(kind, *self.words).to(self.device)
        return self.drawn[kind]


@dataclass
class _Copy:
    """How perturbed copies are made and counted."""

    network: nn.Module
    protocol: EvaluationProtocol
    facts: DataFacts
    seed: int

    def noise(self, repeat: int, part: range, device: torch.device) -> _Noise:
        return _Noise((self.seed, repeat, part.start, part.stop, self.facts.shape), device)

    def perturbed(self, level: Level, x: Tensor, labels: Tensor, noise: _Noise) -> Tensor:
        """x (B, *shape) float32 in data units, perturbed: a new tensor, or x itself where it stays clean."""
        perturbation, facts = level.perturbation, self.facts
        if not perturbation.corrupts:
            return x
        inside = self.protocol.encode(x, facts)
        batch = Batch(inside, labels, noise.of(perturbation.noise), self.protocol.bounds(facts))
        return self.protocol.decode(perturbation.perturb(self.network, batch, level.severity), facts)

    def count(self, tally: list[Level], repeat: int, part: range, x: Tensor, labels: Tensor) -> None:
        """Add the correct answers on one batch, and the time they took, to every level."""
        noise = self.noise(repeat, part, x.device)
        for level in tally:
            begin = time.perf_counter()
            moved = self.perturbed(level, x, labels, noise)
            with torch.inference_mode():
                logits = self.network(moved)
                right = (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)
                level.correct += int(right.sum())
            level.seconds += time.perf_counter() - begin


def _row(level: Level, protocol: EvaluationProtocol, repeat: int, n: int) -> dict[str, Any]:
    perturbation = level.perturbation
    return {
        "perturbation": perturbation.name,
        "suite": perturbation.suite,
        "norm": perturbation.norm,
        "severity": level.severity,
        "severity_unit": perturbation.severity_unit,
        "space": protocol.space if perturbation.corrupts else "data",
        "protocol": protocol.name,
        "repeat": repeat,
        "n": n,
        "correct": level.correct,
        "accuracy": level.correct / n,
        "seconds": level.seconds,
    }


def _batches(network: nn.Module, x: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """(image indices, x in data units, labels) on the device of the network, cut at whole noise blocks."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    size = -(-batch_size // BLOCK) * BLOCK
    for start in range(0, len(labels), size):
        part = range(start, min(start + size, len(labels)))
        rows = slice(part.start, part.stop)
        yield part, in_units(x[rows].to(device)), labels[rows].to(device)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards every submodule in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

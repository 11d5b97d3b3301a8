"""Run a suite of perturbations on a network: one tidy row per perturbation, severity and noisy copy."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from robode.config.levels import check_repeats
from robode.corruptions.perturbation import Perturbation
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.copies import Copies, Found, batches, evaluating
from robode.evaluation.digest import evaluation_digest
from robode.integrators.reference import with_finer_solver
from robode.tasks.classification import Classification
from robode.tasks.task import Task

logger = logging.getLogger(__name__)

Suite = Mapping[str, Perturbation]
Progress = Callable[[int, int], None]
Known = Callable[[dict[str, Any]], bool]
Finished = Callable[[list[dict[str, Any]], list[Tensor]], None]


@dataclass(frozen=True)
class Level:
    """A perturbation at one severity."""

    perturbation: Perturbation
    severity: float

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
    targets: Tensor,
    *,
    suite: Suite,
    protocol: EvaluationProtocol,
    info: DatasetInfo,
    repeats: int,
    seed: int,
    data_digest: str = "",
    batch_size: int = 500,
    progress: Progress = lambda done, total: None,
    known: Known = lambda row: False,
    finished: Finished = lambda rows, scores: None,
) -> list[dict[str, Any]]:
    """The rows of `plan` that were computed, in its order: the mean score on perturbed copies of x (n, *shape; uint8
    images or data units) with targets (n, ...). Outputs that are not finite have the task's worst score.
    Noise is a function of (seed, repeat, image index), shared by all severities: rows of different networks or
    severities are paired, and `batch_size` (rounded up to whole noise blocks) does not change it.

    Everything runs on the network's device; x may lie there already. data_digest: `DataModule.digest`, part of each
    row's `evaluation`. progress: gets (images done, images to do). known: rows for which it is true are left out, which
    changes nothing about the others. finished: gets the rows of a repeat as soon as they are complete, and the scores
    of the samples, (n,) float32 on the CPU for each row. Raises `BadInput` for repeats < 1, or data that the protocol
    does not speak of.
    """
    asked = plan(suite, protocol, info, repeats, data_digest)
    missing = [place for place, (_, row) in enumerate(asked) if not known(row)]
    attacked = missing and any(level.perturbation.attacks for level, _ in asked)
    copies = Copies(network, protocol, info, seed, with_finer_solver(network) if attacked else None)
    counted = _counter(len(targets) * len(missing), progress)
    found: dict[int, dict[str, Any]] = {}
    with evaluating(network), evaluating(copies.finer or network):
        copies.prepare(list(_wanted(asked, missing)))
        for repeat, places in _by_repeat(asked, missing).items():
            measured = copies.measure(_wanted(asked, places), repeat, x, targets, batch_size, counted)
            rows = [asked[place][1] | answer for place, answer in zip(places, _answers(measured), strict=True)]
            finished(rows, list(measured.scores))
            found |= zip(places, rows, strict=True)
    return [found[place] for place in missing]


def _wanted(asked: list[tuple[Level, dict[str, Any]]], places: list[int]) -> dict[Perturbation, list[float]]:
    """The levels at these places by perturbation, in the plan's order, which keeps each one's rows together."""
    found: dict[Perturbation, list[float]] = {}
    for place in places:
        level = asked[place][0]
        found.setdefault(level.perturbation, []).append(level.severity)
    return found


def _by_repeat(asked: list[tuple[Level, dict[str, Any]]], places: list[int]) -> dict[int, list[int]]:
    """Places in `asked`, by the copy of the data that they belong to."""
    repeats = sorted({asked[place][1]["repeat"] for place in places})
    return {repeat: [place for place in places if asked[place][1]["repeat"] == repeat] for repeat in repeats}


def _counter(total: int, progress: Progress) -> Callable[[int], None]:
    """What adds up images and tells `progress`."""
    done = 0

    def counted(images: int) -> None:
        nonlocal done
        done += images
        progress(done, total)

    return counted


def sample_grid(
    network: nn.Module,
    x: Tensor,
    targets: Tensor,
    *,
    suite: Suite,
    protocol: EvaluationProtocol,
    info: DatasetInfo,
    seed: int,
) -> list[tuple[str, Tensor, Tensor]]:
    """(title, x', predictions) per level for x (k, *shape), the first k images that `evaluate_suite` gets,
    of a curve its two ends, with the noise of its repeat 0. x' (k, *shape) float32 in data units, predictions (k,), the
    place of the largest output; on the CPU."""
    copies = Copies(network, protocol, info, seed)
    shown = _shown(levels(suite, protocol, info))
    found = []
    with evaluating(network):
        copies.prepare([level.perturbation for level in shown])
        for part, batch, aims in batches(network, x, targets, len(targets)):
            noise = copies.noise(0, part, batch.device)
            for perturbation, group in groupby(shown, key=lambda level: level.perturbation):
                chosen = list(group)
                given = copies.batch(perturbation, batch, aims, noise)
                every = perturbation.perturbed(network, info.task, given, [level.severity for level in chosen])
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


def refusals(suite: Suite, protocol: EvaluationProtocol, info: DatasetInfo) -> dict[str, str]:
    """Name and reason of every perturbation that makes no sense for these data.

    Raises BadInput if the protocol does not speak of such data at all, two perturbations would write the same row, or
    one of them (the loss of an attack) is not for such a task.
    """
    _check_distinct(suite, protocol)
    inside, reasons = protocol.bounds(info), {}
    for each in suite.values():
        reason = _unfit(each, info.task)
        if reason is None:
            each.check(info.task)
            reason = each.refusal(info.bounds if each.in_data_units else inside)
        reasons[each.name] = reason or ""
    return {name: reason for name, reason in reasons.items() if reason}


def _unfit(perturbation: Perturbation, task: Task) -> str | None:
    """Why it makes no sense for a task with so many classes, or none; or None."""
    least = perturbation.least_classes
    if not isinstance(task, Classification):
        return f"needs classes, and this is a {task.name} task" if perturbation.needs_classes else None
    return f"needs at least {least} classes, these data have {task.outputs}" if task.outputs < least else None


def _check_distinct(suite: Suite, protocol: EvaluationProtocol) -> None:
    """Raises BadInput where two perturbations would write the same row, which would pass for two noisy copies.

    Those of one name with different settings may be in one suite: the `evaluation` of their rows is another.
    """
    entries = [(f"suite.{key}", each) for key, each in suite.items()]
    entries += [(f"protocol={protocol.name}", each) for each in protocol.extras]
    first: dict[tuple[Any, ...], str] = {}
    for key, perturbation in entries:
        for severity in perturbation.severities:
            level = Level(perturbation, severity)
            other = first.setdefault(tuple(_question(level, protocol, 0, "").values()), key)
            if other != key:
                raise BadInput(
                    f"{other} and {key}: both measure {level.title} with the same settings; change or remove one"
                )


def levels(suite: Suite, protocol: EvaluationProtocol, info: DatasetInfo) -> list[Level]:
    """Every perturbation that makes sense at every severity, and the rows that the protocol adds."""
    refused = refusals(suite, protocol, info)
    chosen = [perturbation for perturbation in suite.values() if perturbation.name not in refused]
    if any(perturbation.corrupts and not perturbation.in_data_units for perturbation in chosen):
        chosen += protocol.extras
    return [Level(perturbation, severity) for perturbation in chosen for severity in perturbation.severities]


def plan(
    suite: Suite, protocol: EvaluationProtocol, info: DatasetInfo, repeats: int, data_digest: str = ""
) -> list[tuple[Level, dict[str, Any]]]:
    """Every row without its answer, and the level that it is about; ordered by perturbation, severity and repeat.

    Perturbations that make no sense for these data are left out with a warning. Raises BadInput for repeats < 1
    and for data that the protocol does not speak of."""
    check_repeats(repeats)
    for name, reason in refusals(suite, protocol, info).items():
        logger.warning("%s is left out: %s", name, reason)
    return [
        (level, _question(level, protocol, repeat, data_digest))
        for level in levels(suite, protocol, info)
        for repeat in range(repeats)
        if level.runs_in(repeat)
    ]


def _question(level: Level, protocol: EvaluationProtocol, repeat: int, data_digest: str) -> dict[str, Any]:
    perturbation = level.perturbation
    return {
        "perturbation": perturbation.name,
        "suite": perturbation.suite,
        "norm": perturbation.norm,
        "severity": level.severity,
        "severity_unit": perturbation.severity_unit,
        "space": protocol.space if perturbation.corrupts and not perturbation.in_data_units else "data",
        "protocol": protocol.name,
        "evaluation": evaluation_digest(perturbation, protocol, data_digest),
        "repeat": repeat,
    }


def _answers(found: Found) -> Iterator[dict[str, Any]]:
    """What completes each row. Sums in float64 are exact where scores are 0 or 1."""
    n = found.scores.shape[1]
    for scores, finer, seconds in zip(found.scores, found.score_finer.tolist(), found.seconds, strict=True):
        yield {
            "n": n,
            "score": float(scores.double().sum()) / n,
            "score_finer": None if math.isnan(finer) else finer,
            "seconds": seconds,
        }

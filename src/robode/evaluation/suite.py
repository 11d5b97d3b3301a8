"""Which rows are asked for: a suite of perturbations under a protocol, one row for each level and noisy copy.

A row belongs to an `evaluation`, a digest of the perturbation and the protocol as built, and of the data.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robode.config.instantiate import keyed
from robode.config.levels import check_repeats
from robode.corruptions.perturbation import Perturbation
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.quantities.quantity import Quantity
from robode.tasks.classification import Classification
from robode.tasks.task import Task

logger = logging.getLogger(__name__)

Suite = Mapping[str, Perturbation]
Row = dict[str, Any]
"""A row of results.csv, complete or in the making, by column."""


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


@dataclass(frozen=True)
class Plan:
    """A suite under a protocol on data of one kind. repeats: noisy copies of the data; seed: of the noise."""

    suite: Suite
    protocol: EvaluationProtocol
    info: DatasetInfo
    repeats: int
    seed: int = 0

    def rows(self, data_digest: str = "") -> list[tuple[Level, Row]]:
        """Every row without its answer, and the level that it is about; ordered by perturbation, severity and repeat.
        data_digest: `DataModule.digest`, part of each row's `evaluation`.

        Perturbations that make no sense for these data are left out with a warning.

        Raises:
            BadInput: repeats < 1, or data that the protocol does not speak of.
        """
        check_repeats(self.repeats)
        for name, reason in refusals(self.suite, self.protocol, self.info).items():
            logger.warning("%s is left out: %s", name, reason)
        return [
            (level, _question(level, self.protocol, repeat, data_digest))
            for level in levels(self.suite, self.protocol, self.info)
            for repeat in range(self.repeats)
            if level.runs_in(repeat)
        ]


def refusals(suite: Suite, protocol: EvaluationProtocol, info: DatasetInfo) -> dict[str, str]:
    """Key and reason of every perturbation that makes no sense for these data.

    Raises BadInput if the protocol does not speak of such data at all, two perturbations would write the same row, or
    a setting of one of them (the loss of an attack) is not for such a task.
    """
    _check_distinct(suite, protocol)
    inside, reasons = protocol.bounds(info), {}
    for key, each in suite.items():
        reason = _unfit(each, info.task)
        if reason is None:
            with keyed(f"suite.{key}"):
                each.check(info.task)
            reason = each.refusal(info.bounds if each.in_data_units else inside)
        reasons[key] = reason or ""
    return {key: reason for key, reason in reasons.items() if reason}


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
    first: dict[tuple[Any, ...], str] = {}
    for key, perturbation in suite.items():
        for severity in perturbation.severities:
            level = Level(perturbation, severity)
            other = first.setdefault(tuple(_question(level, protocol, 0, "").values()), key)
            if other != key:
                raise BadInput(
                    f"suite.{other} and suite.{key}: both measure {level.title} with the same settings; change or "
                    "remove one"
                )


def levels(suite: Suite, protocol: EvaluationProtocol, info: DatasetInfo) -> list[Level]:
    """Every perturbation that makes sense at every severity, and the rows that the protocol adds, where the suite does
    not ask for them itself."""
    refused = refusals(suite, protocol, info)
    chosen = [perturbation for key, perturbation in suite.items() if key not in refused]
    if any(perturbation.corrupts and not perturbation.in_data_units for perturbation in chosen):
        named = {perturbation.name for perturbation in chosen}
        chosen += [extra for extra in protocol.extras if extra.name not in named]
    return [Level(perturbation, severity) for perturbation in chosen for severity in perturbation.severities]


def _question(level: Level, protocol: EvaluationProtocol, repeat: int, data_digest: str) -> Row:
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


def evaluation_digest(perturbation: Perturbation, protocol: EvaluationProtocol, data_digest: str) -> str:
    """8 hexadecimal digits of the SHA-256 of their classes and attributes, and of the data (`DataModule.digest`).

    The severities are left out: those that are measured later belong to the same evaluation. So are attributes
    whose name begins with an underscore (what an object merely remembers).
    """
    return _digest([_plain(perturbation, leave_out="severities"), _plain(protocol), data_digest])


def settings_digest(quantity: Quantity) -> str:
    """8 hexadecimal digits of the SHA-256 of its class and attributes: with others it gives other numbers."""
    return _digest(_plain(quantity))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: Any, leave_out: str = "") -> Any:
    """What of a value tells it from others, for JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    kind = value if isinstance(value, type) else type(value)
    kept = {} if kind is value else getattr(value, "__dict__", {})
    settings = {key: _plain(each) for key, each in kept.items() if key != leave_out and not key.startswith("_")}
    return {"class": kind.__qualname__, **settings}

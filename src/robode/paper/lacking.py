"""Which measurements of a trained run are still missing. Needs torch, but neither data nor network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig

from robode.composition import Request, compose_jobs, hydra_session
from robode.environment import FILE
from robode.files import read_json
from robode.instantiate import build, to_plain
from robode.paper.collect import newest
from robode.paper.selection import Selection
from robode.report import records
from robode.robustness.masking_file import key_of, keyed, read_part
from robode.runs import Run

CHOICES = ("suite", "protocol", "repeats", "seed", "batch_size")


def evaluations(selection: Selection) -> list[DictConfig]:
    """The configuration of every evaluation that follows a training; `run` is still missing.

    Raises:
        BadInput: words that `robode evaluate` does not understand.
    """
    found = []
    with hydra_session("evaluate") as session:
        for words in selection.evaluations():
            found += compose_jobs(session, Request("evaluate", words, False, selection.config_dirs))
    return found


def lacking(run: Run, config: Mapping[str, Any], asked: Iterable[DictConfig]) -> int:
    """How many rows, quantities and verdicts the run lacks of what the training (`config`) and the evaluations
    (`asked`) measure.

    Raises:
        BadInput: a suite that does not fit the data.
        JobFailed: results.csv or numbers.csv cannot be read.
    """
    from robode.data.parts import part_digest
    from robode.measurement import build_measurement
    from robode.robustness.masking_recorded import judgeable
    from robode.robustness.suite import plan

    source = build(config["data"]["source"])
    digest = str(read_json(run.folder / FILE).get("data_digest"))
    rows = newest(records.read_rows(run.folder / "results.csv"))
    weights = rows["weights"].iloc[-1] if len(rows) else ""
    known = {records.identity({str(name): value for name, value in row.items()}) for row in rows.to_dict("records")}
    judged = keyed(read_part(run.folder, "verdicts"))
    missing = 0
    for each in ({"split": "test"}, *map(to_plain, asked)):
        choices = {key: each[key] for key in CHOICES if each.get(key) is not None}
        measurement = build_measurement(config, source.facts, **choices)
        same = {"run": run.id, "weights": weights, "split": each["split"], "noise_seed": measurement.seed}
        data = part_digest(digest, each.get("limit"), source)
        wanted = plan(measurement.suite, measurement.protocol, source.facts, measurement.repeats, data)
        measured = [same | row for _, row in wanted if records.identity(same | row) in known]
        missing += len(wanted) - len(measured)
        if each.get("verdicts", 1):
            missing += sum(key_of(row) not in judged for row in measured if judgeable(run.folder, row))
        missing += sum(not quantity.known(run.folder, weights) for quantity in measurement.quantities.values())
    return missing

"""Which measurements of a trained run are still missing. Needs torch, but neither data nor network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig

from robode.config.compose import Request, compose_jobs, hydra_session
from robode.config.instantiate import build, to_plain
from robode.files import read_json
from robode.masking.file import key_of, keyed, read_part
from robode.papers.collect import Shelf, newest
from robode.papers.selection import Selection
from robode.runs import records
from robode.runs.environment import FILE
from robode.runs.origin import ANY, SAME
from robode.runs.run import Run

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


def shelf_of(selection: Selection, asked: Iterable[DictConfig]) -> Shelf:
    """The runs that count for a selection. asked: its `evaluations`."""
    return Shelf(code=selection.code, asked=[to_plain(each) for each in asked])


def lacking(run: Run, config: Mapping[str, Any], asked: Iterable[DictConfig], code: str = SAME) -> int:
    """How many rows, quantities and verdicts the run lacks of what the training (`config`) and the evaluations
    (`asked`) measure. code: SAME or ANY, whether what other code has measured counts.

    Raises:
        BadInput: a suite that does not fit the data.
        JobFailed: results.csv or numbers.csv cannot be read.
    """
    from robode.data.module import part_digest
    from robode.evaluation.measure import build_measurement
    from robode.masking.recorded import judgeable

    source = build(config["data"]["source"])
    digest = str(read_json(run.folder / FILE).get("data_digest"))
    rows = newest(records.read_rows(run.folder / "results.csv"))
    weights = rows["weights"].iloc[-1] if len(rows) else ""
    any_code = {"code": ""} if code == ANY else {}
    lines: Any = rows.to_dict("records")
    known = {records.identity(row | any_code) for row in lines}
    judged = keyed(read_part(run.folder, "verdicts"))
    missing = 0
    for each in ({"split": "test"}, *map(to_plain, asked)):
        choices = {key: each[key] for key in CHOICES if each.get(key) is not None}
        measurement = build_measurement(config, source.info, **choices)
        same = {"run": run.id, "weights": weights, "split": each["split"], "noise_seed": measurement.seed}
        data = part_digest(digest, each.get("limit"), source)
        wanted = measurement.planned(data)
        measured = [same | row for row in wanted if records.identity(same | row | any_code) in known]
        missing += len(wanted) - len(measured)
        if each.get("verdicts", 1):
            missing += sum(key_of(row) not in judged for row in measured if judgeable(run.folder, row))
        for name, quantity in measurement.quantities.items():
            knows = quantity.known(run.folder, weights) if any_code else measurement.knows(name, run.folder, weights)
            missing += not knows
    return missing

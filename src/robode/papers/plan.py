"""What a selection takes: its trainings, the evaluations that follow them, and what of it is still missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from robode.config.compose import Request, compose_evaluations, compose_trainings
from robode.config.config import EvaluateConfig, TrainConfig
from robode.errors import BadInput, JobFailed
from robode.files import read_json
from robode.masking.file import key_of, keyed, read_part
from robode.papers import spec
from robode.papers.selection import Selection
from robode.report.layout import Plain, TableRow
from robode.report.values import lines_of, newest
from robode.runs import results
from robode.runs.code import RECORD
from robode.runs.identity import config_hash
from robode.runs.origin import ANY, SAME
from robode.runs.run import Run
from robode.training.start import check_network

if TYPE_CHECKING:
    from robode.data.info import DatasetInfo
    from robode.evaluation.measure import Measurement


@dataclass(frozen=True)
class PlannedRun:
    """One training. number: of its row in the item; wanted: to be run, not only shown; start: the one with whose
    weights it begins, until these are known (`collect.Shelf.placed`)."""

    number: int
    row: TableRow
    seed: int
    overrides: tuple[str, ...]
    cfg: TrainConfig
    wanted: bool = True
    start: PlannedRun | None = None

    @property
    def name(self) -> str:
        """For people: row and seed."""
        return f"{self.row.name}, seed {self.seed}"

    @cached_property
    def plain(self) -> Plain:
        """The resolved configuration."""
        return self.cfg.plain()

    @cached_property
    def hash(self) -> str:
        """Of the training configuration."""
        return config_hash(self.plain)


def plan(selection: Selection) -> list[PlannedRun]:
    """Every training of the selection: seed 1 of all rows, then seed 2 of all rows …; those that begin with the weights
    of others after these. Composed once a row, no torch.

    Rows and seeds that were not asked for are in it too, not wanted: the report shows them where they are done.

    Raises:
        BadInput: overrides that do not compose.
    """
    jobs = []
    for number, row in enumerate(selection.item.rows):
        kept = [spec.key_of(each) for each in row.overrides] if row.start else []  # which no size may change: epochs=0
        of_size = [each for each in selection.size.overrides if spec.key_of(each) not in kept]
        own = (*row.overrides, *of_size, *selection.overrides)
        jobs.append(_seeded(selection, number, row, (f"experiment={selection.experiment}", *own)))
    longest = max(map(len, jobs))
    return _linked([row_jobs[i] for i in range(longest) for row_jobs in jobs if i < len(row_jobs)])


def _linked(jobs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The jobs with the ones that they begin with, which stand before them, and which whoever wants them wants too."""
    known: dict[tuple[str, int], PlannedRun] = {}
    waiting = list(jobs)
    while waiting:
        there = set(known)
        for job in waiting:
            if not job.row.start or (job.row.start, job.seed) in there:
                known[job.row.name, job.seed] = _after(job, known.get((job.row.start, job.seed)))
        waiting = [job for job in waiting if (job.row.name, job.seed) not in known]
    for job in reversed(known.values()):
        if job.wanted and job.start is not None:
            before = (job.row.start, job.seed)
            known[before] = replace(known[before], wanted=True)
    return list(known.values())


def _after(job: PlannedRun, start: PlannedRun | None) -> PlannedRun:
    """The job, which begins with the weights of another one. What it is follows from that one until its weights are
    there."""
    if start is None:
        return job
    check_network(f"start: {start.row.name}", start.cfg, job.cfg)
    return replace(job, start=start, cfg=replace(job.cfg, start=start.name, start_weights=f"of {start.hash}"))


def _seeded(selection: Selection, number: int, row: TableRow, overrides: tuple[str, ...]) -> list[PlannedRun]:
    """The jobs of one row, composed at once: composing once for each seed would take long."""
    planned, asked = selection.seeds_of(row), selection.seeds
    seeds = list(dict.fromkeys([*(asked or ()), *planned]))
    try:
        listed = f"seeds=[{','.join(map(str, seeds))}]"
        configs = compose_trainings(Request("train", (*overrides, listed), False, selection.config_dirs))
    except BadInput as error:
        raise BadInput(f"{error} (row '{row.name}' of {selection.name})") from error
    own = [*(["force=true"] if selection.force else []), *([f"code={ANY}"] if selection.code == ANY else [])]
    jobs = []
    for config in configs:
        seed = config.seed
        wanted = row.matches(selection.rows) and (asked is None or seed in asked)
        config = replace(config, code=ANY if selection.code == ANY else SAME, force=selection.force)
        jobs.append(PlannedRun(number, row, seed, (*overrides, f"seed={seed}", *own), config, wanted))
    return jobs


def evaluations(selection: Selection) -> list[EvaluateConfig]:
    """The configuration of every evaluation that follows a training; `run` is still missing.

    Raises:
        BadInput: overrides that `robode evaluate` does not understand.
    """
    dirs = selection.config_dirs
    asked = selection.evaluations()
    return [config for each in asked for config in compose_evaluations(Request("evaluate", each, False, dirs))]


def missing(run: Run, config: TrainConfig, asked: Iterable[EvaluateConfig], code: str = SAME) -> int:
    """How many rows, quantities and verdicts the run lacks of what the training (`config`) and the evaluations
    (`asked`) measure. code: SAME or ANY, whether what other code has measured counts. Needs torch, but neither data
    nor network.

    Raises:
        BadInput: a suite that does not fit the data.
        JobFailed: results.csv or numbers.csv cannot be read.
    """
    from robode.data.module import part_digest
    from robode.masking.verdict import judgeable

    source = config.data.source.build()
    digest = str(read_json(run.folder / RECORD).get("data_digest"))
    rows = newest(results.read_rows(run.folder / "results.csv"))
    weights = rows["weights"].iloc[-1] if len(rows) else ""
    any_code = {"code": ""} if code == ANY else {}
    known = {results.identity(row | any_code) for row in lines_of(rows)}
    judged = keyed(read_part(run.folder, "verdicts"))
    count = 0
    for measurement, split, limit, verdicts in _measurements(config, asked, source.info):
        same = {"run": run.id, "weights": weights, "split": split, "noise_seed": measurement.plan.seed}
        data = part_digest(digest, limit, source)
        wanted = [row for _, row in measurement.planned(data)]
        measured = [same | row for row in wanted if results.identity(same | row | any_code) in known]
        count += len(wanted) - len(measured)
        if verdicts:
            count += sum(key_of(row) not in judged for row in measured if judgeable(run.folder, row))
        count += sum(
            not measurement.knows(name, run.folder, weights, any_code=bool(any_code)) for name in measurement.quantities
        )
    return count


def _measurements(
    config: TrainConfig, asked: Iterable[EvaluateConfig], info: DatasetInfo
) -> Iterator[tuple[Measurement, str, int | None, int]]:
    """What a training and the evaluations after it measure; with the split, the limit and the verdicts of each."""
    from robode.evaluation.measure import build_measurement
    from robode.evaluation.request import Described, SuiteRequest

    described = Described.of(config)
    yield build_measurement(described, SuiteRequest.of(config), info), "test", None, 1
    for each in asked:
        request = SuiteRequest.later(each, config.seed)
        yield build_measurement(described, request, info), each.split, each.limit, each.verdicts


def unmeasured(selection: Selection, jobs: Iterable[PlannedRun], asked: Sequence[EvaluateConfig]) -> str:
    """One line that names the columns which no training and no evaluation of the item measures; empty without any.

    They are not refused: a smaller size may leave columns out, and rows that were measured by hand count. Only scores
    are judged, since which numbers a run writes is known when it has written them. Needs torch, but no data.
    """
    columns = {name: replace(each, n=None) for name, each in selection.item.columns.items() if not each.quantity}
    for config in {job.number: job.cfg for job in jobs}.values():
        if not columns:
            return ""
        try:
            of_row = list(_measurements(config, asked, config.data.source.build().info))
        except (BadInput, JobFailed):  # its job says so
            return ""
        planned = pd.DataFrame([row | {"split": split} for each, split, *_ in of_row for _, row in each.planned("")])
        columns = {name: each for name, each in columns.items() if each.of(planned).empty}
    if not columns:
        return ""
    return (
        f"no training and no evaluation of {selection.name} measures {', '.join(columns)}: not run, even when all jobs "
        "are complete; perturbation, severity, protocol and split must be those of a suite"
    )


def preview(selection: Selection, jobs: Sequence[PlannedRun], asked: Sequence[EvaluateConfig]) -> None:
    """Print each job with its state, what it still takes and its run; reads data and run folders, writes nothing.

    A run's name is never broken: in a terminal it has a line of its own, in a pipe a job is one line, for grep.

    Raises:
        BadInput: data that are missing, or a suite that does not fit them.
    """
    from robode.training.forecast import duration, forecast

    console = Console()
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    beside = "\n    " if console.is_terminal else "  "
    seconds: list[float | None] = []
    there = iter(forecast([job.cfg for job in jobs if job.start is None]))
    for number, job in enumerate(jobs):
        if job.start is not None:
            say(f"{number:>3} {job.name}: waits for {job.start.name}")
            seconds.append(None)
            continue
        each = next(there)
        left = missing(each.run, job.cfg, asked, selection.code) if each.run.trained else "all"
        say(f"{number:>3} {job.name}: {each.shown}, rows missing: {left}, training left: {duration(each.seconds)}"
            f"{beside}{each.run.folder}")  # fmt: skip
        seconds.append(each.seconds)
    known = [each for each in seconds if each is not None]
    parts = [f"about {duration(sum(known))} of training left"] if known else []
    parts += [f"{len(seconds) - len(known)} without an earlier run to judge by"] if len(known) < len(seconds) else []
    label = f" ({selection.label})" if selection.label else ""
    say(f"{selection.name}{label}: {len(jobs)} job{'s' if len(jobs) != 1 else ''}, {', '.join(parts)}")
    say(f"report:  {selection.folder}")

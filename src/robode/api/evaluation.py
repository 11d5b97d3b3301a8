"""Measure a trained run or anyone's module under perturbations, without training it again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from rich.console import Console

from robode.config.config import EvaluateConfig
from robode.config.jobs import Result
from robode.device import chosen_device
from robode.evaluation.measure import FLOW, build_measurement, held, measure, precision_warnings
from robode.evaluation.request import Scope, SuiteRequest
from robode.evaluation.target import EvaluationTarget, target_of
from robode.masking.file import FILE as MASKING
from robode.report.figures import draw_figures
from robode.report.page import other_code, write_page
from robode.report.tables import certificates_line, results_table
from robode.runs import results
from robode.runs.origin import OTHER_CODE
from robode.runs.progress import new_console
from robode.runs.run import Run

Row: TypeAlias = dict[str, Any]
"""Of results.csv."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluated(Result):
    """What a measurement leaves. report: the page; rows: what was asked for, as in results.csv; flow_ode,
    flow_discrete, end_to_end: the certified Lipschitz bounds (nan where there is no flow, inf where nothing is
    certified). score: on clean data, None where the suite has no clean row."""

    report: Path
    rows: list[Row] = field(repr=False)
    flow_ode: float
    flow_discrete: float
    end_to_end: float


def run_evaluation(config: EvaluateConfig, wait: bool = True) -> Evaluated:
    """Append what results.csv lacks of `config.suite` under `config.protocol` on `config.split`; refresh figures and
    page.

    `config.seed` is that of the noise (column noise_seed; null = the run's own); column seed stays the training's.
    wait: false = raise `Busy` where another process measures the run.

    Raises:
        BadInput: no such run, checkpoint, split or device, damaged files, or a suite that does not fit the data.
        JobFailed: the disk refuses.
    """
    console = new_console()
    return evaluated(config, console, wait).report(console, wait)


class Measured(NamedTuple):
    """What was asked for of a network: its rows as in results.csv. reused: whether all of them were there already."""

    target: EvaluationTarget
    rows: list[Row]
    reused: bool

    def report(self, console: Console, wait: bool = True) -> Evaluated:
        """`report` of these rows, with what a caller must know of them."""
        result = report(self.target.run, self.rows, console, wait)
        return replace(result, reused=self.reused, other_code=bool(self.target.note))


def evaluated(config: EvaluateConfig, console: Console, wait: bool = True) -> Measured:
    """What `run_evaluation` measures; figures and page stay as they are.

    Raises:
        BadInput, JobFailed: like `run_evaluation`.
    """
    chosen_device(config.device)  # before anything is read
    return measured(target_of(config), config, console, wait)


def measured(found: EvaluationTarget, config: EvaluateConfig, console: Console, wait: bool = True) -> Measured:
    """The rows of a target that has been found already; its folder is made when nothing can be refused any more.

    Raises:
        BadInput, JobFailed: like `run_evaluation`.
    """
    device = chosen_device(config.device)
    found.data.prepare()
    request = SuiteRequest.later(config, found.described.seed)
    measurement = build_measurement(found.described, request, found.data.info)
    measurement.check(found.network.to(device))
    said = [found.run.unfinished, found.note, *found.hints]
    for text in filter(None, [*said, *measurement.notes, *precision_warnings(found.described)]):
        console.print(text, highlight=False, soft_wrap=True)
    found.data.split(config.split)
    found.make_folder()
    before = _size(found.run)
    rows = measure(measurement, found, console, Scope(config.split, config.limit, config.verdicts, device, wait))
    return Measured(found, rows, reused=before == _size(found.run))


def report(run: Run, rows: list[Row], console: Console, wait: bool = True) -> Evaluated:
    """Print the table of these rows; draw every figure that the run's files allow and write the page, unless the page
    is newer than everything that it shows."""
    console.print(results_table(results.summarise(pd.DataFrame(rows)), title=run.id))
    bounds = {name: float(rows[0][name]) for name in FLOW}
    if not all(math.isnan(bound) for bound in bounds.values()):  # anyone's module has no flow
        console.print(certificates_line(**bounds), highlight=False, soft_wrap=True)
    end_to_end = float(rows[0]["end_to_end"])
    if not math.isnan(end_to_end):  # an earlier version measured these rows
        line = f"certified Lipschitz bound: x -> output (end_to_end) {end_to_end:.4g}, per data unit"
        console.print(line, highlight=False, soft_wrap=True)
    # under the lock, or one process could draw while another measures and replace the newer page by the older
    with held(run, console, wait), console.status("drawing figures"):
        page = run.folder / "report.html"
        if not _is_newest(page):
            draw_figures(run.folder)
            page = write_page(run.folder)
    console.print(f"report:  {page}", highlight=False, soft_wrap=True)
    clean = [row["score"] for row in rows if row["perturbation"] == "clean"]
    return Evaluated(
        run=run.folder, report=page, rows=rows, task=rows[0]["task"], score=clean[0] if clean else None,
        flow_ode=bounds["flow_ode"], flow_discrete=bounds["flow_discrete"], end_to_end=end_to_end,
    )  # fmt: skip


def _size(run: Run) -> list[int]:
    """Of the tables that a measurement adds to."""
    tables = [run.folder / name for name in ("results.csv", "numbers.csv")]
    return [table.stat().st_size if table.is_file() else 0 for table in tables]


def _is_newest(page: Path) -> bool:
    """Whether nothing that the page shows has changed since it was written, nor what it says of other code."""
    if not page.is_file():
        return False
    said, written = other_code(page.parent), page.read_text(encoding="utf-8")
    if bool(said) != (OTHER_CODE in written) or not all(line in written for line in said):
        return False
    shown = [path for kind in ("*.csv", "*.npz", "*.ckpt", MASKING) for path in page.parent.glob(kind)]
    return page.stat().st_mtime_ns > max((path.stat().st_mtime_ns for path in shown), default=0)

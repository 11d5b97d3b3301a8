"""Measure a trained run or anyone's module under perturbations, without training it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
from rich.console import Console
from rich.markup import escape

from robode.config.config import EvaluateConfig, plain
from robode.config.jobs import Result
from robode.data.info import Samples
from robode.data.parts import part, part_digest
from robode.device import chosen_device
from robode.evaluation.consistency import check_invariant
from robode.evaluation.measure import FLOW, About, Measurement, build_measurement, precision_warnings
from robode.evaluation.monotone import settle
from robode.evaluation.target import EvaluationTarget, target_of
from robode.masking.file import FILE as MASKING
from robode.masking.verdicts import Judging, lines
from robode.report.draw import draw_figures
from robode.report.page import write_page
from robode.report.tables import certificates_line, results_table
from robode.runs import journal, records
from robode.runs.code import network_code
from robode.runs.progress import counted
from robode.runs.run import Run
from robode.runs.store import Store

Row: TypeAlias = dict[str, Any]
"""Of results.csv."""


@dataclass(frozen=True, kw_only=True)
class Evaluated(Result):
    """What a measurement leaves. report: the page; rows: what was asked for, as in results.csv; flow_ode,
    flow_discrete, end_to_end: the certified Lipschitz bounds (nan where there is no flow, inf where nothing is
    certified). score: on clean data, None where the suite has no clean row."""

    report: Path
    rows: list[Row]
    flow_ode: float
    flow_discrete: float
    end_to_end: float


def run_evaluation(config: EvaluateConfig) -> Evaluated:
    """Append what results.csv lacks of `config.suite` under `config.protocol` on `config.split`; refresh figures and
    page.

    `config.seed` is that of the noise (column noise_seed; null = the run's own); column seed stays the training's.

    Raises:
        BadInput: no such run, checkpoint, split or device, damaged files, or a suite that does not fit the data.
        JobFailed: the disk refuses.
    """
    console = Console()
    return report(*evaluated(config, console), console)


def evaluated(config: EvaluateConfig, console: Console) -> tuple[Run, list[Row]]:
    """The run and its rows, as `run_evaluation` measures them; figures and page stay as they are.

    Raises:
        BadInput, JobFailed: like `run_evaluation`.
    """
    chosen_device(config.device)  # before anything is read
    found = target_of(config)
    return found.run, measured(found, config, console)


def measured(found: EvaluationTarget, config: EvaluateConfig, console: Console) -> list[Row]:
    """The rows of a target that has been found already; its folder is made when nothing can be refused any more.

    Raises:
        BadInput, JobFailed: like `run_evaluation`.
    """
    device = chosen_device(config.device)
    seed = 0 if config.seed is None and config.module is not None else config.seed  # nobody knows a module's own
    choices: dict[str, Any] = {} if seed is None else {"seed": seed}
    found.data.prepare()
    measurement = build_measurement(
        found.config, found.data.facts, suite=plain(config.suite), protocol=plain(config.protocol),
        repeats=config.repeats, batch_size=config.batch_size, **choices,
    )  # fmt: skip
    measurement.check(found.network.to(device))
    for text in filter(None, [found.note, *measurement.left_out, *precision_warnings(measurement.config)]):
        console.print(text, highlight=False, soft_wrap=True)
    found.data.split(config.split)
    found.make_folder()
    return measure(measurement, found, console, config.split, config.limit, config.verdicts, device)


def measure(
    measurement: Measurement,
    found: EvaluationTarget,
    console: Console,
    split: str = "test",
    limit: int | None = None,
    verdicts: int = 200,
    device: torch.device | None = None,
) -> list[Row]:
    """All rows that the measurement asks for, in its order: those that results.csv has, and the others measured now.

    They are appended after each noisy copy of the split, with the score of each sample, so a kill costs one copy at
    most. Another process that measures the same run is waited for, and its rows are known then. Quantities of the suite
    go to numbers.csv, and whether attacked accuracies can be believed to masking.json. limit: a part of the samples of
    the split (data.parts); another limit makes other rows. verdicts: on at most so many samples every attacked accuracy
    is questioned; 0: not. device: where all of it runs; None: where the run was trained, if that is here.

    Raises:
        BadInput: the data have no such split.
        JobFailed: the disk refuses, or a certificate is broken (evaluation.consistency).
    """
    run, network, data = found.run, found.network, found.data
    device = device or _device(measurement.config)
    network.to(device)
    samples = part(data.split(split, device), limit, data.source)
    if measurement.config["trainer"]["fast_dev_run"]:
        samples = part(samples, data.batch_size, data.source)
    digest = part_digest(data.digest, limit, data.source)
    about = measurement.about(run, network, split=split, checkpoint=found.checkpoint.stem, digest=digest)
    with _held(run, console):
        rows = _rows(measurement, about, found, samples, console)
        check_invariant(run.folder, about.columns["weights"], split, network_code(measurement.config))
        judging = Judging(run.folder, network, samples, data, digest, min(verdicts, len(samples.target)))
        for line in lines(judging.judged(rows, console)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for row in measurement.numbers(about, run, network, data):
            console.print(f"{row['quantity']}: {row['value']:.4g} ({row['kind']})", highlight=False, soft_wrap=True)
        return rows


def _rows(
    measurement: Measurement, about: About, found: EvaluationTarget, samples: Samples, console: Console
) -> list[Row]:
    """The rows asked for; what results.csv lacks is measured now. Samples for the grid figure are of the test set."""
    folder = found.run.folder
    store = Store(folder)
    asked = measurement.asked(about, len(samples.target))
    missing = [row for row in asked if row not in store]
    _say(console, len(asked), len(missing))
    if about.columns["split"] == "test" and (missing or not (folder / "samples.npz").is_file()):
        measurement.save_samples(found.run, found.network, *samples)
    if missing:
        with counted(console, "evaluation") as progress:
            measurement.rows(
                about, found.network, *samples, progress=progress, known=store.__contains__, finished=store.add
            )  # fmt: skip
    # not only after a measurement: the process that measured may have been killed before it
    settle(store, measurement.facts.task)
    return store.rows(asked)


def _held(run: Run, console: Console) -> AbstractContextManager[None]:
    """One process at a time measures a run."""
    line = f"waiting for the process that evaluates {run.id}"
    return journal.held(run.folder / ".evaluation.lock", lambda: console.print(line, highlight=False, soft_wrap=True))


def _say(console: Console, asked: int, missing: int) -> None:
    """What need not be measured any more."""
    if not missing:
        line = f"nothing to evaluate: results.csv has what was asked for ({asked} {'row' if asked == 1 else 'rows'})"
    elif missing < asked:
        line = f"evaluation: results.csv has {asked - missing} of {asked} rows"
    else:
        return
    console.print(line, highlight=False, soft_wrap=True)


def report(run: Run, rows: list[Row], console: Console) -> Evaluated:
    """Print the table of these rows; draw every figure that the run's files allow and write the page, unless the page
    is newer than everything that it shows."""
    console.print(results_table(records.summarise(pd.DataFrame(rows)), title=escape(run.id)))
    bounds = {name: float(rows[0][name]) for name in FLOW}
    if not all(math.isnan(bound) for bound in bounds.values()):  # anyone's module has no flow
        console.print(certificates_line(**bounds), highlight=False, soft_wrap=True)
    end_to_end = float(rows[0]["end_to_end"])
    if not math.isnan(end_to_end):  # an earlier version measured these rows
        line = f"certified Lipschitz bound: x -> output (end_to_end) {end_to_end:.4g}, per data unit"
        console.print(line, highlight=False, soft_wrap=True)
    # under the lock, or one process could draw while another measures and replace the newer page by the older
    with _held(run, console), console.status("drawing figures"):
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


def _is_newest(page: Path) -> bool:
    """Whether nothing that the page shows has changed since it was written."""
    if not page.is_file():
        return False
    shown = [path for kind in ("*.csv", "*.npz", "*.ckpt", MASKING) for path in page.parent.glob(kind)]
    return page.stat().st_mtime_ns > max((path.stat().st_mtime_ns for path in shown), default=0)


def _device(config: Mapping[str, Any]) -> torch.device:
    """Where the run was trained, if that is here."""
    gpu = config["trainer"]["accelerator"] == "gpu" and torch.cuda.is_available()
    return torch.device("cuda:0" if gpu else "cpu")

"""`robode evaluate`: measure a trained run or anyone's module under perturbations, without training it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from torch import nn

from robode.config.instantiate import to_plain
from robode.data.info import Samples
from robode.data.module import DataModule, part, part_digest
from robode.device import chosen_device
from robode.errors import BadInput
from robode.evaluation.consistency import check_invariant
from robode.evaluation.measure import FLOW, About, Measurement, build_measurement, precision_warnings
from robode.evaluation.monotone import settle
from robode.evaluation.target import Subject, subject
from robode.masking.file import FILE as MASKING
from robode.masking.verdicts import Judging, lines
from robode.report.draw import draw_figures
from robode.report.page import write_page
from robode.report.tables import certificates_line, results_table
from robode.runs import journal, records
from robode.runs.code import network_code
from robode.runs.run import Run
from robode.runs.store import Store
from robode.training.progress import counted

VERDICTS = 200  # samples on which an attacked accuracy is questioned, where nothing else is said
CHOICES = ("suite", "protocol", "repeats", "seed", "batch_size")


def run_evaluation(cfg: DictConfig) -> dict[str, Any]:
    """Append what results.csv lacks of `cfg.suite` under `cfg.protocol` on `cfg.split`; refresh figures and page.

    `cfg.seed` is that of the noise (column noise_seed; null = the run's own); column seed stays the training's.

    Returns:
        run (the folder), report (the page), rows, task, score (clean, or None), flow_ode, flow_discrete and
        end_to_end.

    Raises:
        BadInput: no such run, checkpoint, split or device, damaged files, or a suite that does not fit the data.
        JobFailed: the disk refuses.
    """
    console = Console()
    return report(*evaluated(cfg, console), console)


def evaluated(cfg: DictConfig, console: Console) -> tuple[Run, list[dict[str, Any]]]:
    """The run and its rows, as `run_evaluation` measures them; figures and page stay as they are.

    Raises:
        BadInput, JobFailed: like `run_evaluation`.
    """
    chosen_device(cfg.get("device", "auto"))  # before anything is read
    return measured(subject(cfg), cfg, console)


def measured(found: Subject, cfg: DictConfig, console: Console) -> tuple[Run, list[dict[str, Any]]]:
    """`evaluated` for a subject that has been found already; its folder is made when nothing can be refused any more.

    Raises:
        BadInput, JobFailed: like `run_evaluation`.
    """
    count = cfg.get("verdicts", VERDICTS)
    if count < 0:
        raise BadInput(
            f"verdicts={count}: expected a whole number of at least 0, the samples of a panel; 0 = no verdicts"
        )
    device = chosen_device(cfg.get("device", "auto"))
    choices = {key: value for key, value in to_plain(cfg).items() if key in CHOICES and value is not None}
    if cfg.module is not None:
        choices.setdefault("seed", 0)  # nobody knows its own
    found.data.prepare()
    measurement = build_measurement(found.config, found.data.info, **choices)
    measurement.check(found.network.to(device))
    for text in filter(None, [found.note, *measurement.left_out, *precision_warnings(measurement.config)]):
        console.print(text, highlight=False, soft_wrap=True)
    found.data.split(cfg.split)
    found.make_folder()
    parts = (found.run, found.network, found.data, found.checkpoint)
    return found.run, measure(measurement, *parts, console, cfg.split, cfg.limit, count, device)


def measure(
    measurement: Measurement,
    run: Run,
    network: nn.Module,
    data: DataModule,
    checkpoint: Path,
    console: Console,
    split: str = "test",
    limit: int | None = None,
    verdicts: int = VERDICTS,
    device: torch.device | None = None,
) -> list[dict[str, Any]]:
    """All rows that the measurement asks for, in its order: those that results.csv has, and the others measured now.

    They are appended after each noisy copy of the split, with the score of each sample (report.scores), so a
    kill costs one copy at most. Another process that measures the same run is waited for, and its rows are known
    then. limit: a part of the samples (data.module); another limit makes other rows. Quantities of the suite go to
    numbers.csv, and whether attacked accuracies can be believed to masking.json, decided on at most `verdicts` samples
    (0: not decided). device: where all of it runs; None: where the run was trained, if that is here.

    Raises:
        BadInput: the data have no such split.
        JobFailed: the disk refuses, or a certificate is broken (robustness.invariant).
    """
    device = device or _device(measurement.config)
    network.to(device)
    samples = part(data.split(split, device), limit, data.source)
    if measurement.config["trainer"]["fast_dev_run"]:
        samples = part(samples, data.batch_size, data.source)
    digest = part_digest(data.digest, limit, data.source)
    about = measurement.about(run, network, split=split, checkpoint=checkpoint.stem, digest=digest)
    with _held(run, console):
        rows = _rows(measurement, about, run, network, samples, console)
        check_invariant(run.folder, about.columns["weights"], split, network_code(measurement.config))
        count = min(verdicts, len(samples.target))
        judging = Judging(run.folder, network, samples, data, digest, count)
        for line in lines(judging.judged(rows, console)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for row in measurement.numbers(about, run, network, data):
            console.print(f"{row['quantity']}: {row['value']:.4g} ({row['kind']})", highlight=False, soft_wrap=True)
        return rows


def _rows(
    measurement: Measurement, about: About, run: Run, network: nn.Module, samples: Samples, console: Console
) -> list[dict[str, Any]]:
    """The rows asked for; what results.csv lacks is measured now. Samples for the grid figure are of the test set."""
    store = Store(run.folder)
    asked = measurement.asked(about, len(samples.target))
    missing = [row for row in asked if row not in store]
    _say(console, len(asked), len(missing))
    if about.columns["split"] == "test" and (missing or not (run.folder / "samples.npz").is_file()):
        measurement.save_samples(run, network, *samples)
    if missing:
        with counted(console, "evaluation") as progress:
            measurement.rows(
                about, network, *samples, progress=progress, known=store.__contains__, finished=store.add
            )  # fmt: skip
    settle(
        store, measurement.info.task
    )  # not only after a measurement: the process that measured may have been killed before it
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


def report(run: Run, rows: list[dict[str, Any]], console: Console) -> dict[str, Any]:
    """Print the table of these rows; draw every figure that the run's files allow and write the page, unless the page
    is newer than everything that it shows.

    Returns:
        run (the folder), report (the page), rows, task, score (clean, or None), flow_ode, flow_discrete and
        end_to_end.
    """
    summary = records.summarise(pd.DataFrame(rows))
    console.print(results_table(summary, title=escape(run.id)))
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
    return {
        "run": str(run.folder),
        "report": str(page),
        "rows": rows,
        "task": rows[0]["task"],
        "score": clean[0] if clean else None,
        **bounds,
        "end_to_end": end_to_end,
    }


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

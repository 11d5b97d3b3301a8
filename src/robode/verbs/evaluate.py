"""`robode evaluate`: measure a trained run or anyone's module under perturbations, without training it again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console

from robode.config.instantiate import to_plain
from robode.device import chosen_device
from robode.errors import BadInput
from robode.evaluation.measure import FLOW, VERDICTS, Scope, build_measurement, held, measure, precision_warnings
from robode.evaluation.target import Subject, subject
from robode.masking.file import FILE as MASKING
from robode.report.figures import draw_figures
from robode.report.page import other_code, write_page
from robode.report.tables import certificates_line, results_table
from robode.runs import results
from robode.runs.origin import OTHER_CODE
from robode.runs.run import Run

__all__ = ["evaluated", "measure", "measured", "report", "run_evaluation"]

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
    scope = Scope(cfg.split, cfg.limit, count, chosen_device(cfg.get("device", "auto")))
    choices = {key: value for key, value in to_plain(cfg).items() if key in CHOICES and value is not None}
    if cfg.module is not None:
        choices.setdefault("seed", 0)  # nobody knows its own
    found.data.prepare()
    measurement = build_measurement(found.config, found.data.facts, **choices)
    measurement.check(found.network.to(scope.device))
    for text in filter(None, [found.note, *measurement.notes, *precision_warnings(measurement.config)]):
        console.print(text, highlight=False, soft_wrap=True)
    found.data.split(cfg.split)
    found.make_folder()
    parts = (found.run, found.network, found.data, found.checkpoint)
    return found.run, measure(measurement, *parts, console, scope)


def report(run: Run, rows: list[dict[str, Any]], console: Console) -> dict[str, Any]:
    """Print the table of these rows; draw every figure that the run's files allow and write the page, unless the page
    is newer than everything that it shows.

    Returns:
        run (the folder), report (the page), rows, task, score (clean, or None), flow_ode, flow_discrete and
        end_to_end.
    """
    summary = results.summarise(pd.DataFrame(rows))
    console.print(results_table(summary, title=run.id))
    bounds = {name: float(rows[0][name]) for name in FLOW}
    if not all(math.isnan(bound) for bound in bounds.values()):  # anyone's module has no flow
        console.print(certificates_line(**bounds), highlight=False, soft_wrap=True)
    end_to_end = float(rows[0]["end_to_end"])
    if not math.isnan(end_to_end):  # an earlier version measured these rows
        line = f"certified Lipschitz bound: x -> output (end_to_end) {end_to_end:.4g}, per data unit"
        console.print(line, highlight=False, soft_wrap=True)
    # under the lock, or one process could draw while another measures and replace the newer page by the older
    with held(run, console), console.status("drawing figures"):
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
    """Whether nothing that the page shows has changed since it was written, nor what it says of other code."""
    if not page.is_file():
        return False
    said, written = other_code(page.parent), page.read_text(encoding="utf-8")
    if bool(said) != (OTHER_CODE in written) or not all(line in written for line in said):
        return False
    shown = [path for kind in ("*.csv", "*.npz", "*.ckpt", MASKING) for path in page.parent.glob(kind)]
    return page.stat().st_mtime_ns > max((path.stat().st_mtime_ns for path in shown), default=0)

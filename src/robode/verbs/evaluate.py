"""`robode evaluate`: measure a trained run or anyone's module under perturbations, without training it again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from robode.config.instantiate import to_plain
from robode.device import chosen_device
from robode.errors import BadInput
from robode.evaluation.measure import FLOW, Asked, build_measurement, held, measure, precision_warnings
from robode.evaluation.target import Subject, subject
from robode.masking.file import FILE as MASKING
from robode.report.draw import draw_figures
from robode.report.page import write_page
from robode.report.tables import certificates_line, results_table
from robode.runs import records
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
    count = cfg.get("verdicts", Asked.verdicts)
    if count < 0:
        raise BadInput(
            f"verdicts={count}: expected a whole number of at least 0, the samples of a panel; 0 = no verdicts"
        )
    asked = Asked(cfg.split, cfg.limit, count, chosen_device(cfg.get("device", "auto")))
    choices = {key: value for key, value in to_plain(cfg).items() if key in CHOICES and value is not None}
    if cfg.module is not None:
        choices.setdefault("seed", 0)  # nobody knows its own
    found.data.prepare()
    measurement = build_measurement(found.config, found.data.facts, **choices)
    measurement.check(found.network.to(asked.device))
    for text in filter(None, [found.note, *measurement.left_out, *precision_warnings(measurement.config)]):
        console.print(text, highlight=False, soft_wrap=True)
    found.data.split(cfg.split)
    found.make_folder()
    return found.run, measure(measurement, found, console, asked)


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
    """Whether nothing that the page shows has changed since it was written."""
    if not page.is_file():
        return False
    shown = [path for kind in ("*.csv", "*.npz", "*.ckpt", MASKING) for path in page.parent.glob(kind)]
    return page.stat().st_mtime_ns > max((path.stat().st_mtime_ns for path in shown), default=0)

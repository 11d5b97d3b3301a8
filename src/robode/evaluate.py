"""`robode evaluate`: measure a trained run under perturbations, without training it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from robode.data.module import DataModule
from robode.instantiate import to_plain
from robode.measurement import Measurement, build_measurement, precision_warnings
from robode.network import Network, build_network
from robode.report import records
from robode.report.draw import draw_figures
from robode.report.page import write_page
from robode.report.tables import certificates_line, results_table
from robode.runs import Run, checkpoint_path, find
from robode.training.assembly import build_data
from robode.training.checkpoints import load_weights
from robode.training.progress import counted

CHOICES = ("suite", "protocol", "repeats", "seed", "batch_size")


def run_evaluation(cfg: DictConfig) -> dict[str, Any]:
    """Append rows for `cfg.suite` under `cfg.protocol` to results.csv; refresh figures and page.

    `cfg.seed` is that of the noise (column noise_seed; null = the run's own); column seed stays the training's.

    Returns:
        run (the folder), report (the page), rows, accuracy (clean, or None), flow_ode and flow_discrete.

    Raises:
        BadInput: no such run or checkpoint, damaged files, or a suite that does not fit the data.
        JobFailed: the disk refuses.
    """
    console = Console()
    run, named = find(cfg.run)
    checkpoint = checkpoint_path(run, named or cfg.checkpoint)
    config = run.config()
    if cfg.data.root is not None:
        for node in (config.data, config.data.source):
            if "root" in node:
                node.root = cfg.data.root
    data = build_data(config)
    data.prepare()
    network = build_network(config, data.facts)
    load_weights(checkpoint, network)
    choices = {key: value for key, value in to_plain(cfg).items() if key in CHOICES and value is not None}
    measurement = build_measurement(to_plain(config), data.facts, **choices)
    for text in [*measurement.left_out, *precision_warnings(measurement.config)]:
        console.print(text, highlight=False, soft_wrap=True)
    rows = measure(measurement, run, network, data, checkpoint, console)
    return report(run, rows, console)


def measure(
    measurement: Measurement, run: Run, network: Network, data: DataModule, checkpoint: Path, console: Console
) -> list[dict[str, Any]]:
    """Measure a network on the test set, append to results.csv, save samples for the grid figure."""
    network.to(_device(measurement.config))
    x, labels = data.split("test")
    if measurement.config["trainer"]["fast_dev_run"]:
        x, labels = x[: data.batch_size], labels[: data.batch_size]
    with counted(console, "evaluation") as progress:
        rows = measurement.rows(run, network, x, labels, split="test", checkpoint=checkpoint.stem, progress=progress)
    records.append_rows(run.folder / "results.csv", rows)
    measurement.save_samples(run, network, x, labels)
    return rows


def report(run: Run, rows: list[dict[str, Any]], console: Console) -> dict[str, Any]:
    """Print the table of these rows, draw every figure that the run's files allow, and write the page.

    Returns:
        run (the folder), report (the page), rows, accuracy (clean, or None), flow_ode and flow_discrete.
    """
    summary = records.summarise(pd.DataFrame(rows))
    console.print(results_table(summary, title=escape(run.id)))
    bounds = {name: float(rows[0][name]) for name in ("flow_ode", "flow_discrete")}
    console.print(certificates_line(**bounds), highlight=False, soft_wrap=True)
    with console.status("drawing figures"):
        figures = draw_figures(run.folder)
        page = write_page(run.folder)
    if figures:
        console.print(f"figures: {figures[0].parent}", highlight=False, soft_wrap=True)
    console.print(f"report:  {page}", highlight=False, soft_wrap=True)
    clean = [row["accuracy"] for row in rows if row["perturbation"] == "clean"]
    return {
        "run": str(run.folder),
        "report": str(page),
        "rows": rows,
        "accuracy": clean[0] if clean else None,
        **bounds,
    }


def _device(config: Mapping[str, Any]) -> torch.device:
    """Where the run was trained, if that is here."""
    gpu = config["trainer"]["accelerator"] == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")

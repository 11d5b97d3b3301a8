"""`robode train`: seed, data, network, fit, suites, figures, page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robode import environment
from robode.evaluate import measure, report
from robode.instantiate import to_plain
from robode.job import job
from robode.measurement import build_measurement, warnings_about
from robode.resume import resumed
from robode.runs import Run, checkpoint_path, create, read_json
from robode.training.assembly import Parts, assemble, build_loggers
from robode.training.checkpoints import load_weights
from robode.training.processes import together
from robode.training.trainer import fit, processes


def run_training(cfg: DictConfig, words: Sequence[str] = ()) -> dict[str, Any]:
    """Train the network of `cfg`, or continue the run `cfg.resume`, then measure it and write its report.

    words: the `key=value` that the user typed; a resumed run takes its configuration from its folder and only
    these from the command line.

    Returns:
        run (the folder), report (the page), rows, accuracy (clean), flow_ode and flow_discrete.

    Raises:
        BadInput: before anything is written.
        JobFailed: NaN, disk.
        KeyboardInterrupt: the run is marked interrupted and can be resumed.
    """
    console, began = Console(), time.monotonic()
    run: Run | None = None
    if cfg.resume is not None:
        cfg, run = resumed(cfg, words)
    threads = read_json(run.folder / "environment.json").get("threads") if run else None
    config = to_plain(cfg)
    with together(processes(config["trainer"])) as workers:
        parts = assemble(cfg, console, threads)
        measurement = build_measurement(config, parts.data.facts, **_reduced(config))
        start = run.last if run else None
        if start is not None:
            load_weights(start, parts.network)  # says in one line what does not fit
        run = run or create(cfg)
        with job(run):
            console.print(f"run:     {run.folder}", highlight=False, soft_wrap=True)
            environment.record(run, config, parts.data.digest)
            workers.start(run, resumed=start is not None)
            _train(parts, run, start, console)
            checkpoint = checkpoint_path(run, "best")
            load_weights(checkpoint, parts.network)
            _warn(parts, run, console)
            rows = measure(measurement, run, parts.network, parts.data, checkpoint, console)
            environment.finish(run, began)
    return report(run, rows, console)


def _train(parts: Parts, run: Run, start: Path | None, console: Console) -> None:
    parts.module.run = run
    parts.trainer.loggers = build_loggers(parts.module.config["logger"], run)
    _warn(parts, run, console)
    try:
        fit(parts.trainer, parts.module, parts.data, start)
    except KeyboardInterrupt:
        done = run.status().get("epoch", 0)
        how = f"continue with: robode train resume={run.folder}" if done else "nothing was saved yet"
        console.print(f"interrupted after {done} epochs; {how}", highlight=False, soft_wrap=True)
        raise


def _warn(parts: Parts, run: Run, console: Console) -> None:
    """Say once, and write down, what a user of these settings should know."""
    for text in warnings_about(parts.network):
        if run.warn(text):
            console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)


def _reduced(config: Mapping[str, Any]) -> dict[str, Any]:
    """fast_dev_run tries every part once."""
    return {"repeats": 1} if config["trainer"]["fast_dev_run"] else {}

"""`robode train`: seed, data, network, fit, suites, figures, page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robode import environment
from robode.data.module import DataModule
from robode.evaluate import measure, report
from robode.instantiate import to_plain
from robode.job import job
from robode.measurement import Measurement, build_measurement, precision_warnings, warnings_about
from robode.network import build_network
from robode.resume import resumed
from robode.runs import Run, checkpoint_path, create
from robode.training.assembly import assemble, build_loggers
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
    old: Run | None = None
    if cfg.resume is not None:
        cfg, old = resumed(cfg, words)
    config = to_plain(cfg)
    with together(processes(config["trainer"])) as workers:
        parts = assemble(cfg, console, environment.threads_of(old) if old else None)
        measurement = build_measurement(config, parts.data.facts, **_reduced(config))
        if old:
            load_weights(old.last, parts.network)  # says in one line what does not fit
        run = old or create(cfg)
        with job(run, console):
            run.save_config(config)
            console.print(f"run:     {run.folder}", highlight=False, soft_wrap=True)
            environment.record(run, config, parts.data.digest)
            known = [*measurement.left_out, *precision_warnings(config), *warnings_about(parts.network)]
            _warn(run, known, console)
            workers.start(run, resumed=old is not None)
            parts.module.run = run
            parts.trainer.loggers = build_loggers(config["logger"], run)
            fit(parts.trainer, parts.module, parts.data, old.last if old else None)
            rows = _measure_best(run, cfg, parts.data, measurement, console)
            environment.finish(run, began)
            run.update(status="done")  # the page shows it; the job marks the run anew if drawing fails
            return report(run, rows, console)


def _measure_best(
    run: Run, cfg: DictConfig, data: DataModule, measurement: Measurement, console: Console
) -> list[dict[str, Any]]:
    """Measure the network that `robode evaluate` will see."""
    checkpoint = checkpoint_path(run, "best")
    network = build_network(cfg, data.facts)
    load_weights(checkpoint, network)
    _warn(run, warnings_about(network), console)
    return measure(measurement, run, network, data, checkpoint, console)


def _warn(run: Run, texts: Sequence[str], console: Console) -> None:
    """Say once, and write down, what a user of these settings should know."""
    for text in texts:
        if run.warn(text):
            console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)


def _reduced(config: Mapping[str, Any]) -> dict[str, Any]:
    """fast_dev_run tries every part once."""
    return {"repeats": 1} if config["trainer"]["fast_dev_run"] else {}

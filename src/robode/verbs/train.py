"""`robode train`: find the run or make it, fit what is missing, measure what is missing, draw the page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robode.config.instantiate import to_plain
from robode.config.seeds import one_each
from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.evaluation.measure import Measurement, build_measurement, precision_warnings, warnings_about
from robode.network import build_network
from robode.runs import environment, records
from robode.runs.job import job, turn
from robode.runs.origin import FORCE, START, check_code, check_data
from robode.runs.run import Run, checkpoint_path, create, locate, set_aside
from robode.training.assembly import Parts, assemble, build_data, build_loggers
from robode.training.checkpoints import load_weights
from robode.training.processes import Workers, together
from robode.training.resume import resumed
from robode.training.trainer import fit, processes
from robode.verbs.evaluate import measure, report


def run_training(cfg: DictConfig, words: Sequence[str] = (), wait: bool = True) -> dict[str, Any]:
    """Train the network of `cfg`, or continue the run `cfg.resume`, then measure it and write its report.

    Nothing is done twice: a run that was trained before is only measured, and only where rows are missing; one
    that was cut off goes on from its last epoch; one that another process has is waited for. A run that other code
    has begun is refused unless `cfg.code` is "any", one of other data always.

    words: the `key=value` that the user typed; a resumed run takes its configuration from its folder and only
    these from the command line. wait: false = raise `Busy` where another process has the run.

    Returns:
        run (the folder), report (the page), rows, task, score (clean), flow_ode, flow_discrete, trained (False where
        an earlier training was reused) and other_code (whether that was made by other sources).

    Raises:
        BadInput: before anything is written.
        JobFailed: NaN, disk.
        KeyboardInterrupt: the run is marked interrupted and can be resumed.
    """
    if cfg.get("seeds") is not None:
        return _run_seeds(cfg, words, wait)
    console, continued = Console(), cfg.resume is not None
    code, ways = cfg.code, (START,) if continued else (FORCE,)
    cfg, run = resumed(cfg, words) if continued else (cfg, None)
    config, data = to_plain(cfg), build_data(cfg)
    run = run or locate(config, data.digest)
    anew = not continued and cfg.force
    with together(processes(config["trainer"])) as workers:
        with _refused(run):
            note = "" if anew else _checked(run, data, code, ways)
            parts = assemble(cfg, console, environment.threads_of(run), data)
            measurement = build_measurement(config, parts.data.info, **_reduced(config))
            measurement.check(parts.network)
        with turn(run, console, wait):
            if not anew:  # another process may have had it meanwhile
                _checked(run, data, code, ways)
            run = run if continued else _prepared(run, cfg)
            unfinished = continued or not run.trained
            with job(run, console):
                for line in filter(None, [f"run:     {run.folder}", note]):
                    console.print(line, highlight=False, soft_wrap=True)
                if unfinished:
                    _train(run, config, parts, measurement, workers, console)
                rows = _measure_best(run, cfg, parts.data, measurement, console)
                run.update(status="done")  # the page shows it; the job marks the run anew if drawing fails
                result = report(run, rows, console)
    return result | {"trained": unfinished, "other_code": bool(note)}


def _checked(run: Run, data: DataModule, code: str, ways: Sequence[str]) -> str:
    """`check_code`'s line about a run that is there already and saw these data. Raises `BadInput`."""
    if not run.exists:
        return ""
    check_data(run, data.digest)
    return check_code(run, code, *ways)


def _run_seeds(cfg: DictConfig, words: Sequence[str], wait: bool) -> dict[str, Any]:
    """Each seed in turn, a run of its own. Raises `JobFailed` at the end if some seed failed; the others are done."""
    results, failures = [], []
    for each in one_each(cfg):
        try:
            results.append(run_training(each, words, wait))
        except JobFailed as error:
            failures.append(f"seed {each.seed}: {error}")
    if failures:
        raise JobFailed("; ".join(failures))
    either = {name: any(result[name] for result in results) for name in ("trained", "other_code")}
    return results[-1] | either | {"runs": [r["run"] for r in results]}


@contextmanager
def _refused(run: Run) -> Iterator[None]:
    """A job that was queued and turns out to be impossible does not stay queued."""
    try:
        yield
    except BadInput as error:
        if run.state == "queued":
            run.update(status="failed", error=str(error))
        raise


def _prepared(run: Run, cfg: DictConfig) -> Run:
    """The run's folder, emptied where the user wants it trained anew."""
    if cfg.force and (run.folder / "config.yaml").is_file():
        set_aside(run)
    return create(run, cfg)


def _train(
    run: Run, config: Mapping[str, Any], parts: Parts, measurement: Measurement, workers: Workers, console: Console
) -> None:
    """Fit from the beginning, or from last.ckpt if there is one."""
    began, checkpoint = time.monotonic(), run.last if run.last.is_file() else None
    if checkpoint:
        load_weights(checkpoint, parts.network)  # says in one line what does not fit
        console.print(f"goes on after epoch {run.status().get('epoch', 0)}", highlight=False)
    records.widen(run.folder / "robustness_sweep.csv")
    run.save_config(config)
    run.update(trained=False)
    environment.record(run, config, parts.data.digest)
    known = [*measurement.left_out, *precision_warnings(config), *warnings_about(parts.network)]
    _warn(run, known, console)
    workers.start(run, resumed=checkpoint is not None)
    parts.module.run = run
    parts.trainer.loggers = build_loggers(config["logger"], run)
    fit(parts.trainer, parts.module, parts.data, checkpoint)
    environment.finish(run, began)
    run.update(trained=True)


def _measure_best(
    run: Run, cfg: DictConfig, data: DataModule, measurement: Measurement, console: Console
) -> list[dict[str, Any]]:
    """Measure the network that `robode evaluate` will see."""
    checkpoint = checkpoint_path(run, "best")
    network = build_network(cfg, data.info)
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

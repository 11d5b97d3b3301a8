"""Find the run or make it, fit what is missing, measure what is missing, draw the page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from robode.api.evaluation import Evaluated, report
from robode.config.config import TrainConfig
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.measure import (
    Measurement,
    build_measurement,
    measure,
    precision_warnings,
    warnings_about,
)
from robode.evaluation.request import Described, Scope, SuiteRequest
from robode.evaluation.target import EvaluationTarget
from robode.network import build_network, engine_of
from robode.runs import origin
from robode.runs.checkpoints import load_weights
from robode.runs.lock import job, turn
from robode.runs.origin import FORCE, START, check_code, check_data
from robode.runs.progress import new_console
from robode.runs.results import SWEEP
from robode.runs.run import Run, checkpoint_path, create, locate, set_aside
from robode.runs.table import BSM_NORMS, METRICS
from robode.training.assembly import Parts, assemble, build_data, build_loggers
from robode.training.plan import resumed
from robode.training.recorder import log_untrained
from robode.training.start import begin, check_other, check_start, pinned
from robode.training.trainer import Workers, fit, processes, worker_processes


@dataclass(frozen=True, kw_only=True, repr=False)
class Trained(Evaluated):
    """What a training leaves. reused: whether nothing was trained, because an earlier training was found again."""


def run_training(config: TrainConfig, words: Sequence[str] = (), wait: bool = True) -> Trained:
    """Train the network of `config`, or continue the run `config.resume`, then measure it and write its report.

    Nothing is done twice: a run that was trained before is only measured, and only where rows are missing; one
    that was cut off goes on from its last epoch; one that another process has is waited for. A run that other code
    has begun is refused unless `config.code` is "any", one of other data always.

    words: the `key=value` that the user typed; a resumed run takes its configuration from its folder and only
    these from the command line. wait: false = raise `Busy` where another process has the run or measures it.

    Raises:
        BadInput: before anything is written.
        JobFailed: NaN, disk.
        KeyboardInterrupt: the run is marked interrupted and can be resumed.
    """
    console, continued, code = new_console(), config.resume is not None, config.code
    ways = (START,) if continued else (FORCE,)
    said = "" if continued else check_start(config)
    config, data, run = _placed(config, words)
    anew = not continued and config.force
    fresh = anew or not run.begun
    with worker_processes(processes(config.trainer)) as workers:
        with _refused(run):
            note = "" if anew else _checked(run, data, code, ways)
            parts = assemble(config, console, origin.threads_of(run), data, fresh)
            measurement = _measurement(config, parts)
        with turn(run, console, wait):
            if not anew:  # another process may have had it meanwhile
                _checked(run, data, code, ways)
            run = run if continued else _prepared(run, config)
            if not fresh and not run.begun:  # another process has set it aside
                begin(parts.network, config)
            before = run.status().get("step", 0)
            with job(run, console):
                for line in filter(None, [f"run:     {run.folder}", said, note]):
                    console.print(line, highlight=False, soft_wrap=True)
                if continued or not run.trained:
                    _train(run, config, parts, measurement, workers, console)
                found = _reported(run, config, parts.data, measurement, console, wait)
    reused = not fresh and run.status().get("step", 0) == before
    return Trained(**{**vars(found), "reused": reused, "other_code": bool(note)})


def _placed(config: TrainConfig, words: Sequence[str]) -> tuple[TrainConfig, DataModule, Run]:
    """What is trained, on which data, in which run; one that goes on has its own configuration. Raises `BadInput`."""
    if config.resume is not None:
        config, run = resumed(config, words)
        return config, build_data(config), run
    config = pinned(config)
    data = build_data(config)
    run = locate(config, data.digest)
    if config.force:
        check_other(config, run.folder)
    return config, data, run


def _measurement(config: TrainConfig, parts: Parts) -> Measurement:
    """What follows the training. Raises `BadInput` for what does not suit the network or the data."""
    measurement = build_measurement(Described.of(config), SuiteRequest.of(config), parts.data.info)
    measurement.check(parts.network)
    return measurement


def _checked(run: Run, data: DataModule, code: str, ways: Sequence[str]) -> str:
    """`check_code`'s line about a run that is there already and saw these data. Raises `BadInput`."""
    if not run.exists:
        return ""
    check_data(run, data.digest)
    return check_code(run, code, *ways)


@contextmanager
def _refused(run: Run) -> Iterator[None]:
    """A job that was queued and turns out to be impossible does not stay queued."""
    try:
        yield
    except BadInput as error:
        if run.state == "queued":
            run.update(status="failed", error=str(error))
        raise


def _prepared(run: Run, config: TrainConfig) -> Run:
    """The run's folder, emptied where the user wants it trained anew."""
    if config.force and (run.folder / "config.yaml").is_file():
        set_aside(run)
    return create(run, config)


def _engine(parts: Parts) -> str:
    """What takes the batches of the training through the flow, on its device and in its precision."""
    with parts.trainer.precision_plugin.forward_context():
        return engine_of(parts.network, parts.trainer.strategy.root_device)


def _train(
    run: Run, config: TrainConfig, parts: Parts, measurement: Measurement, workers: Workers, console: Console
) -> None:
    """Fit from the beginning, or from last.ckpt if there is one."""
    began, checkpoint = time.monotonic(), run.last if run.last.is_file() else None
    if checkpoint:
        load_weights(checkpoint, parts.network)  # says in one line what does not fit
        console.print(f"goes on after epoch {run.status().get('epoch', 0)}", highlight=False)
    parts.trainer.loggers = build_loggers(config.logger, run)  # the last that can be refused
    run.save_config(config)
    run.update(trained=False)
    origin.record(run, config, parts.data.digest, _engine(parts))
    known = [*measurement.notes, *precision_warnings(Described.of(config)), *warnings_about(parts.network)]
    _warn(run, known, console)
    workers.start(run, resumed=checkpoint is not None)
    parts.module.run = run
    fit(parts.trainer, parts.module, parts.data, checkpoint)
    if config.epochs == 0 and processes(config.trainer) == 1:  # of several, the others have ended
        log_untrained(parts.trainer, parts.module, parts.data)
    for table, name in ((METRICS, "metrics.csv"), (BSM_NORMS, "bsm.csv"), (SWEEP, "robustness_sweep.csv")):
        table.tidy(run.folder / name)
    origin.finish(run, began)
    run.update(trained=True)


def _reported(
    run: Run, config: TrainConfig, data: DataModule, measurement: Measurement, console: Console, wait: bool
) -> Evaluated:
    """Measure the network that `robode evaluate` will see, and draw the page."""
    checkpoint = checkpoint_path(run, "best")
    network = build_network(config, data.info)
    load_weights(checkpoint, network)
    _warn(run, warnings_about(network), console)
    target = EvaluationTarget(run, network, data, checkpoint, Described.of(config), {})
    rows = measure(measurement, target, console, Scope(wait=wait))
    run.update(status="done")  # the page shows it; the job marks the run anew if drawing fails
    return report(run, rows, console, wait)


def _warn(run: Run, texts: Sequence[str], console: Console) -> None:
    """Say once, and write down, what a user of these settings should know."""
    for text in texts:
        if run.warn(text):
            console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)

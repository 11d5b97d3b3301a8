"""What a command line would do: each job's run, its state, and what is left of its training by earlier runs' times."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robode.config.config import Config, EvaluateConfig, ExportConfig, TrainConfig
from robode.config.jobs import Job
from robode.errors import BadInput
from robode.runs.lock import state_now
from robode.runs.origin import FORCE, OTHER_CODE, START, check_code, check_data, seconds_of
from robode.runs.run import OUTPUTS, REPLACED, Run, find
from robode.training.plan import located, resumed
from robode.training.stabilise import as_training

Speeds = Mapping[tuple[str, ...], list[float]]


@dataclass(frozen=True)
class Forecast:
    """One job. seconds: of training that are left, by the median of similar runs; None = there was none yet. other:
    whether other code has begun its run."""

    run: Run
    state: str
    seconds: float | None
    other: bool = False

    @property
    def shown(self) -> str:
        """The state, with † where other code has begun the run."""
        return self.state + OTHER_CODE * self.other


def forecast(configs: Sequence[Config], outputs: Path = OUTPUTS) -> list[Forecast]:
    """configs: composed and checked jobs of any verb. Reads data and run folders, writes nothing."""
    known = list(map(as_training, configs))
    speeds = _speeds(outputs) if any(isinstance(config, TrainConfig) for config in known) else {}
    return [
        _training(config, speeds, outputs) if isinstance(config, TrainConfig) else _of_run(config) for config in known
    ]


def _of_run(config: EvaluateConfig | ExportConfig) -> Forecast:
    run = find(str(config.run))[0]
    return Forecast(run, state_now(run), 0.0, _other(run))


def _training(config: TrainConfig, speeds: Speeds, outputs: Path) -> Forecast:
    run = find(config.resume, key="resume")[0] if config.resume is not None else located(config, outputs)
    known = speeds.get(_kind(config))
    left = 0.0 if run.trained and not config.force else _work(config) - _done(run, config)
    seconds = 0.0 if left <= 0 else None if known is None else left * statistics.median(known)
    return Forecast(run, state_now(run), seconds, not config.force and _other(run))


def check_runs(jobs: Sequence[Job]) -> None:
    """What a dry run promises: data, networks and runs of all jobs work together as the command itself will find them.
    Reads data and run folders, writes nothing.

    Raises:
        BadInput: a job that cannot work, a run of other data, or of other code that `code` does not allow.
    """
    from robode.training.assembly import data_digest, try_jobs

    trainings = [(job, config) for job in jobs if isinstance(config := as_training(job.config), TrainConfig)]
    try_jobs([config for _, config in trainings if config.resume is None])
    for job, config in trainings:
        if config.resume is not None:
            continued, run = resumed(config, job.overrides)
            check_data(run, data_digest(continued))
            check_code(run, config.code, START)
        elif not config.force and (run := located(config)).exists:
            check_data(run, data_digest(config))
            check_code(run, config.code, FORCE)
    for job in jobs:
        if isinstance(job.config, EvaluateConfig | ExportConfig):
            run, known = _found(job.config)
            check_data(run, data_digest(known))
            if isinstance(job.config, EvaluateConfig):
                _check_suite(job.config)


def _check_suite(config: EvaluateConfig) -> None:
    """Whether the trained network of a run is one that the suite can be asked of. Raises `BadInput`."""
    from robode.evaluation.measure import build_measurement
    from robode.evaluation.request import SuiteRequest
    from robode.evaluation.target import of_run

    found = of_run(config)
    request = SuiteRequest.later(config, found.described.seed)
    build_measurement(found.described, request, found.data.info).check(found.network)


def _found(config: EvaluateConfig | ExportConfig) -> tuple[Run, TrainConfig]:
    """A run and its configuration, with its data where `data.root` says that they are now."""
    run = find(str(config.run))[0]
    known, root = run.config(), getattr(config, "data_root", None)
    return run, known if root is None else replace(known, data=known.data.at(root))


def _other(run: Run) -> bool:
    return run.exists and run.of_other_code(run.config().plain())


def _speeds(outputs: Path) -> Speeds:
    """Seconds per layer and epoch of every finished training under `outputs`, by kind of network and data."""
    speeds: dict[tuple[str, ...], list[float]] = {}
    for file in outputs.glob("**/environment.json"):
        run = Run(file.parent)
        if REPLACED in file.parts or not run.trained:
            continue
        try:
            seconds, config = seconds_of(run.folder), run.config()
        except BadInput:  # damaged, or of a layout that is not known any more
            continue
        if seconds and _work(config):
            speeds.setdefault(_kind(config), []).append(seconds / _work(config))
    return speeds


def _kind(config: TrainConfig) -> tuple[str, ...]:
    model, data = config.model, config.data
    parts = (model.name, model.arguments.get("width"), data.name, data.limit_train, config.trainer.name)
    return tuple(map(str, (*parts, config.batch_size)))


def _work(config: TrainConfig) -> float:
    """Layers times epochs."""
    return float(config.depth * config.epochs)


def _done(run: Run, config: TrainConfig) -> float:
    return float(config.depth * run.status().get("epoch", 0))


def duration(seconds: float | None) -> str:
    """2 h 05 min, 40 s, or ? for None."""
    if seconds is None:
        return "?"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"

"""A job beside the run folders that are there: what they refuse, which folder it has, what a resumed run keeps.

No torch before data are read, so that the command line can refuse early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robode.config.config import Config, EvaluateConfig, StabiliseConfig, TrainConfig, Value
from robode.config.parse import overlaid
from robode.config.validate import check_entries, task_of
from robode.data.validation import check_files
from robode.errors import BadInput
from robode.runs.origin import FORCE, START, check_code
from robode.runs.run import OUTPUTS, Run, check_free, checkpoint_path, create, find, locate
from robode.training.stabilise import stabilising
from robode.training.start import check_start, pinned

# What does not change the trajectory up to the epoch that was reached.
MAY_CHANGE = ("epochs", "trainer", "callbacks", "logger", "suite", "protocol", "repeats", "data.root")
# Arguments of torch's schedulers (cosine, one-cycle, …) that are made from `epochs` when a run starts.
LENGTHS = ("T_max", "total_steps", "epochs")


def check_folders(config: Config, words: Sequence[str]) -> None:
    """Refuse what the run folders and the files of the data that are there refuse. words: see `resumed`.

    Raises:
        BadInput: no such run, one of other code, a name that another training has, files that are not there, a suite
            for another task than the run's, words that a resumed run does not take.
    """
    if isinstance(config, StabiliseConfig):
        training, run = stabilising(config), find(str(config.run))[0]
        _check_training(training, ())
        if config.epochs:
            _check_schedule(run, run.config(), training)
    elif isinstance(config, TrainConfig):
        _check_training(config, words)
    elif isinstance(config, EvaluateConfig) and config.module is not None:
        if not Path(config.checkpoint).is_file():
            raise BadInput(
                f"checkpoint={config.checkpoint}: expected the file with the weights of module={config.module}"
            )
        if config.data is not None:
            check_files(config.data.source.arguments)
    elif config.run is not None:
        run, _ = find(config.run)
        check_code(run, config.code)
        if isinstance(config, EvaluateConfig):
            check_entries(config.suite, _task(run.config()))


def _task(config: TrainConfig) -> str | None:
    """The name of a run's task: its data or a term of its loss says it."""
    terms = [part.about.get("task") for part in config.objective.values() if part]
    return task_of(config.data) or next((task for task in terms if isinstance(task, str)), None)


def _check_training(config: TrainConfig, words: Sequence[str]) -> None:
    """A chosen name may be that of a run which is there already, if it is the same training."""
    check_files(config.data.source.arguments)
    check_start(config)
    if config.resume is not None:
        check_code(find(config.resume, key="resume")[0], config.code, START)
        resumed(config, words)
    elif config.run is not None:
        run = Run(OUTPUTS / config.experiment / config.run)
        check_free(run.folder, pinned(config))
        if not config.force and run.exists:
            check_code(run, config.code, FORCE)


def located(config: TrainConfig, outputs: Path = OUTPUTS, anew: bool = False) -> Run:
    """The folder that a training has or will have (`runs.run.locate`). Loads the data once a process."""
    from robode.training.assembly import data_digest

    return locate(pinned(config), data_digest(config), outputs, anew)


def queue(configs: Sequence[TrainConfig]) -> None:
    """Give every training of a sweep its folder before the first one starts, so that others see what is planned; none,
    where one of them cannot work.

    Raises:
        BadInput: data or a network of one of the jobs that cannot work.
    """
    from robode.training.assembly import try_jobs

    jobs = [pinned(config) for config in configs if config.resume is None]
    try_jobs(jobs)
    for run, config in [(located(config), config) for config in jobs]:
        create(run, config)


def resumed(config: TrainConfig, words: Sequence[str]) -> tuple[TrainConfig, Run]:
    """The configuration to continue with, and the run.

    config: what the command line composes to; words: the typed `key=value` among it. A word outside MAY_CHANGE
    is refused, because the run would no longer be the one that its name and its first epochs belong to.

    Raises:
        BadInput: no such run, no last.ckpt yet, a word that may not change, or `epochs` that do not fit what
            was done or the learning-rate schedule.
    """
    run, _ = find(str(config.resume), key="resume")
    checkpoint_path(run, "last")
    before = run.config()
    after = overlaid(before, config, changing(words))
    if after.data.root != before.data.root:
        after = replace(after, data=after.data.at(str(after.data.root)))
    _check_epochs(run, before, after)
    return after, run


def changing(words: Sequence[str]) -> list[str]:
    """The keys of a resumed run that the typed `key=value` change. Raises `BadInput` for one outside MAY_CHANGE."""
    keys = []
    for word in words:
        key = word.split("=")[0].lstrip("+~").split("@")[0].replace("/", ".")
        if key in ("resume", "code"):  # how this session is asked for, no part of the run
            continue
        if not any(key == allowed or key.startswith(allowed + ".") for allowed in MAY_CHANGE):
            raise BadInput(
                f"{key}: a resumed run keeps its own configuration except {', '.join(MAY_CHANGE)}; "
                "start a new run to change anything else"
            )
        keys.append(key)
    return keys


def _check_epochs(run: Run, before: TrainConfig, after: TrainConfig) -> None:
    """before: the configuration that the run was started with."""
    done = run.status().get("epoch", 0)
    if after.epochs < done:
        raise BadInput(f"epochs={after.epochs}: run {run.id} has done {done} already; choose epochs={done} or more")
    _check_schedule(run, before, after)


def _check_schedule(run: Run, before: TrainConfig, after: TrainConfig) -> None:
    """Refuse another length than the one that the learning-rate schedule of a run was laid out for."""
    scheduler = after.optimizer.scheduler
    fixed = lengths(dict(scheduler.arguments)) if scheduler else []
    if after.epochs != before.epochs and fixed:
        raise BadInput(
            f"epochs={after.epochs}: the learning-rate schedule of run {run.id} was laid out for {before.epochs} "
            f"epochs (optimizer.scheduler.{fixed[0]}); start a new run with epochs={after.epochs}"
        )


def lengths(node: Value) -> list[str]:
    """Arguments of a scheduler, or of one inside it, that say how long the training is."""
    if isinstance(node, list):
        return [name for each in node for name in lengths(each)]
    if not isinstance(node, dict):
        return []
    return [name for name in LENGTHS if node.get(name) is not None] + lengths(list(node.values()))

"""From a configuration to everything that training needs, before anything is written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from rich.console import Console

from robode.config.config import Group, TrainConfig, plain
from robode.config.instantiate import check_keys
from robode.config.validate import check_objectives, check_training
from robode.data.augment import Augmentation
from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.evaluation.measure import build_measurement
from robode.evaluation.request import Described, SuiteRequest
from robode.network import Network, build_network, try_once
from robode.objectives.objective import Objective
from robode.runs.origin import threads_of
from robode.runs.run import Run
from robode.training.callbacks import ProjectConstraints
from robode.training.captured import CapturedTraining, block_size, why_not
from robode.training.checkpoints import Checkpoints
from robode.training.gain import GainSchedule
from robode.training.module import Training
from robode.training.progress import ProgressBar
from robode.training.recorder import Recorder
from robode.training.start import begin
from robode.training.stopping import Stopping
from robode.training.trainer import RESUMED, RUN_DIR, build_trainer, fit, prepare_machine
from robode.training.watchdog import Watchdog

PARTS = ("model", "integrator", "encoder", "head", "augment", "depth", "step", "horizon", "data", "objective",
         "callbacks", "suite", "protocol", "start")  # fmt: skip
WAYS = {"min": "smaller", "max": "larger"}
_digests: dict[str, str] = {}


@dataclass(frozen=True)
class Parts:
    """What one process trains with."""

    data: DataModule
    network: Network
    module: Training
    trainer: lightning.Trainer


def assemble(
    config: TrainConfig,
    console: Console | None = None,
    threads: int | None = None,
    data: DataModule | None = None,
    fresh: bool = True,
) -> Parts:
    """Load the data, build network, objectives, callbacks and trainer. Reads files, writes none.

    threads: what to use where trainer.threads is null. data: already built. fresh: false for a run that goes on from
    weights of its own. The initial weights are those of `start`, or depend on `seed` alone.

    Raises:
        BadInput: whatever in the configuration cannot work.
    """
    check_training(config)  # a resumed run has its own data and the command line's callbacks
    check_keys(plain(config.logger), "logger")  # loggers are built when they have a folder to write to
    prepare_machine(config.trainer, threads)
    torch.manual_seed(config.seed)
    data = data or build_data(config)
    data.prepare()
    network = build_network(config, data.info)
    if fresh:
        begin(network, config)
    try_once(network, data.example(2))
    objectives = {name: part.build() for name, part in config.objective.items() if part}
    check_task(config, objectives, network)
    reason = why_not(config, network, objectives) if config.trainer.captured else ""
    captured = config.trainer.captured and not reason
    module = (CapturedTraining if captured else Training)(network, objectives, config)
    chosen = [part.build() for part in config.callbacks.values() if part]
    check_callbacks(chosen, network, objectives)
    console = console or Console()
    stops = Stopping(console, [each for each in chosen if isinstance(each, EarlyStopping)])
    said = [ProgressBar(console), stops, Watchdog(console)]
    callbacks = [ProjectConstraints(), *chosen, Recorder(), *said, Checkpoints()]
    data.block = block_size(callbacks, len(data.train_dataloader())) if captured else None
    if reason:
        console.print(f"trainer.captured: steps are made one by one, because {reason}", highlight=False, soft_wrap=True)
    return Parts(data, network, module, build_trainer(config.trainer, config.epochs, callbacks))


def try_jobs(configs: Sequence[TrainConfig]) -> None:
    """Build the network of each job of a command line, alike ones once, and look whether it runs and whether its
    objectives and its suite suit the data and the network; no file is read. The global generator of torch stays where
    it is.

    Raises:
        BadInput: a job that cannot work.
    """
    tried = set()
    for config in configs:
        key = json.dumps({group: plain(getattr(config, group)) for group in PARTS}, sort_keys=True, default=str)
        if key in tried:
            continue
        tried.add(key)
        info = build_data(config).info
        with torch.random.fork_rng(devices=[]):
            begin(network := build_network(config, info), config)
            try_once(network)
            objectives = {name: part.build() for name, part in config.objective.items() if part}
            check_task(config, objectives, network)
            check_callbacks([part.build() for part in config.callbacks.values() if part], network, objectives)
            build_measurement(Described.of(config), SuiteRequest.of(config), info).check(network)


def check_callbacks(
    chosen: Sequence[lightning.Callback], network: Network, objectives: Mapping[str, Objective]
) -> None:
    """Raises `BadInput` for callbacks that have nothing to do here."""
    for each in chosen:
        if isinstance(each, GainSchedule):
            each.check(network, objectives)


def check_task(config: TrainConfig, objectives: Mapping[str, Objective], network: Network) -> None:
    """Refuse objectives that these data, or this network, cannot serve, and callbacks that watch the score of another
    task."""
    info = network.info
    name, measure = config.data.name, info.task.measure
    check_objectives(config, info.task.name)
    for key, objective in objectives.items():
        if not isinstance(objective, Objective):
            raise BadInput(f"objective.{key}: expected an Objective of robode, got {type(objective).__name__}")
        if (refusal := objective.refusal(info)) is not None:
            raise BadInput(f"objective={key} and data={name}: {refusal}")
        objective.check(network)
    score = f"validation/{measure.score_name}"
    modes = {"validation/loss": "min", score: "max" if measure.better == "higher" else "min"}
    for key, part in config.callbacks.items():
        given = part.arguments if part else {}
        monitor, mode = str(given.get("monitor")), given.get("mode", "min")
        if monitor.startswith("validation/") and monitor not in modes:
            raise BadInput(
                f"callbacks.{key}.monitor={monitor}: expected {' or '.join(modes)} for data={name}, and "
                f"callbacks.{key}.mode={modes[score]} for the latter"
            )
        if mode != modes.get(monitor, mode):
            raise BadInput(
                f"callbacks.{key}.mode={mode}: {monitor} gets better by getting {WAYS[modes[monitor]]}; expected "
                f"callbacks.{key}.mode={modes[monitor]}"
            )


def build_data(config: TrainConfig) -> DataModule:
    """The data module of a training, not yet loaded. Raises `BadInput`."""
    augment = config.augment.build() if config.augment.target else None
    if augment is not None and not isinstance(augment, Augmentation):
        raise BadInput(f"augment: expected an Augmentation of robode, got {type(augment).__name__}")
    return DataModule.of(config.data, config.batch_size, config.seed, augment)


def data_digest(config: TrainConfig) -> str:
    """`DataModule.digest` of a training; each `data` section is read once a process. Raises `BadInput`."""
    key = json.dumps(plain(config.data), sort_keys=True, default=str)
    if key not in _digests:
        _digests[key] = build_data(config).digest
    return _digests[key]


def build_loggers(group: Group, run: Run) -> list[Logger]:
    """The loggers of the `logger` section, which write into the run folder."""
    placed = [
        replace(part, arguments={**part.arguments, "save_dir": str(run.folder)}) for part in group.values() if part
    ]
    return [part.build() for part in placed]


def main() -> None:
    """Train the run in $ROBODE_RUN_DIR as process $LOCAL_RANK and write nothing."""
    run, resumed = Run(Path(os.environ[RUN_DIR])), os.environ[RESUMED] == "1"
    try:
        parts = assemble(run.config(), threads=threads_of(run), fresh=not resumed)
        parts.module.run = run
        fit(parts.trainer, parts.module, parts.data, run.last if resumed else None)
    except (BadInput, JobFailed) as error:
        sys.exit(f"robode, process {os.environ['LOCAL_RANK']}: {error}")


if __name__ == "__main__":
    main()

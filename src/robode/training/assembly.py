"""From a configuration to everything that training needs, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from omegaconf import DictConfig
from rich.console import Console

from robode.config.instantiate import build, build_each, resolve_targets, to_plain
from robode.config.validate import check_loggers, check_monitors
from robode.data.batches import in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network, build_network, try_once
from robode.objectives.objective import Objective
from robode.runs.run import Run
from robode.training.callbacks import ProjectConstraints
from robode.training.checkpoints import Checkpoints
from robode.training.module import Training
from robode.training.progress import ProgressBar
from robode.training.recorder import Recorder
from robode.training.trainer import build_trainer, prepare_machine

PARTS = ("model", "integrator", "encoder", "head", "depth", "step", "horizon", "data", "objective")
_digests: dict[str, str] = {}


@dataclass(frozen=True)
class Parts:
    """What one process trains with."""

    data: DataModule
    network: Network
    module: Training
    trainer: lightning.Trainer


def assemble(
    config: DictConfig, console: Console | None = None, threads: int | None = None, data: DataModule | None = None
) -> Parts:
    """Load the data, build network, objectives, callbacks and trainer. Reads files, writes none.

    threads: what to use where trainer.threads is null. data: already built. The initial weights depend on `seed`
    alone.

    Raises:
        BadInput: whatever in the configuration cannot work.
    """
    plain = to_plain(config)
    check_monitors(plain)  # a resumed run has its own data and the command line's callbacks
    check_loggers(plain["logger"])
    resolve_targets(plain["logger"])  # loggers are built when they have a folder to write to
    prepare_machine(plain["trainer"], threads)
    torch.manual_seed(plain["seed"])
    data = data or build_data(config)
    data.prepare()
    network = build_network(config, data.info)
    try_once(network, in_units(data.split("train").x[:2]))
    objectives = build_each(plain["objective"])
    check_task(plain, objectives, data.info)
    module = Training(network, objectives, plain["optimizer"], plain)
    callbacks = [ProjectConstraints(), *build_each(plain["callbacks"]).values(), Recorder()]
    callbacks += [ProgressBar(console or Console()), Checkpoints()]
    return Parts(data, network, module, build_trainer(plain["trainer"], plain["epochs"], callbacks))


def try_jobs(configs: Sequence[DictConfig]) -> None:
    """Build the network of each job of a command line, alike ones once, and look whether it runs and whether its
    objectives suit the data; no file is read. The global generator of torch stays where it is.

    Raises:
        BadInput: a job that cannot work.
    """
    tried = set()
    for cfg in configs:
        plain = to_plain(cfg)
        key = json.dumps({group: plain[group] for group in PARTS}, sort_keys=True, default=str)
        if key in tried:
            continue
        tried.add(key)
        info = build_data(cfg).info
        with torch.random.fork_rng(devices=[]):
            try_once(build_network(cfg, info))
            check_task(plain, build_each(plain["objective"]), info)


def check_task(plain: Mapping[str, Any], objectives: Mapping[str, Objective], info: DatasetInfo) -> None:
    """Refuse objectives that these data cannot serve, and callbacks that watch the score of another task."""
    name, measure = plain["data"]["name"], info.task.measure
    if not objectives:
        raise BadInput("objective: expected at least one term of the loss")
    for key, objective in objectives.items():
        if not isinstance(objective, Objective):
            raise BadInput(f"objective.{key}: expected an Objective of robode, got {type(objective).__name__}")
        if (refusal := objective.refusal(info)) is not None:
            raise BadInput(f"objective={key} and data={name}: {refusal}")
    logged = [f"validation/{each}" for each in ("loss", measure.score_name)]
    for key, node in (plain["callbacks"] or {}).items():
        monitor = str((node or {}).get("monitor"))
        if monitor.startswith("validation/") and monitor not in logged:
            raise BadInput(
                f"callbacks.{key}.monitor={monitor}: expected {' or '.join(logged)} for data={name}; and fit mode"
            )


def build_data(config: DictConfig) -> DataModule:
    """The data module of the `data` section, not yet loaded. Raises `BadInput`."""
    node = config.data
    return DataModule(
        build(node.source),
        batch_size=config.batch_size,
        seed=config.seed,
        validation=node.validation,
        limit_train=node.get("limit_train"),
        name=node.name,
    )


def data_digest(config: DictConfig) -> str:
    """`DataModule.digest` of the `data` section; each section is read once a process. Raises `BadInput`."""
    plain = to_plain(config.data)
    key = json.dumps(plain, sort_keys=True, default=str)
    if key not in _digests:
        _digests[key] = build_data(config).digest
    return _digests[key]


def build_loggers(nodes: Any, run: Run) -> list[Any]:
    """The loggers of the `logger` section; those with a `save_dir` write into the run folder."""
    placed = {name: {**node, "save_dir": str(run.folder)} for name, node in to_plain(nodes).items() if node is not None}
    return list(build_each(placed).values())

"""What a typed configuration must satisfy: ranges, choices and combinations, one sentence for each mistake.

Types and keys are seen to by `parse`. Constructors check their own arguments again; these checks only make the common
mistakes cheap to find. What needs run folders or the files of data is asked by `robode.training.plan`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from robode.config.allowed import check_key, check_node, check_part, check_size
from robode.config.combinations import check_combination, check_memory, check_needs
from robode.config.config import (
    CertifyConfig,
    Choice,
    Config,
    DataConfig,
    EvaluateConfig,
    ExportConfig,
    Group,
    Part,
    StabiliseConfig,
    TrainConfig,
    TrainerConfig,
    Value,
    plain,
)
from robode.config.instantiate import check_targets, check_trusted
from robode.config.jobs import MOST_JOBS
from robode.config.levels import UPPER, check_suite, noise_levels
from robode.config.parse import unknown
from robode.errors import BadInput
from robode.files import try_folder

LONGEST = 200
"""Letters of a run's name: the names of files beside its folder begin with it."""
MOST_THREADS = 1024
CHECKPOINTS = ("best", "last")
EXPORTED = {"model.safetensors", "certificate.json"}  # files of every export
TARGETS = {"classification": "data with classes", "regression": "data whose targets are numbers"}
KINDS = dict.fromkeys(("flow_map", "denoising"), "regression")  # what serves a regression serves them
# Loggers of Lightning's that are importable without the package they write with: any one of these will do.
LOGGERS = {"TensorBoardLogger": ("tensorboard", "tensorboardX")}
STOPPING = "lightning.pytorch.callbacks.EarlyStopping"
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "32", "64", "bf16", "16")
HALF = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")


def check_jobs(configs: Sequence[Config]) -> None:
    """Refuse a command line as a whole if one of its jobs cannot work, or two would be the same run.

    Raises:
        BadInput: see `check`.
    """
    names = []
    for config in configs:
        check(config)
        if isinstance(config, TrainConfig) and config.run is not None and config.resume is None:
            names.append((config.experiment, config.run))
    for experiment, run in names:
        if names.count((experiment, run)) > 1:
            raise BadInput(
                f"run={run}: {names.count((experiment, run))} jobs of this sweep would be the run {experiment}/{run}; "
                "leave run out, or give each job a name of its own"
            )


def check(config: Config) -> None:
    """Refuse a configuration that cannot work.

    Raises:
        BadInput: one line saying what was expected, what came and which key to change.
    """
    check_targets(plain(config))
    if isinstance(config, TrainConfig):
        check_training(config)
    elif isinstance(config, EvaluateConfig):
        _check_evaluation(config)
    elif isinstance(config, StabiliseConfig):
        _check_stabilise(config)
    else:
        _check_export(config)


def check_training(config: TrainConfig) -> None:
    """`check` of a training."""
    for key in ("depth", "batch_size", "lr", "repeats"):
        _check_positive(key, getattr(config, key))
    _check_start(config)
    check_size("lr", config.lr)
    _check_seed(config.seed)
    _check_repeats(config.repeats)
    check_entries(config.suite, task_of(config.data))
    _check_time(config)
    check_data(config.data)
    _check_parts(config)
    check_memory(config)
    parts = {f"objective.{name}": part for name, part in config.objective.items()}
    parts |= {f"callbacks.{name}": part for name, part in config.callbacks.items()}
    chosen = config.optimizer
    parts |= {"optimizer.optimizer": chosen.optimizer, "optimizer.scheduler": chosen.scheduler}
    parts |= {f"logger.{name}": part for name, part in config.logger.items()}
    for key, part in (parts | {"protocol": config.protocol}).items():
        check_part(key, part)
    check_trainer(config.trainer)
    _check_loggers(config.logger)
    check_objectives(config, task_of(config.data))
    if config.resume is None:  # a resumed run has its own data
        check_name(config.run)
        _check_monitors(config)


def _check_evaluation(config: EvaluateConfig) -> None:
    for key in ("repeats", "batch_size", "limit"):
        if getattr(config, key) is not None:
            _check_positive(key, getattr(config, key))
    if config.verdicts < 0:
        raise BadInput(
            f"verdicts={config.verdicts}: expected a whole number of at least 0, the samples of a panel; "
            "0 = no verdicts"
        )
    _check_seed(config.seed)
    _check_repeats(config.repeats)
    check_entries(config.suite, task_of(config.data) if config.data else None)
    check_part("protocol", config.protocol)
    if isinstance(config, CertifyConfig):
        _check_certify(config)
    if config.module is None:
        check_source(config)
        if config.data is not None:
            raise BadInput(f"data={config.data.name}: a run has its own data; leave it out (data.root may be set)")
    else:
        _check_module(config, config.module)


def check_source(config: EvaluateConfig | ExportConfig) -> None:
    """A run, and one of its checkpoints."""
    if config.run is None:
        raise BadInput(f"run: expected the run to {config.verb}, for example run=outputs/default/NAME")
    if config.checkpoint not in CHECKPOINTS:
        raise BadInput(f"checkpoint={config.checkpoint}: choose one of: {', '.join(CHECKPOINTS)}")


def _check_module(config: EvaluateConfig, module: str) -> None:
    """A network of the user's with a file of weights and a data set."""
    if config.run is not None:
        raise BadInput(f"run={config.run} and module={module}: give one of them")
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", module):
        raise BadInput(f"module={module}: expected PACKAGE:FACTORY, for example module=mypackage.networks:make")
    check_trusted(module, module.partition(":")[0])
    if config.data is None:
        raise BadInput(f"data: expected the data set for module={module}, for example data=mnist5k")
    check_data(config.data)


def _check_certify(config: CertifyConfig) -> None:
    if config.norm != "l2":
        raise BadInput(f"norm={config.norm}: choose l2; its radius r holds for l1 too, and r/sqrt(d) for linf")
    if config.suite.get("certified") is None:
        raise BadInput("suite: expected the suite certified among others, for example suite=[certified,smoothing]")
    if config.radii is not None:
        noise_levels("radii", config.radii, UPPER["radii"])


def _check_stabilise(config: StabiliseConfig) -> None:
    if config.run is None:
        raise BadInput("run: expected the run to stabilise, for example run=outputs/default/NAME")
    if config.delta is None or not math.isfinite(config.delta):
        got = "" if config.delta is None else f"={config.delta}"
        raise BadInput(f"delta{got}: expected a number, the largest log-norm, for example delta=0")
    for key in ("epochs", "lr", "batch_size", "repeats"):
        value = getattr(config, key)
        if value is not None and (key, value) != ("epochs", 0):
            _check_positive(key, value)
    _check_seed(config.seed)
    _check_repeats(config.repeats or 1)
    check_name(config.to)
    if config.suite is not None:
        check_entries(config.suite, None)
    if config.trainer is not None:
        check_trainer(config.trainer)


def _check_export(config: ExportConfig) -> None:
    check_source(config)
    to = folder_to_write(config.to)
    there = {path.name for path in to.iterdir()} if to.is_dir() else set()
    if not str(to).strip(".") or (there and not EXPORTED <= there):  # an earlier one is replaced, and nothing else
        raise BadInput(f"to={config.to}: expected a new or empty folder, or one of an earlier export")
    if find_spec("safetensors") is None:
        raise BadInput("export: needs the package safetensors, which is not installed: pip install 'robode[export]'")


def folder_to_write(to: str | None) -> Path:
    """The folder that `to` names. Raises `BadInput` where it names none, a file, what cannot be made or written, or a
    run, whose own page and configuration would be lost."""
    if not to:
        raise BadInput(f"to{'' if to is None else '='}: expected the folder to write, for example to=exported")
    try:
        folder = Path(to).expanduser()
        for path in (folder, *folder.parents):
            if path.is_file() or path.is_symlink() and not path.exists():
                is_what = "a file" if path.is_file() else "a link to nothing"
                raise BadInput(f"to={to}: expected a folder, and {'this' if path == folder else path} is {is_what}")
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if "config.yaml" in there and ("status.json" in there or not EXPORTED <= there):
            raise BadInput(f"to={to}: expected a folder of its own, and this is a run's; choose another one")
        try_folder(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"to={to}: expected a folder that can be made and written ({why})") from error
    return folder


def check_data(data: DataConfig) -> None:
    """Refuse numbers of held-out and training samples that are none, and keys of the data or the source that its file
    does not allow. Raises `BadInput`."""
    check_validation(data.validation)
    check_limit(data.limit_train)
    node, allowed = plain(data), data.allowed or {}
    for key in data.more:
        if key not in data.source.arguments:
            known = [each.name for each in fields(data) if each.name != "more" and not each.metadata.get("said")]
            raise unknown("data.", key, [*known, *(each for each in data.more if each in data.source.arguments)])
    for key, spec in allowed.items():
        if key in node:  # also a key of the source; the user knows it by this name
            check_key("data", key, node[key], spec, node)
    if data.task not in (None, its := (data.info or {}).get("task", data.task)):
        raise BadInput(f"data.task={data.task}: expected {its}, the task of data={data.name}; leave it out")
    if data.allowed is not None:
        check_node("data.source", {**data.source.plain(), "name": data.name, "allowed": data.allowed})


def check_validation(validation: Value) -> None:
    """A share in [0, 1) or a whole number of samples ≥ 1, else BadInput."""
    fits = validation == 0 or _positive(validation) and (validation <= 1 or not validation % 1)
    if not fits or isinstance(validation, bool):
        raise BadInput(f"data.validation={validation}: expected 0 (none), a share below 1 or a number of samples")


def check_limit(limit_train: Value) -> None:
    """None (all) or a whole number of samples >= 1, else BadInput."""
    if limit_train is not None and (type(limit_train) is not int or limit_train < 1):
        raise BadInput(f"data.limit_train={limit_train}: expected a whole number of samples above 0, or null (all)")


def check_name(name: str | None) -> None:
    """A run's name becomes a folder's. Raises `BadInput`."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise BadInput(f"run: expected a name of letters, digits, '.', '_' and '-', got '{name}'")
    if name is not None and len(name) > LONGEST:
        raise BadInput(f"run: expected a name of at most {LONGEST} letters, got {len(name)}")


def seeds_of(config: TrainConfig) -> list[int]:
    """A list of seeds, or 1 … n for a number n. Raises `BadInput`."""
    for key, name in (("run", config.run), ("resume", config.resume)):
        if name is not None:
            raise BadInput(f"{key}={name}: names one run, and seeds={config.seeds} asks for several; leave one out")
    seeds = config.seeds
    if isinstance(seeds, int) and seeds > MOST_JOBS:
        raise BadInput(f"seeds={seeds}: expected at most {MOST_JOBS} of one command")
    listed = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds or ())
    if not listed or not all(0 <= seed < 2**32 for seed in listed):
        raise BadInput(f"seeds={seeds}: expected how many (seeds=3: 1, 2, 3) or which (seeds=[1,5]), or null for one")
    if len(set(listed)) < len(listed):
        raise BadInput(f"seeds={seeds}: names a seed twice, which would be one run; leave one out")
    return listed


def check_trainer(trainer: TrainerConfig) -> None:
    """Refuse keys that Lightning does not have, numbers and precisions that no machine can train with. Raises
    `BadInput`."""
    check_part("trainer", Part("lightning.Trainer", trainer.name, trainer.more))
    if trainer.precision in HALF:
        raise BadInput(
            f"trainer.precision={trainer.precision}: rounds gamma and h, which the guarantees need in float64; "
            "choose 32-true, 64-true, bf16-mixed or 16-mixed"
        )
    if str(trainer.precision) not in PRECISIONS:
        raise BadInput(f"trainer.precision={trainer.precision}: choose one of: {', '.join(PRECISIONS)}")
    if trainer.threads is not None and not 1 <= trainer.threads <= MOST_THREADS:
        raise BadInput(f"trainer.threads={trainer.threads}: expected a whole number from 1 to {MOST_THREADS}, or null")
    everything = trainer.accelerator == "gpu" and trainer.devices in ("auto", -1)
    if not everything and (not isinstance(trainer.devices, int) or trainer.devices < 1):
        raise BadInput(f"trainer.devices={trainer.devices}: expected a whole number >= 1 (or auto on GPUs)")


def _check_loggers(loggers: Group) -> None:
    """Refuse a logger that needs a package which is not installed."""
    for name, logger in loggers.items():
        needs = LOGGERS.get(logger.target.rpartition(".")[2], ()) if logger else ()
        if needs and not any(map(find_spec, needs)):
            raise BadInput(f"logger={name}: needs the package {needs[0]}, which is not installed; install it")


def check_objectives(config: TrainConfig, task: str | None) -> None:
    """Refuse terms of the loss that are for another task, and a loss of which no term looks at the target.

    task: the name of the data's; None where their YAML does not say it.
    """
    terms = {name: part.about for name, part in config.objective.items() if part}
    if not terms:
        raise BadInput("objective: expected at least one term of the loss")
    check_needs(config)
    for name, about in terms.items():
        wanted = str(about.get("task", task))
        if task is not None and wanted not in (task, KINDS.get(task)):
            raise BadInput(
                f"objective={name} and data={config.data.name}: expected {TARGETS.get(wanted, wanted)}, and these "
                f"are for {task}; choose another objective"
            )
    if not any(about.get("looks_at_target", True) for about in terms.values()):
        names = ",".join(terms)
        term = "mean_squared_error" if "regression" in (task, KINDS.get(str(task))) else "cross_entropy"
        raise BadInput(
            f"objective={names}: no term of the loss looks at the target; add one: objective=[{term},{names}]"
        )


def _check_monitors(config: TrainConfig) -> None:
    """Refuse callbacks that watch validation data where `data.validation` holds none out, and early stopping on
    anything else, which it would not find."""
    for name, callback in config.callbacks.items():
        monitor = str(callback.arguments.get("monitor")) if callback else ""
        if callback and callback.target == STOPPING and not monitor.startswith("validation/"):
            raise BadInput(
                f"callbacks.{name}.monitor={monitor}: expected validation/loss, or the score of the validation data, "
                "for example validation/accuracy"
            )
        if monitor.startswith("validation/") and not config.data.validation:
            raise BadInput(
                f"callbacks={name}: watches {monitor}, and data.validation=0 holds nothing out; "
                "change data.validation or leave the callback out"
            )


def _check_start(config: TrainConfig) -> None:
    """Weights to begin with, and how long they are trained: not at all only where they are of a run."""
    if config.start is not None and config.resume is not None:
        raise BadInput(
            f"start={config.start} and resume={config.resume}: give one of them; a resumed run has its own weights"
        )
    if config.epochs == 0 and config.start is None and config.resume is None:
        raise BadInput("epochs=0: expected a number above 0; only a training with start=RUN may be for none")
    if config.epochs != 0:
        _check_positive("epochs", config.epochs)


def _check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**32:
        raise BadInput(f"seed={seed}: expected an integer from 0 to 2**32 - 1")


def _check_time(config: TrainConfig) -> None:
    """Exactly one of ``step`` and ``horizon`` is a number, or step is ``auto``."""
    step, horizon = config.step, config.horizon
    check_size("step", step)
    check_size("horizon", horizon)
    if step != "auto" and not _positive(step):
        raise BadInput(f"step={step}: expected 'auto' or a number above 0")
    if horizon is not None and not _positive(horizon):
        raise BadInput(f"horizon={horizon}: expected a number above 0")
    if horizon is not None and step != "auto":
        raise BadInput(f"step={step} and horizon={horizon}: give one of them (step=auto is none)")


def _check_parts(config: TrainConfig) -> None:
    """The keys of the network's parts, and whether the model takes the integrator."""
    parts: Mapping[str, Choice] = {
        "model": config.model, "integrator": config.integrator, "encoder": config.encoder, "head": config.head,
        "augment": config.augment,
    }  # fmt: skip
    for group, part in parts.items():
        check_node(group, part.plain())
    check_combination(config)
    supported = config.model.about.get("integrators")
    if isinstance(supported, Sequence) and supported and config.integrator.name not in supported:
        raise BadInput(
            f"integrator={config.integrator.name}: makes no sense for model={config.model.name}; "
            f"choose one of: {', '.join(map(str, supported))}"
        )


def _check_repeats(repeats: int) -> None:
    """So many noisy copies are a list of rows before the first is measured."""
    if repeats > MOST_JOBS:
        raise BadInput(f"repeats={repeats}: expected at most {MOST_JOBS} noisy copies of one level")


def check_entries(suite: Group, task: str | None) -> None:
    """Refuse a suite without entries, and entries whose keys are none or do not fit the task (None: not known yet).
    Raises `BadInput`."""
    if not suite:
        raise BadInput("suite: expected at least one perturbation; choose a suite, for example suite=noise")
    check_suite(suite)
    for name, part in suite.items():
        check_part(f"suite.{name}", part, KINDS.get(str(task), task))


def task_of(data: DataConfig) -> str | None:
    """The name of the task, where the file of the data says it."""
    said = data.task or (data.info or {}).get("task")
    return said if isinstance(said, str) else None


def _check_positive(key: str, value: Value) -> None:
    if not _positive(value):
        raise BadInput(f"{key}={value}: expected a number above 0")


def _positive(value: Value) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

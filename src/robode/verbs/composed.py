"""`robode train`, `evaluate`, `certify`, `export`, `stabilise`: from overrides to jobs, all looked at, then done."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from robode.config.compose import Request, composed, typed
from robode.config.config import Config, EvaluateConfig, TrainConfig, plain
from robode.config.instantiate import check_keys
from robode.config.jobs import Job, Outcome, run_each
from robode.config.validate import check_jobs
from robode.device import chosen_device
from robode.errors import BadInput
from robode.files import make_folder, write_text
from robode.launch.launch import check_launcher, launch
from robode.runs.run import OUTPUTS
from robode.training.plan import changing, check_folders, queue
from robode.training.stabilise import as_training

if TYPE_CHECKING:
    from robode.training.forecast import Forecast

OURS = "basic"  # the launcher of Hydra's that stands for "one after the other, in this process"


def show_config(request: Request) -> str:
    """The composed configurations as YAML. Raises `BadInput`."""
    from omegaconf import OmegaConf

    return "---\n".join(OmegaConf.to_yaml(each.cfg) for each in composed(request))


def look_ahead(request: Request) -> tuple[list[Job], list[Forecast]]:
    """What would be done: every job with its run, its state and what it will cost; nothing is written.

    Raises:
        BadInput: what running it would refuse, or a module of the user's, which has no run.
    """
    jobs, _ = _looked_at(request)
    configs = [job.config for job in jobs]
    for config in configs:
        if isinstance(config, EvaluateConfig) and config.module is not None:
            raise BadInput("--dry-run: speaks of runs only; leave it out, a module has no training to wait for")
        check_keys(plain(config))
    from robode.training.forecast import check_runs, forecast

    check_runs(jobs)
    return jobs, forecast(configs)


def run_composed(request: Request) -> list[Outcome]:
    """Look at every job, then run them; nothing is written before all of them were found good. Raises `BadInput`."""
    jobs, launcher = _looked_at(request)
    if len(jobs) > 1:
        queue([config for job in jobs if isinstance(config := as_training(job.config), TrainConfig)])
    record = _record(request, jobs) if request.multirun else None
    from robode.api import work

    if launcher == OURS or record is None:
        outcomes = run_each(jobs, work, config_dirs=request.config_dirs)
    else:
        outcomes = launch(request, jobs, work, record)
    if record and all(outcome.code == 2 for outcome in outcomes):  # nothing was done
        shutil.rmtree(record, ignore_errors=True)
        with suppress(OSError):  # other sweeps
            record.parent.rmdir()
    return outcomes


def _looked_at(request: Request) -> tuple[list[Job], str]:
    """All jobs, found good, and who shall run them."""
    said = [word for word in request.overrides if not word.startswith("hydra") and not word.endswith("=null")]
    if {"resume"} == {key for key in ("resume", "start") if any(word.startswith(f"{key}=") for word in said)}:
        changing(said)  # before they are composed with a model that is not the run's
    found = composed(request)
    jobs = [job for each in found for job in typed(request.verb, each.overrides, each.cfg)]
    check_jobs([job.config for job in jobs])
    _check_twins(jobs)
    for job in jobs:
        check_folders(job.config, job.overrides)
    launcher = found[0].launcher if request.multirun else OURS
    if launcher != OURS:
        check_launcher(request)
    else:
        for job in jobs:
            _check_gpu(as_training(job.config))
    return jobs, launcher


def _check_gpu(config: Config) -> None:
    """Refuse a GPU that this machine does not have; torch is asked only for one."""
    if isinstance(config, TrainConfig) and config.trainer.accelerator == "gpu" and config.resume is None:
        from robode.training.trainer import prepare_machine

        prepare_machine(config.trainer)
    elif isinstance(config, EvaluateConfig) and config.device == "cuda":
        chosen_device(config.device)


def _check_twins(jobs: Sequence[Job]) -> None:
    """Refuse a sweep that asks for the same thing twice."""
    seen: set[str] = set()
    for job in jobs if len(jobs) > 1 else ():
        if (config := repr(job.config)) in seen:
            raise BadInput(f"{' '.join(job.overrides)}: is asked for twice in this sweep; leave one out")
        seen.add(config)


def sweep_folder() -> Path:
    """Where the record of a sweep that begins now lies, which is not there yet."""
    return OUTPUTS / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def _record(request: Request, jobs: Sequence[Job]) -> Path:
    """outputs/sweeps/<now>/multirun.yaml: what was asked for, and the overrides of each job, in their order."""
    from omegaconf import OmegaConf

    folder = sweep_folder()
    content = {
        "verb": request.verb,
        "overrides": list(request.overrides),
        "jobs": [list(job.overrides) for job in jobs],
    }
    make_folder(folder)
    write_text(folder / "multirun.yaml", OmegaConf.to_yaml(content))
    return folder

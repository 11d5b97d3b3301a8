"""Jobs where the user's launcher puts them: one of Hydra's (joblib, anybody's), or ours of submitit
and Ray.

Each job tells a `Board` how it ended. So a launcher that gives up because one process was killed loses none of the
others: what has not told is launched again, and a job whose process was killed once more.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from robode.config.compose import Launched, Request, sweep_config
from robode.config.jobs import Job, Outcome, Work, run_one
from robode.config.listing import entries
from robode.config.paths import user_conf_dirs
from robode.errors import BadInput
from robode.foreign import reason
from robode.launch.board import Board
from robode.launch.ray import Ray
from robode.launch.submitit import Local, Slurm, Submitit
from robode.process import prepare

TRIES = 2  # times that a job's process may be killed
OURS: dict[str, type[Submitit | Ray]] = {f"{kind.__module__}.{kind.__name__}": kind for kind in (Local, Slurm, Ray)}


@dataclass(frozen=True)
class Elsewhere:
    """What is done for a job where a launcher has put it. wait: whether to wait where another process has the run."""

    work: Work
    board: Board
    wait: bool
    config_dirs: tuple[str, ...]

    def __call__(self, job: Job) -> None:
        """Do it, unless fail_fast says otherwise by now, and tell how it ended."""
        prepare()
        if job.config.fail_fast and self.board.failed:
            why = "not run, because a job before it failed (fail_fast=true)"
            self.board.tell(job, Outcome(job.overrides, 1, why, state="skipped"))
            return
        self.board.begin(job)
        self.board.tell(job, run_one(job, self.work, self.wait, self.config_dirs))


def check_launcher(request: Request) -> None:
    """See that the launcher which the request's words choose is installed and understands its keys. Raises
    `BadInput`."""
    with tempfile.TemporaryDirectory() as folder, sweep_config(request, Path(folder)) as (_, cfg):
        _ours(request, cfg)


def launch(request: Request, jobs: Sequence[Job], work: Work, folder: Path) -> list[Outcome]:
    """Have a launcher run the jobs, and say how each ended.

    request: verb, folders and the words that choose the launcher. work: of a module, since it is pickled. folder: for
    what the jobs tell and for the launcher's own files; every machine must see it.
    """
    board = Board((folder / "outcomes").resolve())
    killed, why, wait, left = Counter[tuple[str, ...]](), "", False, list(jobs)
    while left:
        for job in left:
            board.forget(job)
        why = _once(request, left, Elsewhere(work, board, wait, request.config_dirs), folder)
        lost = [job for job in left if board.told(job) is None]
        killed.update(job.overrides for job in lost if board.begun(job))
        if lost == left and not any(map(board.begun, lost)):
            break  # it cannot launch anything
        # those that may have killed the others come last, and each but once more
        left = [job for job in lost if killed[job.overrides] < TRIES]
        left.sort(key=lambda job: killed[job.overrides])
        if not left and not wait:  # what another process has comes last, and is waited for
            wait, left = True, [job for job in jobs if (found := board.told(job)) and found.state == "busy"]

    def lost_one(job: Job) -> Outcome:
        how = "its process ended without a word" if killed[job.overrides] else "it was never begun"
        return Outcome(job.overrides, 1, f"{how}{why}; see {folder}; the same command goes on", state="failed")

    return [board.told(job) or lost_one(job) for job in jobs]


def _once(request: Request, jobs: Sequence[Job], do: Elsewhere, folder: Path) -> str:
    """Launch jobs once. Returns what the launcher says where it gives up, for the middle of a sentence."""
    with sweep_config(request, folder) as (context, cfg):
        try:
            if (ours := _ours(request, cfg)) is not None:
                ours.run(do, jobs, folder / "jobs", do.board)
            else:
                _by_hydra(request, [list(job.overrides) for job in jobs], do, context, cfg)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with what is missing", flush=True)
            raise
        except Exception as error:  # whatever a launcher raises
            return f" ({reason(error)})"
    return ""


def _by_hydra(
    request: Request, overrides: list[list[str]], do: Elsewhere, context: HydraContext, cfg: DictConfig
) -> None:
    task = Launched(request.verb, do)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=cfg)
    try:
        launcher.launch(overrides, 0)
    finally:
        if (joblib := sys.modules.get("joblib")) is not None:  # it keeps its processes, and they their folder
            joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


def _ours(request: Request, cfg: DictConfig) -> Submitit | Ray | None:
    """The launcher, where it is ours. Raises `BadInput` where it, or what it needs, is not there."""
    node = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(node, dict)
    keys = {str(key): value for key, value in node.items()}
    target, name = str(keys.pop("_target_")), cfg.hydra.runtime.choices["hydra/launcher"]
    kind = OURS.get(target)
    module = target.rpartition(".")[0]
    if kind:  # of a module that is called like its library
        module = module.rpartition(".")[2]
    if not _there(module):
        about = entries("hydra/launcher", user_conf_dirs(request.config_dirs)).get(name, "")
        raise BadInput(f"hydra/launcher={name}: there is no module {module}; {about}")
    try:
        return kind(**keys) if kind else None
    except TypeError as error:
        raise BadInput(f"hydra/launcher={name}: {reason(error)}") from error


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

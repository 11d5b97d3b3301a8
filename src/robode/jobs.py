"""Running jobs through Hydra: one, or a sweep in which a failing job does not stop the others."""

import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from robode.composition import Request, name_experiment
from robode.outcome import Outcome, failure

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def run_jobs(session: "Hydra", request: Request) -> list[Outcome]:
    """Run every job of a request in this process, or wherever the chosen launcher puts it."""
    task = functools.partial(_task, request=request)
    words = request.for_hydra(request.overrides)
    if not request.multirun:
        returns = [session.run(config_name=request.verb, task_function=task, overrides=words)]
    else:
        words.append("hydra.mode=MULTIRUN")
        batches = session.multirun(config_name=request.verb, task_function=task, overrides=words)
        returns = [job for batch in batches for job in batch]
    return [job.return_value for job in returns]


def _task(cfg: DictConfig, request: Request) -> Outcome:
    """One job: ``sys.argv`` is a command line that repeats this job alone, and no trace of Hydra is left.

    Whatever records or repeats the command line then means this job and not the whole sweep; Lightning would
    add words of Hydra's own to it if ``HydraConfig`` were set.
    """
    hydra = HydraConfig.get()
    words = tuple(hydra.overrides.task)
    name = hydra.runtime.choices.get("experiment")
    with open_dict(cfg):
        name_experiment(cfg, name)
    folders = [word for folder in request.config_dirs for word in ("--config-dir", folder)]
    argv, hydra_state = sys.argv, HydraConfig.instance().cfg
    sys.argv = [argv[0], request.verb, *folders, *words]
    HydraConfig.instance().cfg = None
    try:
        return Outcome(words, result=_run(request.verb, cfg, words))
    except Exception as error:
        return failure(error, words)
    finally:
        sys.argv, HydraConfig.instance().cfg = argv, hydra_state


def _run(verb: str, cfg: DictConfig, words: Sequence[str]) -> dict[str, Any]:
    """What a verb does; this is where torch is imported."""
    if verb == "train":
        from robode.train import run_training

        return run_training(cfg, words)
    from robode.evaluate import run_evaluation

    return run_evaluation(cfg)

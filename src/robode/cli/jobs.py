"""Running jobs through Hydra: one, or many in which a failing job does not stop the others.

A job that another process has is put off until the rest is done, so that several processes share one sweep.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from robode.cli.outcome import Outcome, failure
from robode.config.compose import Request, compose_jobs, hydra_session, name_experiment
from robode.config.validate import check_jobs

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

# verb → where it is done
TASKS = {
    "train": ("robode.verbs.train", "run_training"),
    "evaluate": ("robode.verbs.evaluate", "run_evaluation"),
    "certify": ("robode.verbs.certify", "run_certify"),
    "export": ("robode.verbs.export", "run_export"),
}


def run_jobs(session: "Hydra", request: Request) -> list[Outcome]:
    """Run every job of a request in this process, or wherever the chosen launcher puts it."""
    words = request.for_hydra(request.overrides)
    if not request.multirun:
        return [_run_one(session, request, wait=True)]
    task = functools.partial(_task, request=request, wait=False, failed=[])
    words.append("hydra.mode=MULTIRUN")
    batches = session.multirun(config_name=request.verb, task_function=task, overrides=words)
    outcomes: list[Outcome] = [job.return_value for batch in batches for job in batch]
    return _finish(session, request, outcomes)


def run_all(
    verb: str,
    jobs: Sequence[Sequence[str]],
    *,
    config_dirs: Sequence[str] = (),
    fail_fast: bool = False,
    after: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Run jobs that are given by their words one after the other, once all of them have been found good.

    after: gets the number and the outcome of each job when it is done (a job that is put off comes twice, first
    as busy).

    Raises:
        BadInput: one of the jobs cannot work; none has been started then.
    """
    requests = [Request(verb, tuple(words), False, tuple(config_dirs)) for words in jobs]
    with hydra_session(verb) as session:
        check_jobs(verb, [cfg for request in requests for cfg in compose_jobs(session, request)])
        return _run_each(session, requests, fail_fast, after)


def _run_each(
    session: "Hydra", requests: Sequence[Request], fail_fast: bool, after: Callable[[int, Outcome], None] | None
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    failed: list[bool] = []
    for number, request in enumerate(requests):
        outcomes.append(_run_one(session, request, wait=False, failed=failed, fail_fast=fail_fast))
        if after:
            after(number, outcomes[-1])
    for number, (request, outcome) in enumerate(zip(requests, outcomes, strict=True)):
        if outcome.state == "busy":
            outcomes[number] = _run_one(session, request, wait=True, failed=failed, fail_fast=fail_fast)
            if after:
                after(number, outcomes[number])
    return outcomes


def _finish(session: "Hydra", request: Request, outcomes: list[Outcome]) -> list[Outcome]:
    """Do what was put off, now waiting for whoever has it."""
    for number, outcome in enumerate(outcomes):
        if outcome.state == "busy":
            alone = replace(request, overrides=outcome.overrides, multirun=False)
            outcomes[number] = _run_one(session, alone, wait=True)
    return outcomes


def _run_one(
    session: "Hydra", request: Request, wait: bool, failed: list[bool] | None = None, fail_fast: bool = False
) -> Outcome:
    task = functools.partial(_task, request=request, wait=wait, failed=[] if failed is None else failed, fast=fail_fast)
    try:
        words = request.for_hydra(request.overrides)
        outcome: Outcome = session.run(config_name=request.verb, task_function=task, overrides=words).return_value
    except Exception as error:  # a file of the user's that has changed since all jobs were composed
        return failure(error, request.overrides)
    return outcome


def _task(cfg: DictConfig, request: Request, wait: bool, failed: list[bool], fast: bool = False) -> Outcome:
    """One job: ``sys.argv`` is a command line that repeats this job alone, and no trace of Hydra is left.

    Whatever records or repeats the command line then means this job and not the whole sweep; Lightning would
    add words of Hydra's own to it if ``HydraConfig`` were set. failed: grows by one with each failure.
    """
    hydra = HydraConfig.get()
    words = tuple(hydra.overrides.task)
    if failed and (fast or cfg.fail_fast):
        return Outcome(words, 1, "not run, because a job before it failed (fail_fast=true)", state="skipped")
    name = hydra.runtime.choices.get("experiment")
    with open_dict(cfg):
        name_experiment(cfg, name)
    folders = [word for folder in request.config_dirs for word in ("--config-dir", folder)]
    argv, hydra_state = sys.argv, HydraConfig.instance().cfg
    sys.argv = [argv[0], request.verb, *folders, *words]
    HydraConfig.instance().cfg = None
    try:
        result = _run(request.verb, cfg, words, wait)
        return Outcome(words, result=result, state="done" if result.get("trained", True) else "reused")
    except Exception as error:
        outcome = failure(error, words)
        if outcome.state != "busy":
            failed.append(True)
        return outcome
    finally:
        sys.argv, HydraConfig.instance().cfg = argv, hydra_state


def _run(verb: str, cfg: DictConfig, words: Sequence[str], wait: bool) -> dict[str, Any]:
    """What a verb does; this is where torch is imported."""
    module, function = TASKS[verb]
    task = getattr(importlib.import_module(module), function)
    return task(cfg, words, wait) if verb == "train" else task(cfg)

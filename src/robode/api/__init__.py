"""What people import: train, stabilise, measure, certify, export and load networks, and attack and certify anyone's.
The command line does the same by the same. All of it is there as `robode.NAME` too.

import robode

trained = robode.train(model="chnode", depth=4, epochs=1, model__width=8)
network = robode.load(trained.run)     # x in data units -> outputs
table = robode.results(trained.run)    # a pandas DataFrame
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from robode.api.certification import Certified, run_certify
from robode.api.evaluation import Evaluated, run_evaluation
from robode.api.exporting import Exported, run_export
from robode.api.loading import load, named
from robode.api.modules import (
    Attacked,
    CertifiedModule,
    Smoothed,
    attack,
    certify_module,
    logit_radii,
    plane_radii,
    smooth_module,
)
from robode.api.stabilisation import Stabilised, run_stabilise
from robode.api.tables import results
from robode.api.training import Trained, run_training
from robode.config.compose import Request, compose_jobs
from robode.config.config import CertifyConfig, EvaluateConfig, StabiliseConfig, TrainConfig, Value
from robode.config.jobs import Job, Result, run_each
from robode.config.validate import check_jobs
from robode.errors import BadInput, JobFailed
from robode.runs.progress import silent
from robode.training.plan import check_folders

__all__ = [
    "Attacked", "Certified", "CertifiedModule", "Evaluated", "Exported", "Smoothed", "Stabilised", "Trained", "attack",
    "certify", "certify_module", "evaluate", "export", "load", "logit_radii", "plane_radii", "results", "smooth_module",
    "stabilise", "train", "work",
]  # fmt: skip


def train(*, quiet: bool = False, **overrides: Value) -> Trained:
    """What `robode train key=value …` does: find the run or make it, train what is missing, measure, write the page.

    overrides: the words of the command line; two underscores stand for a dot: train(model="chnode", model__width=16)
    is `robode train model=chnode model.width=16`, as is **{"model.width": 16}. None is null, a list chooses several
    files of a group (suite=["noise", "clean"]). quiet: print nothing, and show no progress; so in all of robode.api.

    Raises:
        BadInput: what the command line refuses with exit code 2.
        JobFailed: a loss that is not finite, a disk that refuses.
    """
    if overrides.get("seeds") is not None:
        raise BadInput(f"seeds={overrides['seeds']}: expected one run at a time; call train once for each seed=…")
    found = _done("train", overrides, quiet)
    assert isinstance(found, Trained)
    return found


def evaluate(run: str | Path, *, quiet: bool = False, **overrides: Value) -> Evaluated:
    """What `robode evaluate run=RUN key=value …` does: measure what is missing, refresh the page.

    run: its folder, its name, or a checkpoint in it.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("evaluate", {"run": named(run), **overrides}, quiet)
    assert isinstance(found, Evaluated)
    return found


def certify(run: str | Path, *, quiet: bool = False, **overrides: Value) -> Certified:
    """What `robode certify run=RUN key=value …` does: certified constants and certified accuracy, in certificate.json.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("certify", {"run": named(run), **overrides}, quiet)
    assert isinstance(found, Certified)
    return found


def export(run: str | Path, to: str | Path, *, quiet: bool = False, **overrides: Value) -> Exported:
    """What `robode export run=RUN to=FOLDER` does: weights as safetensors with their certificate, and a program that
    runs with torch alone.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("export", {"run": named(run), "to": str(to), **overrides}, quiet)
    assert isinstance(found, Exported)
    return found


def stabilise(run: str | Path, delta: float, *, quiet: bool = False, **overrides: Value) -> Stabilised:
    """What `robode stabilise run=RUN delta=DELTA key=value …` does: a new run with the weights of that run, projected
    until the log-norm of its field is proved to be at most delta.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("stabilise", {"run": named(run), "delta": delta, **overrides}, quiet)
    assert isinstance(found, Stabilised)
    return found


def work(job: Job, wait: bool = True) -> Result:
    """What is done for one job of `robode train`, `evaluate`, `certify`, `export` or `stabilise` (see `run_each`).

    Raises:
        BadInput, JobFailed: see the five functions.
        Busy: another process has the run, and `wait` is false.
    """
    config = job.config
    if isinstance(config, TrainConfig):
        return run_training(config, job.overrides, wait)
    if isinstance(config, StabiliseConfig):
        return run_stabilise(config, wait)
    if isinstance(config, CertifyConfig):
        return run_certify(config, wait)
    return run_evaluation(config, wait) if isinstance(config, EvaluateConfig) else run_export(config)


def _done(verb: str, overrides: Mapping[str, Value], quiet: bool) -> Result:
    keys = [key.replace("__", ".") for key in overrides]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise BadInput(f"{twice[0]}: given twice, with two underscores and with a dot; expected it once")
    words = tuple(f"{key}={_word(value)}" for key, value in zip(keys, overrides.values(), strict=True))
    jobs = compose_jobs(Request(verb, words))
    check_jobs([job.config for job in jobs])
    check_folders(jobs[0].config, jobs[0].overrides)
    with silent(quiet):
        (outcome,) = run_each(jobs, work)
    if outcome.result is None:
        raise (BadInput if outcome.code == 2 else JobFailed)(outcome.error)
    return outcome.result


def _word(value: Value | Path) -> str:
    """A Python value as the command line says it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_word, value))}]"
    plain = isinstance(value, int | float) or str(value).replace("/", "").replace("_", "").replace(".", "").isalnum()
    return str(value) if plain else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"

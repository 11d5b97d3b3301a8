"""What people import: train, stabilise, measure, certify, export and load networks. The command line does the
same by the same.

from robode.api import load, train

trained = train(model="chnode", depth=4, epochs=1)
network = load(trained.run)            # x in data units -> outputs
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from robode.api.certification import Certified, run_certify
from robode.api.evaluation import Evaluated, run_evaluation
from robode.api.exporting import Exported, run_export
from robode.api.stabilisation import Stabilised, run_stabilise
from robode.api.training import Trained, run_training
from robode.config.compose import Request, compose_jobs
from robode.config.config import CertifyConfig, EvaluateConfig, StabiliseConfig, TrainConfig, Value
from robode.config.jobs import Job, Result, run_each
from robode.config.validate import CHECKPOINTS, check_jobs
from robode.device import chosen_device
from robode.errors import BadInput, JobFailed
from robode.evaluation.target import trained as trained_network
from robode.network import Network
from robode.runs.origin import CODES
from robode.training.plan import check_folders

__all__ = ["Certified", "Evaluated", "Exported", "Stabilised", "Trained", "certify", "evaluate", "export", "load",
           "stabilise", "train", "work"]  # fmt: skip

FAR = 10.0  # widths of the bounds: noise and attacks leave them, by less


def train(**overrides: Value) -> Trained:
    """What `robode train key=value …` does: find the run or make it, train what is missing, measure, write the page.

    overrides: the words of the command line; a key with a dot goes through a dictionary: train(model="chnode",
    **{"model.width": 16}). None is null, a list chooses several files of a group (suite=["noise", "clean"]).

    Raises:
        BadInput: what the command line refuses with exit code 2.
        JobFailed: a loss that is not finite, a disk that refuses.
    """
    if overrides.get("seeds") is not None:
        raise BadInput(f"seeds={overrides['seeds']}: expected one run at a time; call train once for each seed=…")
    found = _done("train", overrides)
    assert isinstance(found, Trained)
    return found


def evaluate(run: str | Path, **overrides: Value) -> Evaluated:
    """What `robode evaluate run=RUN key=value …` does: measure what is missing, refresh the page.

    run: its folder, its name, or a checkpoint in it.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("evaluate", {"run": _named(run), **overrides})
    assert isinstance(found, Evaluated)
    return found


def certify(run: str | Path, **overrides: Value) -> Certified:
    """What `robode certify run=RUN key=value …` does: certified constants and certified accuracy, in certificate.json.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("certify", {"run": _named(run), **overrides})
    assert isinstance(found, Certified)
    return found


def export(run: str | Path, to: str | Path, **overrides: Value) -> Exported:
    """What `robode export run=RUN to=FOLDER` does: weights as safetensors with their certificate.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("export", {"run": _named(run), "to": str(to), **overrides})
    assert isinstance(found, Exported)
    return found


def stabilise(run: str | Path, delta: float, **overrides: Value) -> Stabilised:
    """What `robode stabilise run=RUN delta=DELTA key=value …` does: a new run with the weights of that run, projected
    until the log-norm of its field is proved to be at most delta.

    Raises:
        BadInput, JobFailed: like `train`.
    """
    found = _done("stabilise", {"run": _named(run), "delta": delta, **overrides})
    assert isinstance(found, Stabilised)
    return found


def load(run: str | Path, *, checkpoint: str = "best", device: str = "auto", code: str = "same") -> Network:
    """The network of a run, ready to be called: x (B, *shape) float in data units (images in [0, 1]) -> (B, outputs).

    run: its folder, its name, or a checkpoint in it. checkpoint: best or last. device: auto (a GPU where there is one),
    cpu or cuda. code: "any" takes a run that other code has trained, with a warning.

    Raises:
        BadInput: no such run, checkpoint or device, or other code trained the run. When it is called: x of another
            shape, no floating-point tensor (bytes that were not scaled), more digits than the network's, NaN or
            infinity, or images from 0 to 255. Values are not looked at where a compiler or a CUDA graph records the
            call.
    """
    for key, value, choices in (("checkpoint", checkpoint, CHECKPOINTS), ("code", code, CODES)):
        if value not in choices:
            raise BadInput(f"{key}={value}: choose one of: {', '.join(choices)}")
    where = chosen_device(device)
    found = trained_network(_named(run), checkpoint, code)
    if found.note:
        warnings.warn(found.note, stacklevel=2)
    network = found.network.to(where).eval()
    assert isinstance(network, Network)
    network.register_forward_pre_hook(_check_samples)
    return network


def _check_samples(network: Network, inputs: tuple[object, ...]) -> None:
    """Raises `BadInput` for x that is no batch of samples."""
    x = inputs[0] if inputs else None
    expected = f"expected (B, {', '.join(map(str, network.info.shape))})"
    if not isinstance(x, Tensor):
        raise BadInput(f"x: {expected}, a tensor in data units, got a {type(x).__name__}")
    if tuple(x.shape[1:]) != network.info.shape or x.dim() == 0:
        raise BadInput(f"x: {expected}, got {tuple(x.shape)}")
    recorded = x.is_cuda and torch.cuda.is_current_stream_capturing()
    if x.is_floating_point() and len(x) and not (torch.compiler.is_compiling() or recorded):
        _check_values(x.detach(), network.bounds)


def _check_values(x: Tensor, bounds: tuple[float, float] | None) -> None:
    """Raises `BadInput` for NaN and infinity, and for values so far beyond the bounds that they are of other units."""
    try:
        least, most = torch.stack(x.aminmax()).tolist()  # nan where there is one; waits for the device once
    except RuntimeError:  # under a transform of torch.func values cannot be looked at
        return
    if not (math.isfinite(least) and math.isfinite(most)):
        raise BadInput("x: expected finite numbers, got NaN or infinity")
    if bounds is not None and max(most - bounds[1], bounds[0] - least) > FAR * (bounds[1] - bounds[0]):
        hint = "; write x / 255" if least >= 0 and most <= 255 and bounds == (0.0, 1.0) else ""
        raise BadInput(f"x: expected data units, in {list(bounds)}, got values from {least:g} to {most:g}{hint}")


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


def _done(verb: str, overrides: Mapping[str, Value]) -> Result:
    words = tuple(f"{key}={_word(value)}" for key, value in overrides.items())
    jobs = compose_jobs(Request(verb, words))
    check_jobs([job.config for job in jobs])
    check_folders(jobs[0].config, jobs[0].overrides)
    (outcome,) = run_each(jobs, work)
    if outcome.result is None:
        raise (BadInput if outcome.code == 2 else JobFailed)(outcome.error)
    return outcome.result


def _named(run: object) -> str:
    if not isinstance(run, str | Path):
        raise BadInput(
            f"run={run}: expected a run's folder, its name or a checkpoint in it, got a {type(run).__name__}"
        )
    return str(run)


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

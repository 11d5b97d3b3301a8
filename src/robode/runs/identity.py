"""What makes two trainings the same: the configuration without what cannot change the weights, and the data."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from robode.config.allowed import HINTS, OF_OBJECTIVES
from robode.config.config import Node, Value

# Where files are, what the run is called, who listens, how jobs are handled; how many threads compute (last bits) …
VOLATILE = (
    "run", "resume", "start", "force", "code", "fail_fast", "seeds", "logger", "experiment", "data.root",
    "data.source.root", "data.file", "data.source.file", "data.task", "trainer.threads",
    "callbacks.log_norms",
)  # fmt: skip
# … and what is measured afterwards: one training serves any number of evaluations.
EVALUATION = ("suite", "protocol", "repeats")
ENDING = "_file"
USUAL: dict[str, Value] = {
    "encoder": {"name": "auto", "bounded": False}, "head": {"name": "linear"}, "augment": {"name": "none"},
    "start_weights": None,
}  # fmt: skip
# The same below a group; null mean and std: the customary ones of the data set.
USUAL_OF_PARTS: dict[str, dict[str, Value]] = {
    "model": {"images": "pixels"}, "integrator": {"gradient": "backprop"}, "data": {"mean": None, "std": None},
    "data.source": {"mean": None, "std": None}, "encoder": {"places": None},
    "trainer": {"captured": False},
}  # fmt: skip
LATER = ("rk38", "verlet")  # integrators that lists of models have gained, and names of runs would have changed by
RESULT_SCHEMA = 2
"""Version of what a run folder holds. A run of another version is another run."""


def training_config(plain: Node) -> dict[str, Value]:
    """The part of a plain resolved configuration that decides the weights, serialised as it is hashed; `plain` stays as
    it is.

    A file that a key of the model names (`files_of`) counts by its content.
    """
    kept: dict[str, Value] = {key: copy.deepcopy(value) for key, value in plain.items()}
    for dotted in (*VOLATILE, *EVALUATION):
        *path, last = dotted.split(".")
        node: Value = kept
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    for group in kept.values():
        if isinstance(group, dict):
            for key in HINTS:
                group.pop(key, None)  # what a value may be is no value
    objective = kept.get("objective")
    for entry in objective.values() if isinstance(objective, dict) else ():
        for key in OF_OBJECTIVES:  # what a term of the loss is for decides no weight
            (entry or {}).pop(key, None)
    for group, usual in USUAL.items():  # what every run had before there was a choice
        if kept.get(group) == usual:
            kept.pop(group, None)
    for name, keys in USUAL_OF_PARTS.items():
        part: Value = kept
        for step in name.split("."):
            part = part.get(step) if isinstance(part, dict) else None
        for key, value in keys.items():
            if isinstance(part, dict) and key in part and part[key] == value:
                del part[key]
    model = kept.get("model")
    if isinstance(model, dict) and isinstance(listed := model.get("integrators"), list):
        model["integrators"] = [each for each in listed if each not in LATER]
    for key, file in files_of(kept).items():
        if isinstance(model, dict) and file.is_file():
            model[key] = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return kept


def files_of(config: Node) -> dict[str, Path]:
    """The files that a network is made from: every key of the model that ends in ENDING and names one."""
    model = config.get("model")
    named = model.items() if isinstance(model, Mapping) else ()
    return {str(key): Path(str(value)) for key, value in named if str(key).endswith(ENDING) and value}


def config_hash(plain: Node) -> str:
    """SHA-256 of the training configuration."""
    return _digest(training_config(plain))


def run_id(plain: Node, data_digest: str) -> str:
    """<model>-N<depth>-s<seed>-<hash8>: the name of a run that was given none.

    data_digest: of the samples (`DataModule.digest`); the same configuration on other files is another run.
    """
    unique = _digest([training_config(plain), data_digest, RESULT_SCHEMA])[:8]
    model = plain["model"]
    assert isinstance(model, Mapping)
    return f"{model['name']}-N{plain['depth']}-s{plain['seed']}-{unique}"


def differences(a: Node, b: Node) -> list[tuple[str, Value, Value]]:
    """(dotted key, value in a, value in b) wherever two trainings differ; None for a key that one lacks."""
    one, two = dict(_flat(training_config(a))), dict(_flat(training_config(b)))
    keys = dict.fromkeys([*one, *two])
    differing = [key for key in keys if (key in one, one.get(key)) != (key in two, two.get(key))]
    return [(key, one.get(key), two.get(key)) for key in differing]


def _flat(node: Node, prefix: str = "") -> Iterator[tuple[str, Value]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value


def _digest(content: Value) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

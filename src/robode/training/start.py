"""Where a training begins: `start=RUN` takes the weights of a finished run instead of random ones.

What a new run is depends on these weights, not on where they lie: `pinned` writes their digest into its configuration.
No torch before that, so that the command line can refuse early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from robode.config.allowed import DESCRIPTION
from robode.config.config import Choice, Node, TrainConfig, Value
from robode.errors import BadInput
from robode.runs.identity import training_config
from robode.runs.origin import check_code
from robode.runs.run import OUTPUTS, Run, checkpoint_path, find

if TYPE_CHECKING:
    from robode.network import Network

GROUPS = ("model", "integrator", "encoder", "head")
NUMBERS = ("depth", "step", "horizon")
SHOWN = 3  # keys that differ, in a complaint


def finished(where: str, key: str = "start") -> tuple[Run, Path]:
    """The run that is named, and the checkpoint: best, as `evaluate` sees it, unless a file was named. key: to name in
    a complaint.

    Raises:
        BadInput: there is no such run, or its training has not come to its end.
    """
    run, named = find(where, key)
    if not run.trained:
        raise BadInput(f"{key}={where}: expected a finished training, and run {run.id} is {run.state}; finish it first")
    return run, checkpoint_path(run, named or "best")


def check_start(config: TrainConfig, outputs: Path = OUTPUTS) -> str:
    """Refuse a run that a training cannot begin with; nothing where it begins with random weights. Returns a line with
    † where other code trained the run, else "".

    Raises:
        BadInput: no such run, an unfinished or damaged one, one of other code, the new run itself, another network.
    """
    if config.start is None:
        return ""
    run, _ = finished(config.start)
    before = run.config()
    if config.run is not None:
        check_other(config, outputs / config.experiment / config.run)
    check_network(f"start={config.start}: expected the network of run {run.id}", before, config)
    return check_code(run, config.code)


def check_network(what: str, before: TrainConfig, config: TrainConfig) -> None:
    """Raises `BadInput`, which begins with `what`, if weights of one training do not fit the network of the other."""
    if differing := list(_differing(before, config)):
        said = ", ".join(f"{key}={there} (not {here})" for key, there, here in differing[:SHOWN])
        more = f" and {len(differing) - SHOWN} more keys" if len(differing) > SHOWN else ""
        raise BadInput(f"{what}: {said}{more}")


def check_other(config: TrainConfig, folder: Path) -> None:
    """Raises `BadInput` if the folder of a new run is that of the run that it begins with."""
    if config.start is not None and find(config.start, key="start")[0].folder.resolve() == folder.resolve():
        raise BadInput(f"start={config.start}: is the run {folder.name} itself; choose another name")


def _differing(before: TrainConfig, config: TrainConfig) -> Iterator[tuple[str, Value, Value]]:
    """(key, value there, value here) of what makes two networks differ, apart from what the model's file says that it
    `keeps`."""
    fits = config.model.about.get("fits")
    free = str(fits.get("keeps", "")).split() if isinstance(fits, dict) else []
    for group in GROUPS:
        a, b = getattr(before, group), getattr(config, group)
        if a.name != b.name or a.target != b.target:
            yield (group, a.name, b.name) if a.name != b.name else (group, a.target, b.target)
            continue
        one, two = _arguments(before, group, a), _arguments(config, group, b)
        for key in dict.fromkeys([*one, *two]):
            if key not in free and one.get(key) != two.get(key):
                yield f"{group}.{key}", one.get(key), two.get(key)
    for key in NUMBERS:
        if getattr(before, key) != getattr(config, key):
            yield key, getattr(before, key), getattr(config, key)


def _arguments(config: TrainConfig, group: str, part: Choice) -> Node:
    """Of a part of the network; a file counts by its content."""
    node = training_config(config.plain()).get(group)
    found = node if isinstance(node, dict) else part.arguments
    return {key: value for key, value in found.items() if key not in DESCRIPTION}


def pinned(config: TrainConfig) -> TrainConfig:
    """The configuration with the digest of the weights that it begins with, as they are now. Reads their checkpoint.

    Raises:
        BadInput: see `finished`; or the checkpoint is damaged.
    """
    if config.start is None:
        return config
    _, checkpoint = finished(config.start)
    try:
        file = checkpoint.stat()
        digest = _digest(checkpoint, (file.st_dev, file.st_ino, file.st_mtime_ns, file.st_size))
    except (BadInput, OSError) as error:
        raise BadInput(f"start={config.start}: {error}") from error
    return replace(config, start_weights=digest)


@cache
def _digest(checkpoint: Path, file: tuple[int, ...]) -> str:
    """Of the network in a checkpoint, as column `weights` of results.csv has it. file: what tells whether it is still
    the same."""
    from robode.network import state_digest
    from robode.runs.checkpoints import network_state

    return state_digest(network_state(checkpoint))


def begin(network: Network, config: TrainConfig) -> None:
    """Puts the weights of `config.start` into the network, projected onto whatever it constrains them to. Nothing where
    it begins with random weights. Random generators stay where they are.

    Raises:
        BadInput: weights that do not fit, are not finite or not those of `config.start_weights` any more, or that
            cannot be projected.
    """
    if config.start is None:
        return
    import torch

    from robode.runs.checkpoints import load_weights
    from robode.training.callbacks import constrained

    _, checkpoint = finished(config.start)
    if config.start_weights not in (None, pinned(config).start_weights):
        raise BadInput(f"start={config.start}: its weights are others now than when this run was made; train a new run")
    try:
        load_weights(checkpoint, network)
    except BadInput as error:
        raise BadInput(f"start={config.start} and data={config.data.name}: {error}") from error
    for name, weights in network.named_parameters():
        if not bool(weights.isfinite().all()):
            raise BadInput(f"start={config.start}: its weights are not finite ({name}); choose another run")
    with torch.random.fork_rng(devices=[]):
        for each in constrained(network):
            each.project_()

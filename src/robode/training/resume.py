"""`resume=RUN`: the run's own configuration, with the few words that may change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from robode.config.instantiate import to_plain
from robode.errors import BadInput
from robode.runs.run import Run, checkpoint_path, find

# What does not change the trajectory up to the epoch that was reached.
MAY_CHANGE = ("epochs", "trainer", "callbacks", "logger", "suite", "protocol", "repeats", "data.root")
# Arguments of torch's schedulers (cosine, one-cycle, …) that are made from `epochs` when a run starts.
LENGTHS = ("T_max", "total_steps", "epochs")


def resumed(cfg: DictConfig, words: Sequence[str]) -> tuple[DictConfig, Run]:
    """The configuration to continue with, and the run.

    cfg: what the command line composes to; words: the typed `key=value` among it. A word outside MAY_CHANGE
    is refused, because the run would no longer be the one that its name and its first epochs belong to.

    Raises:
        BadInput: no such run, no last.ckpt yet, a word that may not change, or `epochs` that do not fit what
            was done or the learning-rate schedule.
    """
    run, _ = find(cfg.resume, key="resume")
    checkpoint_path(run, "last")
    config = run.config()
    planned = config.epochs
    for word in words:
        key = word.split("=")[0].lstrip("+~").split("@")[0].replace("/", ".")
        if key in ("resume", "code"):  # how this session is asked for, no part of the run
            continue
        if not any(key == allowed or key.startswith(allowed + ".") for allowed in MAY_CHANGE):
            raise BadInput(
                f"{key}: a resumed run keeps its own configuration except {', '.join(MAY_CHANGE)}; "
                "start a new run to change anything else"
            )
        with open_dict(config):
            OmegaConf.update(config, key, OmegaConf.select(cfg, key), merge=False)
            if key == "data.root" and "root" in config.data.source:
                config.data.source.root = cfg.data.root
    _check_epochs(run, config, planned)
    return config, run


def _check_epochs(run: Run, config: DictConfig, planned: int) -> None:
    """planned: the epochs that the run was started with."""
    done = run.status().get("epoch", 0)
    if config.epochs < done:
        raise BadInput(f"epochs={config.epochs}: run {run.id} has done {done} already; choose epochs={done} or more")
    fixed = _lengths(to_plain(config.optimizer).get("scheduler"))
    if config.epochs != planned and fixed:
        raise BadInput(
            f"epochs={config.epochs}: the learning-rate schedule of run {run.id} was laid out for {planned} epochs "
            f"(optimizer.scheduler.{fixed[0]}); start a new run with epochs={config.epochs}"
        )


def _lengths(node: Any) -> list[str]:
    """Arguments of a scheduler, or of one inside it, that say how long the training is."""
    if isinstance(node, list):
        return [name for each in node for name in _lengths(each)]
    if not isinstance(node, dict):
        return []
    return [name for name in LENGTHS if node.get(name) is not None] + _lengths(list(node.values()))

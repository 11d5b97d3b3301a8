"""`robode stabilise` as a training: the configuration of a finished run, which begins with the weights of that run and
keeps the log-norm of its field at most delta. No torch.
"""

from __future__ import annotations

from dataclasses import replace

from robode.config.config import Config, EvaluateConfig, ExportConfig, Part, StabiliseConfig, TrainConfig
from robode.errors import BadInput
from robode.runs.origin import check_code
from robode.training.start import finished

WAY, LEVEL = "stabilise", "delta"
"""Keys of a model whose `project_` keeps the log-norm of its fields at most `LEVEL`, with `WAY`=projection."""


def as_training(config: Config) -> TrainConfig | EvaluateConfig | ExportConfig:
    """A job as it is, or the training that stabilises a run. Raises `BadInput`."""
    return stabilising(config) if isinstance(config, StabiliseConfig) else config


def stabilising(config: StabiliseConfig) -> TrainConfig:
    """The new run. Terms of the loss that are for another way to a small log-norm are left out.

    Raises:
        BadInput: no such run, an unfinished one, one of other code, or a model whose log-norm nothing keeps small.
    """
    run, _ = finished(str(config.run), "run")
    check_code(run, config.code)
    before = run.config()
    model = before.model
    if not {WAY, LEVEL} <= model.arguments.keys():
        raise BadInput(
            f"run={config.run}: expected fields sigma(A u + b) with slopes in [alpha, 1], alpha > 0, as "
            f"model=stable_node and model=conv_stable_node have them, got model={model.name}"
        )
    arguments = {**model.arguments, WAY: "projection", LEVEL: config.delta}
    about = {**model.about, "fits": {"keeps": f"{WAY} {LEVEL}"}}
    data = before.data if config.data_root is None else before.data.at(config.data_root)
    words = ("lr", "batch_size", "seed", "trainer", "suite", "protocol", "repeats")
    given = {word: getattr(config, word) for word in words if getattr(config, word) is not None}
    return replace(
        before, model=replace(model, arguments=arguments, about=about), data=data, epochs=config.epochs,
        objective={name: part for name, part in before.objective.items() if not _of_another_way(part)},
        start=config.run, start_weights=None, run=config.to, resume=None, seeds=None, force=config.force,
        code=config.code, fail_fast=config.fail_fast, **given,
    )  # fmt: skip


def _of_another_way(part: Part | None) -> bool:
    needs = part.about.get("needs") if part else None
    return isinstance(needs, dict) and WAY in needs and needs[WAY] != "projection"

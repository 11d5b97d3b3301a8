"""What a measurement is about, what it asks and of which samples, as typed configurations say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robode.config.config import EvaluateConfig, Group, Node, Part, TrainConfig

if TYPE_CHECKING:
    import torch

BATCH = 200  # states of this size stay in a CPU's cache; 1000 took half as long again


@dataclass(frozen=True, kw_only=True)
class Described:
    """What rows say of a network besides its weights. depth, seed: of its training, None where nobody knows. precision:
    of its training; on_gpu: where that was; fast: whether it was a trial of one batch. nodes: where the digest of its
    code begins (`runs.code.network_code`).
    """

    model: str
    data: str
    nodes: Node
    integrator: str = ""
    depth: int | None = None
    seed: int | None = None
    experiment: str = ""
    precision: str = "32"
    on_gpu: bool = False
    fast: bool = False

    @classmethod
    def of(cls, config: TrainConfig) -> Described:
        """The network that this training makes."""
        trainer = config.trainer
        return cls(
            model=config.model.name, data=config.data.name, nodes=config.plain(), integrator=config.integrator.name,
            depth=config.depth, seed=config.seed, experiment=config.experiment, precision=str(trainer.precision),
            on_gpu=trainer.accelerator == "gpu", fast=trainer.fast_dev_run,
        )  # fmt: skip


@dataclass(frozen=True)
class SuiteRequest:
    """What is asked of a network. suite: the entries that are no null; repeats: noisy copies a level; seed: of them."""

    suite: Mapping[str, Part]
    protocol: Part
    repeats: int
    seed: int
    batch_size: int = BATCH

    @classmethod
    def of(cls, config: TrainConfig) -> SuiteRequest:
        """What is asked at the end of a training; fast_dev_run tries every part once."""
        repeats = 1 if config.trainer.fast_dev_run else config.repeats
        return cls(entries(config.suite), config.protocol, repeats, config.seed)

    @classmethod
    def later(cls, config: EvaluateConfig, seed: int | None) -> SuiteRequest:
        """What an evaluation asks. seed: of the training, whose noise goes on where the evaluation names no seed."""
        own = next(each for each in (config.seed, seed, 0) if each is not None)
        return cls(entries(config.suite), config.protocol, config.repeats, own, config.batch_size)


@dataclass(frozen=True)
class Scope:
    """Of which samples, how far, and where. limit: a part of the samples of the split (data.module); another limit
    makes other rows. verdicts: on at most so many samples every robust accuracy is questioned; 0: not. device: where
    all of it runs; None: where the run was trained, if that is here. wait: for another process that measures it."""

    split: str = "test"
    limit: int | None = None
    verdicts: int = 200
    device: torch.device | None = None
    wait: bool = True


def entries(suite: Group) -> dict[str, Part]:
    """Those that are not switched off."""
    return {name: part for name, part in suite.items() if part is not None}

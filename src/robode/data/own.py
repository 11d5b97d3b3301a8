"""Data sets made of the user's own files, which alone say what they hold: reading them is the only way to `info`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from robode.data.batches import in_units
from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import SPLIT_SEED, held_out
from robode.errors import BadInput
from robode.tasks.task import Task

Bounds: TypeAlias = tuple[float, float] | None
Numbers: TypeAlias = Sequence[float] | Literal["auto"]
BLOCK = 1000  # samples that are float64 at a time


class Content(NamedTuple):
    """What the files hold. test: None where they are not split."""

    train: Samples
    test: Samples | None
    bounds: Bounds
    task: Task


class OwnFiles(Source):
    """A data set of the user's. The samples of a split come in a fixed mixed order, so that the first few are an honest
    part of it.

    test: the share of the samples that becomes the test split where the files have none: a fixed draw, of each class
    alike. mean, std: in data units, one number a channel (images) or coordinate (vectors); "auto": those of the
    training split, with std 1 for what never changes.

    Raises:
        BadInput: a share that leaves nothing for one of the splits.
    """

    def __init__(self, test: float = 0.2, mean: Numbers = "auto", std: Numbers = "auto") -> None:
        if not 0 < test < 1:
            raise BadInput(f"data.test={test}: expected a share of the samples between 0 and 1")
        self.share, self.mean, self.std = test, mean, std
        self._loaded: tuple[Samples, Samples] | None = None

    @abstractmethod
    def read(self) -> Content:
        """All files. Raises BadInput, in one line, where they are missing, damaged or not of their kind."""

    @cached_property
    def _info(self) -> DatasetInfo:
        content = self.read()
        train, test = self._splits(content)
        x, said = train.x, (self.mean, self.std)
        mean, std = (tuple(b if a == "auto" else map(float, a)) for a, b in zip(said, _statistics(x), strict=True))
        self._loaded = train, test
        return DatasetInfo(tuple(x.shape[1:]), mean, std, content.bounds, content.task)

    @property
    def info(self) -> DatasetInfo:
        """Reads the files, once. Raises `BadInput` where they cannot be read."""
        return self._info

    def load(self) -> tuple[Samples, Samples]:
        """(train, test); what `info` has read is handed over, and not kept."""
        found, self._loaded = self._loaded, None
        return found or self._splits(self.read())

    def _splits(self, content: Content) -> tuple[Samples, Samples]:
        train, test = content.train, content.test
        if test is None:
            n = len(train.target)
            count = max(1, round(n * self.share))
            if count >= n:
                raise BadInput(f"data.test={self.share}: {n} samples leave none for training; expected more of them")
            train, test = held_out(train, content.task.strata(train.target), count)
        return _mixed(train), _mixed(test)


def _mixed(samples: Samples) -> Samples:
    order = torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(len(samples.target)))
    return Samples(samples.x[order], samples.target[order])


def _statistics(x: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of samples (n, *shape) in data units, over all but the second axis; 1 where nothing
    ever changes. Blocks, so that images may stay bytes."""

    def summed(shift: Tensor | float, power: int) -> Tensor:
        rows = (in_units(block).double().transpose(0, 1).flatten(1) for block in torch.split(x, BLOCK))
        return torch.stack([(each - shift).pow(power).sum(1) for each in rows]).sum(0) / (x.numel() / x.shape[1])

    mean = summed(0.0, 1)
    std = summed(mean[:, None], 2).sqrt()
    flat = x.transpose(0, 1).flatten(1)
    std[flat.amin(1) == flat.amax(1)] = 1.0
    return mean.tolist(), std.tolist()

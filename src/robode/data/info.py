"""What a network may know about a data set, and the noun that every data set implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from robode.tasks.task import Task


@dataclass(frozen=True)
class DatasetInfo:
    """What a network may know of a data set before it sees a sample.

    shape: of one sample, (C, H, W) for images, (d,) for vectors.
    mean, std: of the training split in data units, one number per channel (images) or coordinate
        (vectors; zeros and ones mean "not normalised").
    bounds: of the data units, (0, 1) for images, None for vectors and for images with noise.
    task: what a target is and how an output is scored.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bounds: tuple[float, float] | None
    task: Task


class Samples(NamedTuple):
    """x: (n, *shape), float32 in data units or uint8 standing for x/255; target: as `Task.check` wants them, (n,) int64
    of a classification."""

    x: Tensor
    target: Tensor


class Source(ABC):
    """A data set. `load` reads everything into memory; the split into train and validation is mostly not its job."""

    train_is_test: bool = False
    """True where the published set has one split for both; then nothing can be held out for validation."""

    by_class: bool = False
    """True where the samples lie class by class; a part of them (`limit` of `evaluate`) is then spread over all."""

    own_validation: bool = False
    """True where the validation split is the source's own: it knows data.validation, which only 0 (none) switches off
    here, and gives the split by `load_validation`."""

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """Known without reading a file, unless the files are the user's own and nothing else says what they hold."""

    @abstractmethod
    def load(self) -> tuple[Samples, Samples]:
        """(train, test). Raises BadInput, in one line, where files are missing or damaged."""

    def load_validation(self) -> Samples:
        """The validation split of a source that has its own. Raises BadInput as `load` does."""
        raise NotImplementedError("own_validation is False")

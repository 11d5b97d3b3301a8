"""What a quantity is: numbers about a trained network that are no scores of samples; rows of numbers.csv."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from torch import nn

from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.files import write_whole
from robode.network import Network
from robode.runs import results
from robode.tasks.classification import Classification

Number: TypeAlias = dict[str, str | float]
"""A row of numbers.csv, complete or in the making, by column."""


class Quantity(ABC):
    """Something that is measured once for each network, beside the perturbations of a suite.

    name: as the user knows it; gives: the names of its rows in numbers.csv. An entry of a suite may be one.
    certain: those of them that every network has, where others are left out with a line; () = all.
    needs_classes: makes sense for classification only.
    """

    name: ClassVar[str]
    gives: ClassVar[tuple[str, ...]]
    certain: ClassVar[tuple[str, ...]] = ()
    needs_classes: ClassVar[bool] = False

    def refusal(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for these data, in words that follow the entry's key; None where it does."""
        if self.needs_classes and not isinstance(info.task, Classification):
            return f"needs classes, and this is a {info.task.name} task"
        return self.misfit(info)

    def misfit(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for samples of this kind."""
        return None

    def suits(self, network: nn.Module) -> bool:
        """Whether it can be measured of this network: of one of robode, where nothing else is said."""
        return isinstance(network, Network)

    def known(self, folder: Path, weights: str) -> bool:
        """Whether the run's folder has it already for the network with this digest."""
        numbers = results.read_numbers(folder / "numbers.csv")
        certain = set(self.certain) or self.in_numbers()
        return certain <= set(numbers[numbers["weights"] == weights]["quantity"])

    def in_numbers(self) -> set[str]:
        """The names of its rows as they stand in numbers.csv."""
        return set(self.gives)

    @abstractmethod
    def measure(self, network: Any, data: DataModule, folder: Path) -> list[Number]:
        """Rows with quantity, value, kind (one of results.NUMBER_KINDS), maybe low and high, of a network that suits.

        Raises:
            BadInput: a network, or files in the run's folder, that it cannot speak of.
            JobFailed: the folder cannot be read or written.
        """


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """A compressed .npz file, whole or not at all. Raises `JobFailed` if the disk refuses."""

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_whole(path, write)


def row(quantity: str, value: float, kind: str = "measured", **ends: float) -> Number:
    """A row of numbers.csv without what all rows of a run have in common."""
    return {"quantity": quantity, "value": value, "kind": kind, **ends}

"""Numbers about a trained network that are no accuracies: entries of a suite, rows of numbers.csv."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from robode.certificates.branch_and_bound import BUDGET, GAP, Radii, radii
from robode.config.levels import check_count
from robode.data.batches import in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.copies import device_of
from robode.heads import matrix_of
from robode.network import Network
from robode.report.style import write_whole
from robode.runs import records
from robode.tasks.classification import Classification


class Quantity(ABC):
    """Something that is measured once for each network, beside the perturbations of a suite.

    name: as the user knows it; gives: the names of its rows in numbers.csv. An entry of a suite may be one.
    needs_classes: makes sense for classification only.
    """

    name: ClassVar[str]
    gives: ClassVar[tuple[str, ...]]
    needs_classes: ClassVar[bool] = False

    def refusal(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for these data, in one line; None where it does."""
        if self.needs_classes and not isinstance(info.task, Classification):
            return f"suite={self.name}: needs classes, and this is a {info.task.name} task"
        return self.misfit(info)

    def misfit(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for samples of this kind."""
        return None

    def suits(self, network: nn.Module) -> bool:
        """Whether it can be measured of this network: of one of robode, where nothing else is said."""
        return isinstance(network, Network)

    def known(self, folder: Path, weights: str) -> bool:
        """Whether the run's folder has it already for the network with this digest."""
        numbers = records.read_numbers(folder / "numbers.csv")
        return self.in_numbers() <= set(numbers[numbers["weights"] == weights]["quantity"])

    def in_numbers(self) -> set[str]:
        """The names of its rows as they stand in numbers.csv."""
        return set(self.gives)

    @abstractmethod
    def measure(self, network: Any, data: DataModule, folder: Path) -> list[dict[str, Any]]:
        """Rows with quantity, value, kind (one of records.NUMBER_KINDS), maybe low and high, of a network that suits.

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


def row(quantity: str, value: float, kind: str = "measured", **ends: float) -> dict[str, Any]:
    """A row of numbers.csv without what all rows of a run have in common."""
    return {"quantity": quantity, "value": value, "kind": kind, **ends}


class EpsR(Quantity):
    """eps_r of the CH-NODE paper's Fig. 1: the largest r for which every ball of radius r around a training point keeps
    that point's class, in data units; 0 if a training point is classified wrongly.

    Two rows: certified_lower, a proof, and attack_upper, the distance to a point of another class. The radii of the
    single points go to eps_r.npz (points, labels, lower, upper, nearest). gap: relative, between the two rows;
    budget: boxes a point that the proof may take before it is left as it is.
    """

    name = "eps_r"
    gives = ("eps_r",)
    needs_classes = True

    def __init__(self, gap: float = GAP, budget: int = BUDGET):
        if not 0 < gap < 1:
            raise BadInput(f"suite.eps_r.gap: expected a number strictly between 0 and 1, got {gap}")
        check_count("suite.eps_r.budget", budget)
        self.gap, self.budget = gap, budget

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if info.shape == (2,) else f"suite=eps_r: is for points of the plane, not for shape {info.shape}"

    def suits(self, network: nn.Module) -> bool:
        """Networks whose two ends are affine: of such ends boxes have exact images."""
        if not isinstance(network, Network) or not network.encoder.affine or network.flow.controlled:
            return False
        return matrix_of(network.head) is not None

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[dict[str, Any]]:
        device = device_of(network)
        x, labels = (each.to(device) for each in data.split("train"))
        points = in_units(x)
        # beyond the whole set's extent nothing is asked any more
        reach = float((points.amax(0) - points.amin(0)).norm())
        found = radii(network, points, labels, reach=reach, gap=self.gap, budget=self.budget)
        write_arrays(folder / "eps_r.npz", _arrays(points, labels, found))
        return [
            row("eps_r", float(found.lower.min()), "certified_lower"),
            row("eps_r", float(found.upper.min()), "attack_upper"),
        ]


def _arrays(points: torch.Tensor, labels: torch.Tensor, found: Radii) -> Mapping[str, np.ndarray]:
    tensors = {"points": points.double(), "labels": labels, "lower": found.lower, "upper": found.upper}
    return {name: each.cpu().numpy() for name, each in {**tensors, "nearest": found.nearest}.items()}

"""Evaluation protocols: in which space a perturbation acts, and where it is clipped. Not about training."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from robode.corruptions.perturbation import Bounds, ClipOnly, Perturbation
from robode.data.info import DatasetInfo
from robode.errors import BadInput


class EvaluationProtocol(ABC):
    """Where perturbations live. `encode` and `decode` go from data units to that space and back."""

    name: str
    space: str
    extras: tuple[Perturbation, ...] = ()
    """Rows that every corrupted evaluation under this protocol adds."""

    @abstractmethod
    def bounds(self, info: DatasetInfo) -> Bounds | None:
        """Where inputs are clipped, in the protocol's space. BadInput for data it does not speak of."""

    def encode(self, x: Tensor, info: DatasetInfo) -> Tensor:
        """x (B, *shape) from data units to the protocol's space."""
        return x

    def decode(self, x: Tensor, info: DatasetInfo) -> Tensor:
        """x (B, *shape) from the protocol's space to data units."""
        return x


class Sound(EvaluationProtocol):
    """robode's own: data units, clipped to the bounds of the data (images [0, 1], vectors none)."""

    name = "sound"
    space = "data"

    def bounds(self, info: DatasetInfo) -> Bounds | None:
        return info.bounds


class ChNode2022(EvaluationProtocol):
    """The published evaluation (Zakwan, Xu, Ferrari-Trecate 2023, Table I, as the script runs it).

    The noise is added to the *normalised* image and the result clipped to [-1, 1], because scikit-image's
    `random_noise` clips there when it meets a negative value; salt is 1 and pepper -1. With MNIST's constants
    white (2.82) becomes 1, which is 0.439 in pixels, and pepper is -0.177: outside the bounds of the data.
    The clip alone is a strong corruption, hence the extra row `clip_only`.
    """

    name = "chnode_2022"
    space = "normalised"
    extras = (ClipOnly(suite="noise"),)

    def bounds(self, info: DatasetInfo) -> Bounds | None:
        if info.bounds is None:
            raise BadInput("protocol=chnode_2022: speaks of normalised images only; set protocol=sound")
        return (-1.0, 1.0)

    def encode(self, x: Tensor, info: DatasetInfo) -> Tensor:
        mean, std = _per_channel(x, info)
        return (x - mean).div_(std)

    def decode(self, x: Tensor, info: DatasetInfo) -> Tensor:
        mean, std = _per_channel(x, info)
        return torch.addcmul(mean, x, std)


def _per_channel(x: Tensor, info: DatasetInfo) -> tuple[Tensor, Tensor]:
    """mean and std as (C, 1, 1) beside x (B, C, H, W)."""
    mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in (info.mean, info.std))
    return mean, std

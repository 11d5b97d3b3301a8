"""Evaluation protocols: in which space a perturbation acts, and where it is clipped. Not about training."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from robode.corruptions.noise import ClipOnly
from robode.corruptions.perturbation import Batch, Bounds, Perturbation
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

    def batch(self, x: Tensor, targets: Tensor, noise: Tensor | None, info: DatasetInfo) -> Batch:
        """What a corruption is given of x (B, *shape) in data units with targets (B, ...) and base noise like x: in the
        protocol's space, with its clip."""
        decode = functools.partial(self.decode, info=info)
        return Batch(self.encode(x, info), targets, noise, self.bounds(info), decode=decode)


class DataSpace(EvaluationProtocol):
    """robode's own: data units, clipped to the bounds of the data (images [0, 1], vectors none)."""

    name = "data_space"
    space = "data"

    def bounds(self, info: DatasetInfo) -> Bounds | None:
        return info.bounds


class Normalised(EvaluationProtocol):
    """A published evaluation whose perturbations see (x - mean)/std, channel by channel."""

    space = "normalised"
    extras = (ClipOnly(),)

    @abstractmethod
    def constants(self, info: DatasetInfo) -> tuple[Sequence[float], Sequence[float]]:
        """mean and std in data units, one number a channel. BadInput for data it does not speak of."""

    def encode(self, x: Tensor, info: DatasetInfo) -> Tensor:
        mean, std = self._per_channel(x, info)
        return (x - mean).div_(std)

    def decode(self, x: Tensor, info: DatasetInfo) -> Tensor:
        mean, std = self._per_channel(x, info)
        return torch.addcmul(mean, x, std)

    def _images_alone(self, info: DatasetInfo) -> None:
        if info.bounds is None:
            raise BadInput(f"protocol={self.name}: speaks of normalised images only; set protocol=data_space")

    def _per_channel(self, x: Tensor, info: DatasetInfo) -> tuple[Tensor, Tensor]:
        """mean and std as (C, 1, 1) beside x (B, C, H, W)."""
        both = self.constants(info)
        mean, std = (torch.tensor(each, dtype=x.dtype, device=x.device).view(-1, 1, 1) for each in both)
        return mean, std


class ChNode2022(Normalised):
    """The published evaluation (Zakwan, Xu, Ferrari-Trecate 2023, Table I, as the script runs it).

    The noise is added to the *normalised* image and the result clipped to [-1, 1], because scikit-image's
    `random_noise` clips there when it meets a negative value; salt is 1 and pepper -1. With MNIST's constants
    white (2.82) becomes 1, which is 0.439 in pixels, and pepper is -0.177: outside the bounds of the data.
    The clip alone is a strong corruption, hence the extra row `clip_only`.
    """

    name = "chnode_2022"

    def bounds(self, info: DatasetInfo) -> Bounds | None:
        self._images_alone(info)
        return (-1.0, 1.0)

    def constants(self, info: DatasetInfo) -> tuple[Sequence[float], Sequence[float]]:
        """Those of the data."""
        return info.mean, info.std


class LyaNet2022(Normalised):
    """The published evaluation (Jimenez Rodriguez, Ames, Yue 2022, Table 1, as the released script runs it).

    The data set hands over normalised images, and the package that attacks them believes that they lie in [0, 1] and
    clips every iterate there: x' = mean + std * clip((x - mean)/std, 0, 1) before anything was attacked, so that what
    is darker than the mean becomes the mean, and what is brighter than mean + std becomes that. The extra row
    `clip_only` is this map alone. A radius eps of the script is eps * std in data units.

    mean, std: one number a channel, in data units; None for the paper's, which are 0.5 and 0.5 for one channel, and
    for three those of `COLOUR`. They are the script's, whatever a network subtracts: it gets x' in data units, and
    normalises that as it was trained to. A network of that paper is trained with data.mean and data.std set to them.
    """

    name = "lyanet_2022"
    GREY: ClassVar = ((0.5,), (0.5,))
    COLOUR: ClassVar = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        self.mean, self.std = (None if each is None else tuple(each) for each in (mean, std))

    def bounds(self, info: DatasetInfo) -> Bounds | None:
        self._images_alone(info)
        channels = info.shape[0]
        for key, values in zip(("mean", "std"), self.constants(info), strict=True):
            if len(values) != channels:
                raise BadInput(f"protocol.{key}: expected {channels} numbers, one a channel, got {len(values)}")
            if not all(math.isfinite(each) and (key == "mean" or each > 0) for each in values):
                above = " above 0" if key == "std" else ""
                raise BadInput(f"protocol.{key}={list(values)}: expected finite numbers{above}")
        return (0.0, 1.0)

    def constants(self, info: DatasetInfo) -> tuple[Sequence[float], Sequence[float]]:
        mean, std = self.GREY if info.shape[0] == 1 else self.COLOUR
        return self.mean or mean, self.std or std

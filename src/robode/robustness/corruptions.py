"""Perturbations that do not look at the network: the clean data, the clip alone, and two kinds of noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.robustness.levels import UPPER, noise_levels
from robode.robustness.noise import Draws, Kind

Bounds = tuple[float, float]

FAR = 1e12
"""Times the smallest difference of two float32 in [-1/2, 1/2), still far outside any bounds."""


@dataclass(frozen=True)
class Batch:
    """What a perturbation sees. x: (B, *shape) in the protocol's space; labels: (B,); noise: the base noise
    of these images, like x; bounds: where x' is clipped, None for nowhere; draws: further random numbers of
    these images, the same for every level."""

    x: Tensor
    labels: Tensor
    noise: Tensor | None
    bounds: Bounds | None
    draws: Draws | None = None


class Perturbation(ABC):
    """One way to disturb inputs, at one or more severities; the rows of a results file carry its attributes.

    noise: the kind of base noise it needs; None means that it is deterministic and evaluated once.
    corrupts: False only for the untouched data, which no protocol may alter either.
    in_data_units: acts on x in data units, within the bounds of the data, whatever the protocol.
    least_classes: of the data; with fewer it makes no sense.
    attacks: looks for the worst x'; it is scored a second time with a finer solver.
    """

    name: str
    severity_unit: str
    norm: str = "none"
    noise: Kind | None = None
    corrupts: bool = True
    in_data_units: bool = False
    attacks: bool = False
    least_classes: int = 2

    def __init__(self, suite: str, severities: tuple[float, ...] = (0.0,)) -> None:
        self.suite = suite
        self.severities = severities

    @property
    def stochastic(self) -> bool:
        """Whether repeats differ."""
        return self.noise is not None

    def refusal(self, bounds: Bounds | None) -> str | None:
        """Why it makes no sense for data with these bounds, or None."""
        return None

    @abstractmethod
    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        """x' like batch.x, which stays as it is."""

    def right(self, network: nn.Module, x: Tensor, labels: Tensor, severity: float) -> Tensor:
        """Which samples count as right, (B,) bool. x: what `perturb` made, (B, *shape) in data units; labels: (B,)."""
        logits = network(x)
        return (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)


def clip(x: Tensor, bounds: Bounds | None) -> Tensor:
    """x (any shape) clipped to bounds, in place; as it is without bounds. Not for a differentiated path."""
    return x if bounds is None else x.clamp_(*bounds)


class Clean(Perturbation):
    """The data as they are."""

    name = "clean"
    severity_unit = "none"
    corrupts = False

    def __init__(self, suite: str = "clean") -> None:
        super().__init__(suite)

    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        return batch.x


class ClipOnly(Perturbation):
    """The clip of the protocol without any noise: under chnode_2022 a strong corruption by itself."""

    name = "clip_only"
    severity_unit = "none"

    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        return clip(batch.x.clone(), batch.bounds)


class Gaussian(Perturbation):
    """x + sqrt(var) z, z ~ N(0, 1) per entry, then the clip. var: one or more variances, in units of x²."""

    name = "gaussian"
    severity_unit = "variance"
    noise = "normal"

    def __init__(self, var: float | Sequence[float], suite: str = "noise") -> None:
        super().__init__(suite, noise_levels("suite.gaussian.var", var, UPPER["var"]))

    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        assert batch.noise is not None
        return clip(torch.add(batch.x, batch.noise, alpha=severity**0.5), batch.bounds)


class SaltAndPepper(Perturbation):
    """Each entry becomes, with probability amount/2 each, the upper bound (salt) or the lower one (pepper).

    amount: one or more shares in [0, 1]. What is hit at a small amount is also hit at a larger one.
    """

    name = "salt_and_pepper"
    severity_unit = "amount"
    noise = "uniform"

    def __init__(self, amount: float | Sequence[float], suite: str = "noise") -> None:
        super().__init__(suite, noise_levels("suite.salt_and_pepper.amount", amount, UPPER["amount"]))

    def refusal(self, bounds: Bounds | None) -> str | None:
        return "salt and pepper are the bounds of the data, and these data have none" if bounds is None else None

    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        assert batch.noise is not None and batch.bounds is not None
        # Entries in the tails of U[-1/2, 1/2) are thrown far beyond the bounds, and the clip brings them
        # back onto them. Ten times faster than two masks, because torch compares slowly on a CPU.
        hit = nn.functional.hardshrink(batch.noise, 0.5 - severity / 2)
        return clip(torch.add(batch.x, hit, alpha=FAR), batch.bounds)

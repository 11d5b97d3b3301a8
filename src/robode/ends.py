"""The two ends of a network: the lift that makes the flow's first state, and the readout that makes logits.

Free ends are those of Table I. With `ends: lipschitz` neither end stretches: images are only centred, the lift has norm
at most 1, and the rows of the readout are orthonormal, so that the difference of any two logits has the constant sqrt 2
in the features. `project_` restores this after every optimiser step. Source: specs, Lipschitz networks 3.1 and 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robode.data.facts import DataFacts
from robode.errors import BadInput, JobFailed
from robode.ode.flow import Flow
from robode.ode.linear import conv_norm
from robode.ode.norms import largest_eigenvalue
from robode.ode.orthonormal import orthonormal, random_orthonormal


class Normalise(nn.Module):
    """(x - mean)/std per channel: the network's first layer, so that perturbations and radii live in data units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], dimensions: int):
        super().__init__()
        shape = (-1, *[1] * (dimensions - 1))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ConvLift(nn.Conv2d):
    """3x3 convolution, stride 1, padding 1: (B, C, H, W) -> (B, width, H, W), as in Table I."""

    def __init__(self, channels: int, width: int):
        super().__init__(channels, width, kernel_size=3, padding=1)

    def lipschitz(self, std: Tensor, shape: Sequence[int]) -> float:
        """Certified 2-norm of x -> lift(x / std) on samples of that shape; std goes into the kernel."""
        return conv_norm(self.weight.double() / std.double().reshape(1, -1, 1, 1), *shape[1:])


class Augment(nn.Module):
    """Zero-padding of vectors, an isometry: (B, d) -> (B, width), data spread evenly from the first to the last entry.

    d = 2, width = 4 puts the data into entries 0 and 3, as H-DNN and the double-circles script do.
    """

    positions: Tensor

    def __init__(self, dimension: int, width: int):
        super().__init__()
        if width < dimension:
            raise BadInput(f"model.width: expected at least the data's dimension {dimension}, got {width}")
        self.width = width
        positions = torch.linspace(0, width - 1, dimension).round().long()
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], self.width)
        return y.index_copy(1, self.positions, x)

    def lipschitz(self, std: Tensor, shape: Sequence[int]) -> float:
        """||x -> lift(x / std)|| = 1/min std, exact."""
        return 1 / float(std.double().min())


class BoundedConvLift(ConvLift):
    """A `ConvLift` of certified norm <= 1 on images (H, W).

    It starts as near to an isometry as its width allows: with width >= 9 C each of the 9 C shifted input channels gets
    a direction of its own, and every frequency keeps its length.
    """

    def __init__(self, channels: int, width: int, pixels: Sequence[int]):
        super().__init__(channels, width)
        self.pixels = tuple(pixels)
        with torch.no_grad():
            self.weight.copy_(random_orthonormal(width, 9 * channels).view_as(self.weight) / 3)
        self.project_()

    @torch.no_grad()
    def project_(self) -> dict[str, float]:
        """Divides the kernel by its norm where that exceeds 1. Idempotent."""
        if not bool(self.weight.isfinite().all()):
            raise JobFailed("the lift's weights are not finite: training diverged; try a smaller lr")
        norm = conv_norm(self.weight, *self.pixels)
        if norm > 1:
            self.weight.div_(norm * (1 + 4 * torch.finfo(self.weight.dtype).eps))
        return {}


class FlatPad(nn.Module):
    """An image as a vector, then zeros up to the width, an isometry: (B, C, H, W) -> (B, width)."""

    def __init__(self, dimension: int, width: int):
        super().__init__()
        self.zeros = width - dimension

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x.flatten(1), (0, self.zeros))

    def lipschitz(self, std: Tensor, shape: Sequence[int]) -> float:
        """||x -> lift(x / std)|| = 1/min std, exact."""
        return 1 / float(std.double().min())


class Orthonormal(nn.Linear):
    """x -> W x + b with orthonormal rows, or columns where there are more outputs than inputs: ||W|| <= 1.

    Any two rows are sqrt 2 apart (or less, with orthonormal columns): as a readout, all pairs of classes are alike.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        with torch.no_grad():
            self.weight.copy_(orthonormal(self.weight))

    @torch.no_grad()
    def project_(self) -> dict[str, float]:
        """Makes the rows orthonormal again. Idempotent."""
        self.weight.copy_(orthonormal(self.weight))
        return {}


class FlatLinear(Orthonormal):
    """An image as a vector, then a learned projection onto fewer numbers: (B, C, H, W) -> (B, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))

    def lipschitz(self, std: Tensor, shape: Sequence[int]) -> float:
        """Certified 2-norm of x -> lift(x / std) on samples of that shape."""
        stretch = (1 / std.double()).expand(*shape).reshape(-1)
        return math.sqrt(float(largest_eigenvalue(self.weight.detach().double() * stretch)))


def make_normalise(facts: DataFacts, bounded: bool) -> Normalise:
    """bounded: centring only, because a division by std multiplies every Lipschitz constant."""
    std = (1.0,) * len(facts.std) if bounded else facts.std
    return Normalise(facts.mean, std, len(facts.shape))


def make_lift(facts: DataFacts, flow: Flow, bounded: bool) -> nn.Module:
    """From samples to the flow's first state. Flows on whole images (`flattens`) get them as vectors."""
    if len(facts.shape) == 1:
        return Augment(facts.shape[0], flow.width)
    if flow.flattens:
        size = math.prod(facts.shape)
        return FlatPad(size, flow.width) if flow.width >= size else FlatLinear(size, flow.width)
    if bounded:
        return BoundedConvLift(facts.shape[0], flow.width, facts.shape[1:])
    return ConvLift(facts.shape[0], flow.width)


def make_readout(features: int, classes: int, bounded: bool) -> nn.Linear:
    """From the flow's last state, flattened, to logits."""
    return Orthonormal(features, classes) if bounded else nn.Linear(features, classes)

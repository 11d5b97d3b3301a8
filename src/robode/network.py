"""logits = readout( Phi( lift( normalise(x) ) ) ), with x in data units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robode.data.facts import DataFacts
from robode.errors import BadInput
from robode.instantiate import build, to_plain
from robode.ode.flow import Flow
from robode.ode.linear import conv_norm


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


class Network(nn.Module):
    """x (B, *shape) in data units -> logits (B, classes).

    bounds: the data's range in data units ((0, 1) for images, None for vectors); the network itself clips nothing.
    """

    def __init__(self, facts: DataFacts, flow: Flow):
        super().__init__()
        self.facts, self.bounds = facts, facts.bounds
        self.normalise = Normalise(facts.mean, facts.std, len(facts.shape))
        self.lift: nn.Module
        if len(facts.shape) == 3:
            self.lift, features = ConvLift(facts.shape[0], flow.width), flow.width * facts.shape[1] * facts.shape[2]
        else:
            self.lift, features = Augment(facts.shape[0], flow.width), flow.width
        self.flow = flow
        self.readout = nn.Linear(features, facts.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.flow(self.embed(x)).flatten(1))

    def embed(self, x: Tensor) -> Tensor:
        """The flow's initial state: (B, *shape) -> (B, width) or (B, width, H, W)."""
        return self.lift(self.normalise(x))

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def build_network(cfg: Any, facts: DataFacts) -> Network:
    """The network of a composed configuration (keys model, integrator, depth, step, horizon).

    Raises `BadInput` for values that make no sense. Initial weights come from torch's global generator.
    """
    integrator = build(arguments(cfg.integrator))
    flow: Flow = build(arguments(cfg.model), depth=cfg.depth, integrator=integrator, step=cfg.step, horizon=cfg.horizon)
    return Network(facts, flow)


def arguments(node: Any) -> dict[str, Any]:
    """A model or integrator node without the keys that describe it to the command line."""
    return {key: value for key, value in to_plain(node).items() if key not in ("name", "integrators")}

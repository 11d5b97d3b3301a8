"""output = head( Phi( encode( normalise(x) ) ) ), with x in data units."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from robode.config.config import Choice
from robode.data.info import DataFacts
from robode.encoders import Encoder, States, usual_encoder
from robode.errors import BadInput
from robode.heads import Linear
from robode.ode.flow import Flow


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


class Network(nn.Module):
    """x (B, *shape) in data units -> outputs (B, outputs).

    facts: of the data. flow; encoder and head: None for the usual ones (`usual_encoder`, `Linear`).
    bounds: the data's range in data units ((0, 1) for images, None for vectors); the network itself clips nothing.

    Raises:
        BadInput: an encoder whose output the flow cannot take.
    """

    def __init__(self, facts: DataFacts, flow: Flow, encoder: Encoder | None = None, head: nn.Module | None = None):
        super().__init__()
        self.facts, self.bounds = facts, facts.bounds
        encoder = encoder or usual_encoder(facts.shape, states_of(flow))
        std = facts.std if encoder.scales else (1.0,) * len(facts.std)
        self.normalise = Normalise(facts.mean, std, len(facts.shape))
        self.encoder, self.flow = encoder, flow
        self.head = head or Linear(features(facts, encoder, flow), facts.task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *shape) float, in data units. Raises `BadInput` for whole numbers: images as bytes are not scaled."""
        if not x.is_floating_point():
            raise BadInput(f"x: expected data units as floating-point numbers (images: x / 255), got {x.dtype}")
        y, context = self.encoder.encode(self.normalise(x))
        return self.head(self.flow(y, context).flatten(1))

    def embed(self, x: Tensor) -> Tensor:
        """The flow's initial state: (B, *shape) -> (B, width) or (B, width, H, W)."""
        return self.encode(x)[0]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The flow's initial state, and the context that its fields are bound to."""
        return self.encoder.encode(self.normalise(x))


def states_of(flow: Flow) -> States:
    """What states a flow starts from."""
    return States(flow.width, flow.flattens)


@torch.no_grad()
def features(facts: DataFacts, encoder: Encoder, flow: Flow) -> int:
    """How many numbers the flow hands to the head; it learns the shape of its first state here. Raises `BadInput` for
    an encoder that makes other states than the flow takes."""
    start = tuple(encoder.encode(torch.zeros(1, *facts.shape))[0].shape[1:])
    if start[0] != flow.width or (flow.flattens and len(start) != 1):
        raise BadInput(
            f"encoder: {type(encoder).__name__} gives states of shape {start}, expected {flow.width} numbers"
            f"{'' if flow.flattens else ' (for each pixel)'}; choose another encoder or model.width"
        )
    return math.prod(flow.build(start))


class Parts(Protocol):
    """What a network is put together from; a `TrainConfig` has it."""

    @property
    def model(self) -> Choice: ...
    @property
    def integrator(self) -> Choice: ...
    @property
    def encoder(self) -> Choice: ...
    @property
    def head(self) -> Choice: ...
    @property
    def depth(self) -> int: ...
    @property
    def step(self) -> float | str: ...
    @property
    def horizon(self) -> float | None: ...


def build_network(config: Parts, facts: DataFacts) -> Network:
    """The network of a configuration.

    model.width=auto is the number of entries of one sample. Initial weights come from torch's global generator: first
    those of the flow, then of the encoder, then of the head.

    Raises:
        BadInput: values that make no sense.
    """
    integrator = config.integrator.build()
    width = {"width": math.prod(facts.shape)} if config.model.arguments.get("width") == "auto" else {}
    more = {"depth": config.depth, "step": config.step, "horizon": config.horizon, **width}
    flow: Flow = config.model.build(integrator=integrator, **more)
    encoder = _encoder(config.encoder, facts, flow)
    if not config.head.target:
        return Network(facts, flow, encoder)
    made = config.head.build(features=features(facts, encoder, flow), outputs=facts.task.outputs)
    return Network(facts, flow, encoder, made)


def _encoder(choice: Choice, facts: DataFacts, flow: Flow) -> Encoder:
    """The encoder that was chosen; one without a class is the usual one, bounded or not."""
    states = states_of(flow)
    if not choice.target:
        return usual_encoder(facts.shape, states, bool(choice.arguments.get("bounded")))
    made = choice.build(shape=facts.shape, states=states)
    assert isinstance(made, Encoder)
    return made

"""output = head( Phi( encode( normalise(x) ) ) ), with x in data units."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from robode.config.allowed import DESCRIPTION
from robode.config.instantiate import build, to_plain
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


def build_network(cfg: Any, facts: DataFacts) -> Network:
    """The network of a composed configuration (keys model, integrator, depth, step, horizon; encoder and head, where
    they are not the usual ones).

    model.width=auto is the number of entries of one sample. Initial weights come from torch's global generator: first
    those of the flow, then of the encoder, then of the head.

    Raises:
        BadInput: values that make no sense.
    """
    integrator = build(arguments(cfg.integrator))
    model = arguments(cfg.model)
    if model.get("width") == "auto":
        model["width"] = math.prod(facts.shape)
    flow: Flow = build(model, depth=cfg.depth, integrator=integrator, step=cfg.step, horizon=cfg.horizon)
    encoder = _encoder(arguments(getattr(cfg, "encoder", None) or {}), facts, flow)
    head = arguments(getattr(cfg, "head", None) or {})
    if not head.get("_target_"):
        return Network(facts, flow, encoder)
    made = build(head, features=features(facts, encoder, flow), outputs=facts.task.outputs)
    return Network(facts, flow, encoder, made)


def _encoder(node: dict[str, Any], facts: DataFacts, flow: Flow) -> Encoder:
    """The encoder of a node; one without a class is the usual one, bounded or not."""
    states = states_of(flow)
    if not node.get("_target_"):
        return usual_encoder(facts.shape, states, bool(node.get("bounded")))
    made = build(node, shape=facts.shape, states=states)
    assert isinstance(made, Encoder)
    return made


def arguments(node: Any) -> dict[str, Any]:
    """A model, integrator, encoder or head node without the keys that describe it to the command line."""
    return {key: value for key, value in to_plain(node).items() if key == "_target_" or key not in DESCRIPTION}


def weights_digest(network: nn.Module) -> str:
    """12 hexadecimal digits of the SHA-256 of its state dict (names, types, values): the same on every device."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)

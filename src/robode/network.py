"""logits = readout( Phi( lift( normalise(x) ) ) ), with x in data units."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from robode.data.facts import DataFacts
from robode.ends import Augment, ConvLift, Normalise, make_lift, make_normalise, make_readout
from robode.errors import BadInput
from robode.instantiate import build, to_plain
from robode.ode.flow import Flow

__all__ = ["Augment", "ConvLift", "Network", "Normalise", "arguments", "build_network"]

LIPSCHITZ = "lipschitz"


class Network(nn.Module):
    """x (B, *shape) in data units -> logits (B, classes).

    ends: None, or "lipschitz" for a lift and a readout that never stretch (ends.py).
    bounds: the data's range in data units ((0, 1) for images, None for vectors); the network itself clips nothing.
    """

    def __init__(self, facts: DataFacts, flow: Flow, ends: str | None = None):
        super().__init__()
        if ends not in (None, LIPSCHITZ):
            raise BadInput(f"model.ends: expected {LIPSCHITZ} or null, got '{ends}'")
        self.facts, self.bounds = facts, facts.bounds
        bounded = ends == LIPSCHITZ
        self.normalise = make_normalise(facts, bounded)
        self.lift = make_lift(facts, flow, bounded)
        self.flow = flow
        self.readout = make_readout(self._features(), facts.task.outputs, bounded)

    @torch.no_grad()
    def _features(self) -> int:
        """How many numbers the flow hands to the readout; it learns the shape of its first state here."""
        start = self.embed(torch.zeros(1, *self.facts.shape)).shape[1:]
        return math.prod(self.flow.bind_shape_(tuple(start)))

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.flow(self.embed(x)).flatten(1))

    def embed(self, x: Tensor) -> Tensor:
        """The flow's initial state: (B, *shape) -> (B, width) or (B, width, H, W)."""
        return self.lift(self.normalise(x))


def build_network(cfg: Any, facts: DataFacts) -> Network:
    """The network of a composed configuration (keys model, integrator, depth, step, horizon).

    model.width=auto is the number of entries of one sample. Raises `BadInput` for values that make no sense. Initial
    weights come from torch's global generator.
    """
    integrator = build(arguments(cfg.integrator))
    model = arguments(cfg.model)
    ends = model.pop("ends", None)
    if model.get("width") == "auto":
        model["width"] = math.prod(facts.shape)
    flow: Flow = build(model, depth=cfg.depth, integrator=integrator, step=cfg.step, horizon=cfg.horizon)
    return Network(facts, flow, ends)


def arguments(node: Any) -> dict[str, Any]:
    """A model or integrator node without the keys that describe it to the command line."""
    return {key: value for key, value in to_plain(node).items() if key not in ("name", "integrators")}

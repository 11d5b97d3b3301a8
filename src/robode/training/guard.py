"""What to say when the loss is not a number: where it began and what usually helps."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.errors import JobFailed
from robode.network import Network


def blown_up(network: Network, x: Tensor, loss: float, *, step: int, epoch: int, lr: float) -> JobFailed:
    """The one-line failure for a non-finite loss on the batch x (B, *shape), before optimiser step `step`."""
    flow = network.flow
    return JobFailed(
        f"loss is {loss} at step {step} (epoch {epoch}): {_origin(network, x)}; "
        f"try a smaller lr (now {lr:g}), a smaller step or horizon (now h={float(flow.h):.3g}), "
        f"or integrator=etd (now {flow.integrator.name})"
    )


@torch.no_grad()
def _origin(network: Network, x: Tensor) -> str:
    """The first place where something is not finite."""
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            return f"the last update made {name} non-finite"
    if not x.isfinite().all():
        return "the data are not finite"
    y, context = network.encode(x)
    if not y.isfinite().all():
        return "the encoder's output is not finite"
    if reason := network.flow.defect():
        return reason
    for layer, state in enumerate(network.flow.states(y, context)[1:], 1):
        if not state.isfinite().all():
            return f"the state after layer {layer} of {network.flow.depth} is the first that is not finite"
    return "all states are finite, so the head or a loss term overflowed"

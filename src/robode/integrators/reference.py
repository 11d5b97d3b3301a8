"""The reference solver: the same flow, solved more finely. Does what was found about a network hold for its ODE, or for
its solver only?"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from robode.ode.flow import Flow

Net = TypeVar("Net", bound=nn.Module)


def with_reference_solver(network: Net) -> Net | None:
    """A copy of a network whose flow is solved by `Integrator.refined`, with the weights of the moment; None for one
    without a `Flow`, or whose layers are not the steps of an ODE."""
    flow = getattr(network, "flow", None)
    if not isinstance(flow, Flow) or not flow.solves_an_ode:
        return None
    found = copy.deepcopy(network)
    found.flow.integrator = flow.method.refined()  # type: ignore[union-attr]
    return found

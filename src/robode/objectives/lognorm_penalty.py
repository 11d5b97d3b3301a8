"""A log-norm above its bound costs, instead of being projected away."""

import math

from torch import Tensor

from robode.errors import BadInput
from robode.families.conv_stable_node import ConvStableNode
from robode.families.stable_node import StableNode
from robode.network import Network
from robode.objectives.objective import Objective


class LognormPenalty(Objective):
    """weight sum_j max(0, delta_j - delta)^2 with the bounds delta_j of the layers' log-norms and delta = model.delta.

    Differentiated at the theta that bounded delta_j at the last `project_` of the flow (docs/theory.md, section 20);
    nothing is guaranteed: what was reached is in the log (flow_ode, flow_discrete).

    Raises:
        BadInput: weight not above 0; at the first call, another model than stable_node or
            conv_stable_node, or one that is not trained with model.stabilise=penalty.
    """

    def __init__(self, weight: float):
        if not 0 < weight < math.inf:
            raise BadInput(f"objective.lognorm_penalty.weight: expected a number > 0, got {weight}")
        self.weight = weight

    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """x and target play no part."""
        flow = network.flow
        if not isinstance(flow, StableNode | ConvStableNode) or flow.stabilise != "penalty":
            stable = isinstance(flow, StableNode | ConvStableNode)
            raise BadInput(
                "objective.lognorm_penalty: expected model=stable_node (or conv_stable_node) model.stabilise=penalty, "
                f"got {f'stabilise={flow.stabilise}' if stable else f'a {type(flow).__name__}'}"
            )
        excess = (flow.lognorm_bound() - flow.delta).clamp_min(0)
        return {"lognorm_penalty": (self.weight * excess.square().sum()).to(flow.K.dtype)}

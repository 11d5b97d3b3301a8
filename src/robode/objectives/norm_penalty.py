"""Modify the loss instead of the architecture: outputs as long as their samples."""

from __future__ import annotations

import math

from torch import Tensor

from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.network import Network
from robode.objectives.objective import Objective


class NormPenalty(Objective):
    """weight (||x|| - ||network(x)||)^2/d, averaged over the batch; d numbers an output. (Murari's lecture)

    Divided by d as `mean_squared_error` is: with weight 1 the sum of both is 1/d times the lecture's loss. It asks for
    the norm at the samples of the training set and says nothing of others.

    Raises:
        BadInput: a weight that is no number > 0.
    """

    def __init__(self, weight: float):
        if not 0 < weight < math.inf:
            raise BadInput(f"objective.norm_penalty.weight: expected a number > 0, got {weight}")
        self.weight = weight

    def refusal(self, info: DatasetInfo) -> str | None:
        d = info.task.outputs
        return None if info.shape == (d,) else f"expected targets like the samples, {info.shape}, got {d} numbers"

    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """x: (B, d) in data units; target plays no part."""
        off = x.norm(dim=1) - network(x).norm(dim=1)
        return {"norm_penalty": self.weight * off.square().mean() / x.shape[1]}

"""The loss where targets are numbers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from robode.network import Network
from robode.objectives.objective import Objective


class MeanSquaredError(Objective):
    """(network(x) - target)^2, averaged over the batch and the numbers of a target."""

    replayable = True

    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; target: (B, outputs) float32."""
        return {"mean_squared_error": functional.mse_loss(network(x), target)}

"""Neighbouring layers should be alike, because they sample one K(t), b(t)."""

from torch import Tensor

from robode.errors import BadInput
from robode.network import Network
from robode.objectives.objective import Objective


class WeightSmoothness(Objective):
    """alpha h/2 sum_j ||K_(j+1) - K_j||^2 + ||b_(j+1) - b_j||^2 over the flow's layers (Frobenius norms).

    The regulariser of H-DNN and CH-NODE. count: "once", or "script" for what the published scripts compute, a
    loop around a function that already loops, so that the sum enters N - 1 times. Zero for a single layer and
    for shared weights.

    Raises:
        BadInput: alpha is negative or count is neither of the two.
    """

    replayable = True

    def __init__(self, alpha: float, count: str = "once"):
        if not alpha >= 0:
            raise BadInput(f"objective.weight_smoothness.alpha: expected a number >= 0, got {alpha}")
        if count not in ("once", "script"):
            raise BadInput(f"objective.weight_smoothness.count: expected once or script, got '{count}'")
        self.alpha, self.count = alpha, count

    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """x and target play no part."""
        parameters = network.flow.layer_parameters()
        if parameters is None:
            return {}
        K, b = parameters
        differences = (K[1:] - K[:-1]).square().sum() + (b[1:] - b[:-1]).square().sum()
        times = max(network.flow.depth - 1, 1) if self.count == "script" else 1
        factor = (times * self.alpha * network.flow.h / 2).to(differences.dtype)  # a float64 loss would not add up
        return {"weight_smoothness": factor * differences}

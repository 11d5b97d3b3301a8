"""The loss of a network that may be stopped at any time: the baseline of inference that ends early."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robode.data.batches import evaluating
from robode.errors import BadInput
from robode.foreign import refused
from robode.network import Network
from robode.objectives.objective import Objective


class RandomTimeCrossEntropy(Objective):
    """Cross-entropy of the head at one state along the flow (`Network.read_outs`), the same for the batch: any but the
    first, drawn anew at every step from torch's global generator. Its mean is that over all of these states.

    A control for LyaNet's Fig. 3 (Jimenez Rodriguez, Ames, Yue 2022), where only the losses of LyaNet speak of the
    states in between: ours, not the paper's.

    Raises:
        BadInput: a network whose states cannot be read out, or that has but one (`check`).
    """

    def check(self, network: Network) -> None:
        what = f"objective=random_time_cross_entropy: the states of {type(network.flow).__name__} cannot be read out"
        with torch.no_grad(), evaluating(network), refused(what):
            found = network.read_outs(torch.zeros(2, *network.info.shape))
        if len(found) < 2:
            asked = "objective=random_time_cross_entropy"
            raise BadInput(f"{asked}: expected at least two states along the flow; choose a larger depth")

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        outputs = network.read_outs(x)
        chosen = int(torch.randint(1, len(outputs), ()))  # of the CPU's generator: nothing is read from a device
        return {"random_time_cross_entropy": functional.cross_entropy(outputs[chosen], labels)}

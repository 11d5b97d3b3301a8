"""The loss of a classifier, on the data as they are and on noisy data (training with Gaussian augmentation)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from robode.config.levels import one_level
from robode.corruptions.noise import Gaussian
from robode.corruptions.protocols import EvaluationProtocol
from robode.network import Network
from robode.objectives.objective import Objective


class CrossEntropy(Objective):
    """-log softmax(network(x))[label], averaged over the batch."""

    replayable = True

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        return {"cross_entropy": functional.cross_entropy(network(x), labels)}


class NoisyCrossEntropy(Objective):
    """Cross-entropy on x + sqrt(var) z, z ~ N(0, 1) drawn anew at every step, made as `protocol` makes noisy test data:
    in its space, with its clip.

    var: the variance, in the units of the protocol's space. The draws come from torch's global generator, which is in
    every checkpoint.

    Raises:
        BadInput: var is no number >= 0, or (at the first step) the protocol does not speak of the data.
    """

    def __init__(self, protocol: EvaluationProtocol, var: float = 0.05):
        self.protocol, self.noise = protocol, Gaussian(one_level("objective.noisy_cross_entropy.var", var))

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        info = network.info
        with torch.no_grad():
            batch = self.protocol.batch(x, labels, torch.randn_like(x), info)
            noisy = batch.decode(self.noise.perturb(batch, self.noise.severities[0]))
        return {"noisy_cross_entropy": functional.cross_entropy(network(noisy), labels)}

"""The loss of a classifier on noisy data: training with Gaussian augmentation."""

import torch
from torch import Tensor
from torch.nn import functional

from robode.config.levels import noise_levels
from robode.corruptions.perturbation import Batch, Gaussian
from robode.corruptions.protocols import EvaluationProtocol
from robode.errors import BadInput
from robode.network import Network
from robode.objectives.objective import OfClasses


class NoisyCrossEntropy(OfClasses):
    """Cross-entropy on x + sqrt(var) z, z ~ N(0, 1) drawn anew at every step, made as `protocol` makes noisy test data:
    in its space, with its clip.

    var: the variance, in the units of the protocol's space. The draws come from torch's global generator, which is in
    every checkpoint.

    Raises:
        BadInput: var is no number >= 0, or (at the first step) the protocol does not speak of the data.
    """

    def __init__(self, protocol: EvaluationProtocol, var: float = 0.05):
        levels = noise_levels("objective.noisy_cross_entropy.var", var, float("inf"))
        if len(levels) > 1:
            raise BadInput(f"objective.noisy_cross_entropy.var: expected one number, got {var}")
        self.protocol, self.noise = protocol, Gaussian(levels)

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        info = network.info
        with torch.no_grad():
            inside = self.protocol.encode(x, info)
            batch = Batch(inside, labels, torch.randn_like(inside), self.protocol.bounds(info))
            noisy = self.protocol.decode(self.noise.perturb(batch, self.noise.severities[0]), info)
        return {"noisy_cross_entropy": functional.cross_entropy(network(noisy), labels)}

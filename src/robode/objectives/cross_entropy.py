"""The loss of a classifier."""

from torch import Tensor, nn
from torch.nn import functional

from robode.objectives.objective import OfClasses


class CrossEntropy(OfClasses):
    """-log softmax(network(x))[label], averaged over the batch."""

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        return {"cross_entropy": functional.cross_entropy(network(x), labels)}

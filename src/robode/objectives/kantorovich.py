"""What a 1-Lipschitz network maximises in the Kantorovich-Rubinstein dual of the Wasserstein distance."""

from torch import Tensor

from robode.data.info import DatasetInfo
from robode.network import Network
from robode.objectives.objective import OfClasses


class Kantorovich(OfClasses):
    """-(mean of f over class 1 - mean of f over class 0), f = (logit_1 - logit_0)/sqrt(2).

    W1 is the largest such difference over all 1-Lipschitz f (Kantorovich and Rubinstein 1958; lecture, "1-Lipschitz
    networks"). For families whose f is 1-Lipschitz by construction (encoder=bounded head=orthonormal); any other could
    make the loss as negative as it likes. A batch in which a class is missing adds its other mean alone.
    """

    def refusal(self, info: DatasetInfo) -> str | None:
        two = info.task.outputs == 2
        return super().refusal(info) or (None if two else f"expected data of two classes, got {info.task.outputs}")

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64, 0 or 1."""
        logits = network(x)
        f = (logits[:, 1] - logits[:, 0]) / 2**0.5
        sign = 2 * labels.to(f.dtype) - 1
        counts = [(labels == k).sum().clamp_min(1) for k in (0, 1)]
        weights = sign / counts[0].where(labels == 0, counts[1])
        return {"kantorovich": -(weights * f).sum()}

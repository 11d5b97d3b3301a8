"""What training minimises."""

from abc import ABC, abstractmethod

from torch import Tensor

from robode.data.info import DatasetInfo
from robode.network import Network
from robode.tasks.classification import Classification


class Objective(ABC):
    """Terms of a loss, which is the sum over all objectives; each term is logged under its name."""

    def refusal(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for these data; None where it does."""
        return None

    @abstractmethod
    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """network: for `network(x)` and `network.flow`; x: (B, *shape) in data units; target: as the task has them."""


class OfClasses(Objective):
    """An objective whose targets are labels, (B,) int64."""

    def refusal(self, info: DatasetInfo) -> str | None:
        if isinstance(info.task, Classification):
            return None
        return f"expected data with classes, and these are for {info.task.name}; choose another objective"

"""What training minimises."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from robode.data.info import DatasetInfo
from robode.network import Network


class Objective(ABC):
    """Terms of a loss, which is the sum over all objectives; each term is logged under its name.

    Its YAML node says `task`, the task whose targets it takes (any, where it says none), and `looks_at_target: false`
    where the target plays no part, so that what does not fit is refused before anything is built.
    """

    replayable: bool = False  # calls draw nothing, look at no value and do the same each time, so a graph can hold them
    violation: ClassVar[str] = ""  # which of its notes is the share of conditions that do not hold

    def refusal(self, info: DatasetInfo) -> str | None:
        """Why it makes no sense for these data of its task; None where it does."""
        return None

    def check(self, network: Network) -> None:
        """Raises `BadInput` for a network that it makes no sense for."""
        return None

    def notes(self) -> dict[str, Tensor]:
        """What is logged of its last call beside its terms, averaged like them: name -> 0-d tensor, detached."""
        return {}

    @abstractmethod
    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """network: for `network(x)` and `network.flow`; x: (B, *shape) in data units; target: as the task has them."""

"""What training minimises."""

from typing import Protocol

from torch import Tensor

from robode.network import Network


class Objective(Protocol):
    """Terms of a loss, which is the sum over all objectives; each term is logged under its name."""

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """network: for `network(x)` and `network.flow`; x: (B, *shape) in data units; labels: (B,) int64."""

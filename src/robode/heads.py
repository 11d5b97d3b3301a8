"""Heads: from the flow's last state to the network's outputs. What `head=` chooses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.foreign import patched, rewritten
from robode.linalg.norms import ROUNDING, spectral_norms
from robode.linalg.orthonormal import orthonormal


class Linear(nn.Linear):
    """W y + b, free: (B, features) -> (B, outputs)."""

    def __init__(self, features: int, outputs: int):
        super().__init__(features, outputs)

    def lipschitz(self) -> float:
        """Certified 2-norm of W; inf where it is not finite."""
        W = self.weight.detach().double()
        return float(spectral_norms(W)) * ROUNDING if bool(W.isfinite().all()) else math.inf


class Orthonormal(Linear):
    """W y + b with orthonormal rows, or columns where there are more outputs than features: ||W|| <= 1.

    Any two rows are sqrt 2 apart (or less, with orthonormal columns): all pairs of classes are alike.
    """

    def __init__(self, features: int, outputs: int):
        super().__init__(features, outputs)
        with torch.no_grad():
            self.weight.copy_(orthonormal(self.weight))

    @torch.no_grad()
    def project_(self) -> None:
        """Makes the rows orthonormal again. Idempotent."""
        self.weight.copy_(orthonormal(self.weight))


class Projection(nn.Module):
    """The first numbers of the last state, an orthogonal projection: of images the first channels, as the data have
    them. With encoder=zero_channels (or identity) in front of it a flow's constants are those of the network. Raises
    `BadInput` for a state with fewer numbers than an output."""

    def __init__(self, features: int, outputs: int):
        super().__init__()
        if features < outputs:
            raise BadInput(
                f"head=projection: expected a state of at least {outputs} numbers, as many as a target has, got "
                f"{features}; set a larger model.width"
            )
        self.outputs = outputs

    def forward(self, y: Tensor) -> Tensor:
        """y (B, features) -> (B, outputs), its first numbers."""
        return y[:, : self.outputs]

    def lipschitz(self) -> float:
        """1: an orthogonal projection."""
        return 1.0


def matrix_of(head: nn.Module) -> tuple[Tensor, Tensor] | None:
    """(W, b) of a head that is W y + b, detached; None for another."""
    known = nn.Linear if isinstance(head, nn.Linear) else Identity
    if not isinstance(head, known) or rewritten(type(head), known) or patched(head):
        return None
    return head.weight.detach(), head.bias.detach()


class Identity(nn.Module):
    """The state is the output: for maps from states to states. Raises `BadInput` unless features = outputs."""

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, outputs: int):
        super().__init__()
        if features != outputs:
            raise BadInput(
                f"head=identity: expected a state of {outputs} numbers, as many as a target has, got {features}; "
                f"set model.width={outputs} or choose head=linear"
            )
        self.register_buffer("weight", torch.eye(outputs), persistent=False)
        self.register_buffer("bias", torch.zeros(outputs), persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        """y (B, outputs), as it is."""
        return y

    def lipschitz(self) -> float:
        """1: an isometry."""
        return 1.0

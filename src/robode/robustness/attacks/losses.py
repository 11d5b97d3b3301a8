"""What an attack on a classifier climbs, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from robode.errors import BadInput
from robode.tasks.losses import cross_entropy, dlr, dlr_targeted, fallen, margin, margin_targeted

__all__ = ["LOSSES", "Loss", "cross_entropy", "dlr", "dlr_targeted", "fallen", "loss_named", "margin",
           "margin_targeted"]  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: Mapping[str, Loss] = MappingProxyType({"ce": cross_entropy, "margin": margin, "dlr": dlr})


def loss_named(name: str) -> Loss:
    """One of `LOSSES`. Raises BadInput for another name."""
    if not isinstance(name, str) or name not in LOSSES:
        raise BadInput(f"loss={name}: expected one of {', '.join(LOSSES)}")
    return LOSSES[name]

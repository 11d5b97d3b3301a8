"""How expansive a flow can be: the logarithmic norm of its fields from both sides, and the norms around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robode.certificates.radius import constants
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network
from robode.ode.field import GradientField, OneLayerField
from robode.ode.jacobians import JacobianSet
from robode.ode.lognorm_lower import lower_bound
from robode.ode.lognorm_upper import upper_bound
from robode.ode.step import once
from robode.quantities.quantity import Quantity, row


class LogNorms(Quantity):
    """delta, the largest log-norm of the Jacobians C + B D K of a layer over all slopes D of the activation.

    delta_lower (certified_lower): attained by slopes that were found; delta_upper (certified_upper): proved; both the
    largest over the layers. Solutions separate by e^(delta T) at most. encoder_norm, head_norm (certified_upper): the
    Lipschitz constants on both sides of the flow, in data units; inf where none is known.
    """

    name = "log_norms"
    gives = ("delta_lower", "delta_upper", "encoder_norm", "head_norm")

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[dict[str, Any]]:
        flow = network.flow.exact()
        fields = flow.fields() if flow.solves_an_ode and not flow.controlled else []
        layered = [each for each in fields if isinstance(each, OneLayerField | GradientField)]
        if not layered or len(layered) < len(fields):
            raise BadInput(
                f"suite=log_norms: expected fields with one hidden layer (stable_node, resnet, chnode, hdnn, node with "
                f"model.hidden=[]), got {type(flow).__name__}; leave it out"
            )
        lower = max(once(lambda field: lower_bound(field.jacobians())[0].value, layered))
        upper = max(once(lambda field: min(field.lognorm(), float(_proved(field.jacobians()))), layered))
        parts = constants(network, data.info.shape).parts
        return [
            row("delta_lower", lower, "certified_lower"),
            row("delta_upper", upper, "certified_upper"),
            row("encoder_norm", parts["encoder"], "certified_upper"),
            row("head_norm", parts["head"], "certified_upper"),
        ]


def _proved(jacobians: JacobianSet) -> torch.Tensor:
    return upper_bound(jacobians).value[0]

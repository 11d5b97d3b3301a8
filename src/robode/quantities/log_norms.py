"""How expansive a flow can be: the logarithmic norm of its fields from both sides, the norms around it, and how it
depends on the range of the activation's slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from robode.certificates.radius import constants
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.families.conv_stable_node import ConvLayerField
from robode.families.residual import ResidualField
from robode.network import Network
from robode.ode.field import GradientField, OneLayerField
from robode.ode.jacobians import jacobian_set
from robode.ode.lognorm import lognorm
from robode.ode.lognorm_lower import lower_bound
from robode.ode.lognorm_upper import upper_bound
from robode.ode.stable_interval import stable_interval
from robode.ode.step import once
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "stable_slopes.npz"
Layered = OneLayerField | GradientField | ResidualField | ConvLayerField
GRID = 20  # intervals of [0, 1] for the curve of delta


class LogNorms(Quantity):
    """delta, the largest log-norm of the Jacobians C + B D K of a layer over all slopes D of the activation.

    delta_lower (certified_lower): attained by slopes that were found; delta_upper (certified_upper): proved; both the
    largest over the layers. Solutions separate by e^(delta T) at most. encoder_norm, head_norm (certified_upper): the
    Lipschitz constants on both sides of the flow, in data units; inf where none is known.
    """

    name = "log_norms"
    gives = ("delta_lower", "delta_upper", "encoder_norm", "head_norm")

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        lower, upper = both_sides(layered_fields(network, f"suite={self.name}"))
        parts = constants(network, data.info.shape).parts
        return [
            row("delta_lower", lower, "certified_lower"),
            row("delta_upper", upper, "certified_upper"),
            row("encoder_norm", parts["encoder"], "certified_upper"),
            row("head_norm", parts["head"], "certified_upper"),
        ]


class StableSlopes(Quantity):
    """The largest interval of slopes [alpha*, 1] on which delta <= 0, for the weights A of fields sigma(A u + b).

    slopes_from (certified_upper): delta is proved to be at most 0 for slopes in [slopes_from, 1]; inf where not even
    slopes of 1 have that (mu_2(A) > 0); the largest over the layers. stable_slopes.npz, for the figure: alpha (G,), the
    bounds lower and upper (G,) of delta over slopes in [alpha, 1], each the largest over the layers, and trained, the
    least slope of the network's own activation.
    """

    name = "stable_slopes"
    gives = ("slopes_from",)

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        layered = layered_fields(network, f"suite={self.name}")
        fields = [field for field in layered if isinstance(field, OneLayerField)]
        if len(fields) < len(layered):
            raise BadInput(
                f"suite={self.name}: expected fields sigma(A u + b) with a matrix A (stable_node, resnet); leave it out"
            )
        weights = [field.K for field in {id(each): each for each in fields}.values()]
        alphas = torch.linspace(0, 1, GRID + 1, dtype=torch.float64)
        lower, upper = (torch.full_like(alphas, -math.inf) for _ in range(2))
        for A in weights:
            J = jacobian_set(torch.zeros_like(A), torch.eye(len(A)), A, 0.0, 1.0)
            every = J.on(alphas[:, None].expand(-1, len(A)), torch.ones(len(alphas), len(A), dtype=torch.float64))
            upper = torch.maximum(upper, upper_bound(every).value)
            found = torch.tensor([each.value for each in lower_bound(every)], dtype=torch.float64)
            lower = torch.maximum(lower, found)
        arrays = {"alpha": alphas, "lower": lower, "upper": upper}
        trained = {"trained": fields[0].activation.slopes[0]}
        write_arrays(folder / FILE, {name: each.numpy() for name, each in arrays.items()} | trained)
        stable = float(upper[-1]) <= 0
        value = max(stable_interval(A).upper for A in weights) if stable else math.inf
        return [row("slopes_from", value, "certified_upper")]


def layered_fields(network: Network, asked: str) -> list[Layered]:
    """The fields in float64. asked: what needs them. Raises `BadInput` where some have more than one hidden layer."""
    flow = network.flow.exact()
    fields = flow.fields() if flow.solves_an_ode and not flow.controlled else []
    layered = [each for each in fields if isinstance(each, Layered)]
    if not layered or len(layered) < len(fields):
        raise BadInput(
            f"{asked}: expected fields with one hidden layer (stable_node, conv_stable_node, resnet, residual, "
            f"chnode, hdnn, node with model.hidden=[]), got {type(flow).__name__}; leave it out"
        )
    return layered


def both_sides(fields: Sequence[Layered]) -> tuple[float, float]:
    """Certified bounds of the largest log-norm over the layers."""
    bounds = once(_both_sides, fields)
    return max(lower for lower, _ in bounds), max(upper for _, upper in bounds)


def _both_sides(field: Layered) -> tuple[float, float]:
    """Certified bounds of the log-norm; the field may know a better one from above."""
    if isinstance(field, ConvLayerField):
        bounds = field.lognorm_bounds()
        return bounds.lower, bounds.upper
    J = field.jacobians()
    (found,) = lognorm(J.C, J.B, J.K, J.lo, J.hi)
    return found.lower, min(found.upper, field.lognorm())

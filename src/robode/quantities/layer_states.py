"""Where the layers of a network take points of the plane, and whether a map of the plane could have done it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robode.config.levels import check_count
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule, spread
from robode.families.gradient_flow import DescentField
from robode.heads import Linear
from robode.network import Network
from robode.ode.field import EulerStep
from robode.ode.layer import VERTEX_WIDTH, Layer, vertices
from robode.ode.step import Chain, Step, identity_like
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "layer_states.npz"
RINGS, ANGLES = 200, 4000  # of the disc on which the logits are compared with those on its rim
FAN = 4 * math.pi / ANGLES  # how far around an extreme the rim is looked at more closely


class LayerStates(Quantity):
    """Of networks that classify points of the plane with states of two or three numbers and a linear head, in float64.

    least_determinant (certified_lower): the least det(A + B D K) over the slopes D of the activation and the layers
    A y + B sigma(K y + b); above 0 every layer is a homeomorphism. bulge: by how much the difference of the two logits
    inside a disc that holds all test points goes beyond its extremes on the rim, as a share of their distance; of a
    homeomorphism of the plane it is at most 0 (docs/theory.md, section 25).

    layer_states.npz, for figures: states (N + 1, P, n) of `points` test points, spread evenly, labels (P,), normal (n,)
    and offset (): the class is 1 where <normal, state> + offset > 0; step (), the h of a layer.
    """

    name = "layer_states"
    gives = ("least_determinant", "bulge")
    needs_classes = True

    def __init__(self, points: int = 600):
        check_count("points", points)
        self.points = points

    def misfit(self, info: DatasetInfo) -> str | None:
        right = info.shape == (2,) and info.task.outputs == 2
        return None if right else "is for two classes of points of the plane"

    def suits(self, network: nn.Module) -> bool:
        """Of one with few states and neurons whose layers have one hidden layer each."""
        if not isinstance(network, Network) or network.flow.controlled or not isinstance(network.head, Linear):
            return False
        steps = network.flow.steps() if network.flow.width in (2, 3) else []
        layers = [layer for step in steps for layer in layers_of(step)]
        return bool(layers) and all(each is not None and len(each.K) <= VERTEX_WIDTH for each in layers)

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        exact, device = copy.deepcopy(network).double().eval(), device_of(network)
        split = data.split("test")
        x, labels = (each.to(device) for each in spread(split, self.points))
        states = torch.stack(exact.flow.states(exact.embed(in_units(x).double())))
        head = exact.head
        assert isinstance(head, Linear)
        W, b = head.weight, head.bias
        arrays = {
            "states": states,
            "labels": labels,
            "normal": W[1] - W[0],
            "offset": b[1] - b[0],
            "step": exact.flow.h,
        }
        write_arrays(folder / FILE, {name: each.cpu().numpy() for name, each in arrays.items()})
        steps = exact.flow.exact().steps()
        least = least_determinant([layer for step in steps for layer in layers_of(step) if layer is not None])
        radius = float(in_units(split.x).double().norm(dim=1).max())
        return [row("least_determinant", least, "certified_lower"), row("bulge", bulge(exact, radius))]


def layers_of(step: Step) -> Iterator[Layer | None]:
    """The layers that a step is made of, one after the other; None where it is made of something else."""
    if isinstance(step, Chain):
        for each in step.steps:
            yield from layers_of(each)
    elif isinstance(step, EulerStep) and isinstance(step.field, DescentField):
        field = step.field
        yield Layer(identity_like(field.W.mT), -step.h * field.s * field.W.mT, field.W, field.b, field.activation)
    else:
        yield step if isinstance(step, Layer) else None


def least_determinant(layers: Sequence[Layer]) -> float:
    """min det(A + B D K) over slopes lo <= D <= hi and the layers: the determinant is affine in each slope, so the
    minimum lies at a vertex. Rounded down."""
    found = math.inf
    for layer in layers:
        A, B, K = (each.detach().double() for each in (layer.A, layer.B, layer.K))
        D = vertices(len(K), layer.activation.slopes, K.device)
        M = A + (B * D[:, None, :]) @ K
        size = torch.linalg.vector_norm(M, dim=2).prod(1)  # Hadamard's bound of the determinant
        found = min(found, float((torch.linalg.det(M) - 1e-13 * size).min()))
    return found


@torch.no_grad()
def bulge(network: nn.Module, radius: float) -> float:
    """Of the difference of two logits on the disc of this radius around 0: how far its largest and least value inside
    lie beyond those on the rim, the larger of the two, as a share of what they are apart on the rim. network: float64,
    points (M, 2) -> logits (M, 2)."""
    device = device_of(network)
    inner = torch.arange(RINGS, dtype=torch.float64, device=device) / RINGS
    inside = _differences(network, radius * inner[:, None, None] * _circle(_angles(0, 2 * math.pi, device)))
    whole = _angles(0, 2 * math.pi, device)
    rim = _differences(network, radius * _circle(whole))
    ends = []
    for place in (rim.argmax(), rim.argmin()):  # again around the extremes, which may be narrow
        near = _angles(float(whole[place]) - FAN, float(whole[place]) + FAN, device)
        ends.append(_differences(network, radius * _circle(near)))
    highest, lowest = torch.maximum(rim.max(), ends[0].max()), torch.minimum(rim.min(), ends[1].min())
    beyond = torch.maximum(inside.max() - highest, lowest - inside.min())
    return float(beyond / (highest - lowest).clamp_min(1e-300))


def _angles(start: float, stop: float, device: torch.device) -> Tensor:
    return torch.linspace(start, stop, ANGLES + 1, dtype=torch.float64, device=device)


def _circle(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], 1)


def _differences(network: nn.Module, points: Tensor) -> Tensor:
    logits = network(points.reshape(-1, 2))
    found: Tensor = logits[:, 1] - logits[:, 0]
    return found

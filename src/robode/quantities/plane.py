"""What a network does to the plane: how far points can be moved (eps_r), and regions, field, points and circles, saved
for figures."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robode.certificates.branch_and_bound import BUDGET, GAP, Radii, radii
from robode.config.levels import check_count
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.heads import matrix_of
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "field_2d.npz"
GRID, ARROWS, AROUND = 401, 23, 181
POINTS = 200  # more training points than these would hide the picture


class Field2D(Quantity):
    """The pictures of the CH-NODE paper's Fig. 1 as arrays, for networks of width 2 on points of the plane.

    field_2d.npz: x, y (G,), classes (G, G) and margin (G, G), the logit of class 1 minus that of class 0, on a grid
    (row = y); at (A, A, 2) and field (A, A, 2), f(0, at); states (N + 1, P, 2), the trajectories of the training
    points, labels (P,); circles (N + 1, P, C, 2), those of circles of `radius` around them; W (classes, 2) and
    b (classes,), the head; radius. One row of numbers.csv: how far the flow moves a training point at most.
    radius, margin: data units; the grid leaves `margin` around the points.
    """

    name = "field_2d"
    gives = ("flow_displacement",)
    needs_classes = True

    def __init__(self, radius: float = 0.3, margin: float = 2.0):
        for key, value in (("radius", radius), ("margin", margin)):
            if not 0 < value < math.inf:
                raise BadInput(f"suite.field_2d.{key}: expected a number > 0, got {value}")
        self.radius, self.margin = float(radius), float(margin)

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if info.shape == (2,) else f"is for points of the plane, not for shape {info.shape}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def suits(self, network: nn.Module) -> bool:
        """Networks with a hyperplane in the space of states, and fields to draw."""
        if not isinstance(network, Network) or network.flow.controlled or not network.flow.solves_an_ode:
            return False
        return matrix_of(network.head) is not None

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        network.flow.uncontrolled("suite=field_2d")
        if network.flow.width != 2:
            raise BadInput(f"suite=field_2d: expected model.width=2, got {network.flow.width}")
        device = device_of(network)
        x, labels = data.split("train")
        chosen = torch.linspace(0, len(x) - 1, min(len(x), POINTS)).round().long()
        points, labels = in_units(x[chosen]).double().to(device), labels[chosen]
        with torch.no_grad():
            found = self._arrays(copy.deepcopy(network).double().eval(), points, labels)
        arrays = {name: np.asarray(each.cpu() if isinstance(each, Tensor) else each) for name, each in found.items()}
        write_arrays(folder / FILE, arrays)
        moved = np.linalg.norm(arrays["states"] - arrays["states"][:1], axis=2).max()
        return [row("flow_displacement", float(moved))]

    def _arrays(self, network: Network, points: Tensor, labels: Tensor) -> dict[str, Tensor | float]:
        low, high = points.amin(0) - self.margin, points.amax(0) + self.margin
        ends = list(zip(low.tolist(), high.tolist(), strict=True))
        x, y = (torch.linspace(a, b, GRID, dtype=torch.float64).to(points.device) for a, b in ends)
        logits = network(_mesh(x, y).reshape(-1, 2)).reshape(GRID, GRID, -1)
        at = _mesh(*(torch.linspace(a, b, ARROWS).double().to(points.device) for a, b in ends))
        fields = network.flow.fields()
        angle = torch.linspace(0, 2 * math.pi, AROUND, dtype=torch.float64).to(points.device)
        ring = points[:, None] + self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        circles = torch.stack(network.flow.states(network.embed(ring.reshape(-1, 2))))
        matrix = matrix_of(network.head)
        assert matrix is not None, "see suits"
        W, b = matrix
        return {
            "x": x, "y": y,
            "classes": logits.argmax(2).to(torch.uint8),
            "margin": (logits[..., 1] - logits[..., 0]).float(),
            "at": at,
            "field": fields[0](0.0, network.embed(at.reshape(-1, 2)).T).T.reshape(at.shape),
            "states": torch.stack(network.flow.states(network.embed(points))),
            "labels": labels,
            "circles": circles.reshape(-1, *ring.shape),
            "W": W, "b": b,
            "radius": self.radius,
        }  # fmt: skip


def _mesh(x: Tensor, y: Tensor) -> Tensor:
    """(len(y), len(x), 2)."""
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid[1], grid[0]], dim=2)


class EpsR(Quantity):
    """eps_r of the CH-NODE paper's Fig. 1: the largest r for which every ball of radius r around a training point keeps
    that point's class, in data units; 0 if a training point is classified wrongly.

    Two rows: certified_lower, a proof, and attack_upper, the distance to a point of another class. The radii of the
    single points go to eps_r.npz (points, labels, lower, upper, nearest). gap: relative, between the two rows;
    budget: boxes a point that the proof may take before it is left as it is.
    """

    name = "eps_r"
    gives = ("eps_r",)
    needs_classes = True

    def __init__(self, gap: float = GAP, budget: int = BUDGET):
        if not 0 < gap < 1:
            raise BadInput(f"suite.eps_r.gap: expected a number strictly between 0 and 1, got {gap}")
        check_count("suite.eps_r.budget", budget)
        self.gap, self.budget = gap, budget

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if info.shape == (2,) else f"is for points of the plane, not for shape {info.shape}"

    def suits(self, network: nn.Module) -> bool:
        """Networks whose two ends are affine: of such ends boxes have exact images."""
        if not isinstance(network, Network) or not network.encoder.affine or network.flow.controlled:
            return False
        return matrix_of(network.head) is not None

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        x, labels = (each.to(device) for each in data.split("train"))
        points = in_units(x)
        # beyond the whole set's extent nothing is asked any more
        reach = float((points.amax(0) - points.amin(0)).norm())
        found = radii(network, points, labels, reach=reach, gap=self.gap, budget=self.budget)
        write_arrays(folder / "eps_r.npz", _radii(points, labels, found))
        return [
            row("eps_r", float(found.lower.min()), "certified_lower"),
            row("eps_r", float(found.upper.min()), "attack_upper"),
        ]


def _radii(points: Tensor, labels: Tensor, found: Radii) -> Mapping[str, np.ndarray]:
    tensors = {"points": points.double(), "labels": labels, "lower": found.lower, "upper": found.upper}
    return {name: each.cpu().numpy() for name, each in {**tensors, "nearest": found.nearest}.items()}

"""What a network says of the plane, near the data and far from them: arrays for a figure."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule, spread
from robode.families.data_node import positive
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "softmax_plane.npz"
GRID = 201
POINTS = 1000  # training points that are drawn


class SoftmaxPlane(Quantity):
    """The softmax of two classes on the squares [-near, near]^2 and [-far, far]^2 (LyaNet's Fig. 4).

    share_near and share_far: of class 1 in what is said, over the square. softmax_plane.npz: x_near and x_far (G,),
    p_near and p_far (G, G), the softmax of class 1 (row = second coordinate), points (P, 2), labels (P,).
    near, far: data units.

    Raises:
        BadInput: values that make no sense.
    """

    name = "softmax_plane"
    gives = ("share_near", "share_far")
    needs_classes = True

    def __init__(self, near: float = 3.0, far: float = 10.0):
        self.sides = {key: positive(f"suite.softmax_plane.{key}", side) for key, side in (("near", near), ("far", far))}

    def misfit(self, info: DatasetInfo) -> str | None:
        right = info.shape == (2,) and info.task.outputs == 2
        return None if right else f"is for two classes of points of the plane, not for shape {info.shape}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def suits(self, network: nn.Module) -> bool:
        """Any network."""
        return True

    @torch.no_grad()
    def measure(self, network: nn.Module, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        exact = copy.deepcopy(network).double().eval()
        arrays: dict[str, Tensor] = {}
        numbers = []
        for name, side in self.sides.items():
            ticks = torch.linspace(-side, side, GRID, dtype=torch.float64, device=device)
            y, x = torch.meshgrid(ticks, ticks, indexing="ij")
            logits = exact(torch.stack([x, y], dim=2).view(-1, 2))
            arrays |= {f"x_{name}": ticks, f"p_{name}": logits.softmax(1)[:, 1].view(GRID, GRID)}
            numbers.append(row(f"share_{name}", float((logits[:, 1] > logits[:, 0]).double().mean())))
        points, labels = spread(data.split("train"), POINTS)
        arrays |= {"points": in_units(points), "labels": labels}
        write_arrays(folder / FILE, {name: np.asarray(each.cpu()) for name, each in arrays.items()})
        return numbers

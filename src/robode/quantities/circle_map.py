"""How well a network learns a map of the circle, and whether it stays on the circle."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.tasks.regression import Regression

FILE = "circle_map.npz"


class CircleError(Quantity):
    """On the samples x of the test set, in float64: mean and maximum of the distance |N(x) - target|, squared in the
    mean (mse, largest_error), and the largest | ||N(x)|| - ||x|| | (norm_defect).

    circle_map.npz, for the figure: x, target, output (n, 2), and trained (m, 2), the samples of training.
    """

    name = "circle_map"
    gives = ("mse", "largest_error", "norm_defect")

    def misfit(self, info: DatasetInfo) -> str | None:
        right = info.shape == (2,) and isinstance(info.task, Regression) and info.task.outputs == 2
        return None if right else "is for maps of the plane (data=circle_map)"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        x, target = (each.to(device_of(network)).double() for each in data.split("test"))
        output = copy.deepcopy(network).double().eval()(x)
        off = (output - target).norm(dim=1)
        defect = (output.norm(dim=1) - x.norm(dim=1)).abs()
        arrays = {"x": x, "target": target, "output": output, "trained": in_units(data.split("train").x)}
        write_arrays(folder / FILE, {name: each.cpu().numpy() for name, each in arrays.items()})
        found = {"mse": off.square().mean(), "largest_error": off.max(), "norm_defect": defect.max()}
        return [row(name, float(value)) for name, value in found.items()]

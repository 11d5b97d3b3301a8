"""The Wasserstein distance between two samples: what a 1-Lipschitz network proves of it, and what it is."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from robode.certificates.radius import pair_lipschitz
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "wasserstein.npz"
GRID, MARGIN = 161, 0.6
ROUNDING = 1 + 1e-9  # of sums of some thousand float64 numbers


class Wasserstein(Quantity):
    """W1 between the classes 0 and 1 of the training set, from below by the network and exactly.

    w1_network (certified_lower): (mean of logit_1 - logit_0 over class 1, minus that over class 0)/L, with L the
    certified Lipschitz constant of logit_1 - logit_0 in data units; by Kantorovich and Rubinstein never above W1.
    w1_exact: between the two empirical distributions, by optimal assignment. wasserstein.npz, for the figure: x, y
    (G,), potential (G, G) = f/L (row = y), points (n, 2), labels (n,).
    """

    name = "wasserstein"
    gives = ("w1_network", "w1_exact")
    needs_classes = True

    def misfit(self, info: DatasetInfo) -> str | None:
        right = info.shape == (2,) and info.task.outputs == 2
        return None if right else f"is for two samples of the plane, not for shape {info.shape}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        x, labels = (each.to(device) for each in data.split("train"))
        points = in_units(x).double()
        exact = w1(points[labels == 0], points[labels == 1])
        L = float(pair_lipschitz(network)[1, 0])
        double = copy.deepcopy(network).double().eval()
        f = potential_of(double, points, L)
        proven = float(f[labels == 1].mean() - f[labels == 0].mean())
        if proven > exact * ROUNDING:
            raise JobFailed(
                f"suite=wasserstein: {proven} proven below an exact distance of {exact}: a certificate is wrong"
            )
        low, high = points.amin(0) - MARGIN, points.amax(0) + MARGIN
        ends = zip(low.tolist(), high.tolist(), strict=True)
        ticks = [torch.linspace(a, b, GRID, dtype=torch.float64).to(device) for a, b in ends]
        mesh = torch.cartesian_prod(ticks[1], ticks[0]).flip(1)
        arrays = {"x": ticks[0], "y": ticks[1], "potential": potential_of(double, mesh, L).reshape(GRID, GRID)}
        arrays |= {"points": points, "labels": labels}
        write_arrays(folder / FILE, {name: each.cpu().numpy() for name, each in arrays.items()})
        return [row("w1_network", proven, "certified_lower"), row("w1_exact", exact, "exact")]


def potential_of(network: Network, points: Tensor, L: float) -> Tensor:
    """f/L at (P, 2) points: (P,)."""
    logits = network(points)
    difference: Tensor = logits[:, 1] - logits[:, 0]
    return difference / L if L > 0 else torch.zeros_like(difference)


def w1(a: Tensor, b: Tensor) -> float:
    """Exact 1-Wasserstein distance (2-norm) between the uniform distributions on the rows of a and b, both (k, d).

    Raises:
        BadInput: samples of different sizes, for which a transport is no assignment.
    """
    if len(a) != len(b):
        raise BadInput(f"suite=wasserstein: expected as many points of both classes, got {len(a)} and {len(b)}; set "
                       "data.validation=0")  # fmt: skip
    cost = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())

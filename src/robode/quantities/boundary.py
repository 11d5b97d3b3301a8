"""How far points of the plane lie from where a network's answer changes, and how steep its probabilities are there."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from robode.config.levels import check_count
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule, spread
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "boundary.npz"
GRID, BATCH = 301, 5000
HALVINGS = 20
ANGLES, ZOOMS = 7, 4
Answers = Callable[[Tensor], Tensor]
"""Points (M, 2) -> the class that each is given, (M,)."""


class Boundary(Quantity):
    """Distances of `points` training points, spread evenly, from the decision boundary, in data units: from the nearest
    point that was found to get another answer than they (right or wrong).

    boundary_min, boundary_median: over the points; from above, see `distances` for what may be missed. mean_gradient:
    the mean 2-norm of the gradient of the label's probability at the points, per data unit. boundary.npz, for figures:
    points (P, 2), labels (P,), distance (P,), nearest (P, 2).
    """

    name = "boundary"
    gives = ("boundary_min", "boundary_median", "mean_gradient")
    needs_classes = True

    def __init__(self, points: int = 1000):
        check_count("points", points)
        self.points = points

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if info.shape == (2,) else f"is for points of the plane, not for shape {info.shape}"

    def suits(self, network: nn.Module) -> bool:
        """Anyone's: all that is asked is logits and their gradients."""
        return True

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def measure(self, network: nn.Module, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        x, labels = (each.to(device) for each in spread(data.split("train"), self.points))
        points, exact = in_units(x).double(), copy.deepcopy(network).double().eval()

        @torch.no_grad()
        def answers(at: Tensor) -> Tensor:
            return torch.cat([exact(each).argmax(1) for each in torch.split(at, BATCH)])

        distance, nearest = distances(answers, points)
        arrays = {"points": points, "labels": labels, "distance": distance, "nearest": nearest}
        write_arrays(folder / FILE, {name: each.cpu().numpy() for name, each in arrays.items()})
        return [
            row("boundary_min", float(distance.min())),
            row("boundary_median", float(distance.median())),
            row("mean_gradient", float(_slopes(exact, points, labels).mean())),
        ]


def _slopes(network: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """The 2-norm of the gradient of each label's probability: (P,)."""
    found = []
    for x, own in zip(torch.split(points, BATCH), torch.split(labels, BATCH), strict=True):
        x = x.clone().requires_grad_()
        p = network(x).softmax(1).gather(1, own[:, None])
        found.append(torch.autograd.grad(p.sum(), x)[0].norm(dim=1))
    return torch.cat(found)


def distances(answers: Answers, points: Tensor) -> tuple[Tensor, Tensor]:
    """Of points (P, 2) the distance to the nearest point found with another answer, (P,), and that point, (P, 2); inf
    and nan where all answers are the same.

    Answers on a grid over three times the extent of the points; where neighbours differ the boundary lies between them,
    and bisection finds where. From the nearest such place each point looks along rays, in ever narrower fans, for a
    nearer one. A part of the boundary between two neighbours of the grid with the same answer is missed.
    """
    low, high = points.amin(0), points.amax(0)
    extent = (high - low).clamp_min(float((high - low).max()) / 10).clamp_min(1e-6)
    sides = [torch.linspace(0, 1, GRID, dtype=points.dtype, device=points.device) for _ in range(2)]
    mesh = torch.stack(torch.meshgrid(*sides, indexing="ij"), 2)
    mesh = low - extent + mesh * (high - low + 2 * extent)
    spacing = float((high - low + 2 * extent).max()) / (GRID - 1)
    classes = answers(mesh.reshape(-1, 2)).reshape(GRID, GRID)
    pairs = [
        torch.stack([a[different], b[different]])
        for a, b, different in (
            (mesh[1:], mesh[:-1], classes[1:] != classes[:-1]),
            (mesh[:, 1:], mesh[:, :-1], classes[:, 1:] != classes[:, :-1]),
        )
    ]
    a, b = torch.cat(pairs, 1)
    if not len(a):
        return torch.full_like(points[:, 0], math.inf), torch.full_like(points, math.nan)
    there = torch.cat(_between(answers, a, b))  # on both of its sides
    side, own = answers(there), answers(points)
    away = torch.cdist(points, there).masked_fill(side == own[:, None], math.inf)
    return _nearer(answers, points, there[away.argmin(1)], spacing)


def _between(answers: Answers, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of ways from a to b (M, 2), whose answers differ, the last points found with a's answer and the first without, as
    near to each other as bisection comes."""
    own = answers(a)
    for _ in range(HALVINGS):
        middle = (a + b) / 2
        same = (answers(middle) == own)[:, None]
        a, b = torch.where(same, middle, a), torch.where(same, b, middle)
    return a, b


def _nearer(answers: Answers, points: Tensor, nearest: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """Along rays of each point around that to `nearest` (P, 2), of another answer: the same, and nearer."""
    own, best = answers(points), (nearest - points).norm(dim=1)
    angle = torch.atan2(*(nearest - points).flip(1).unbind(1))
    wide = (2 * spacing / best.clamp_min(spacing)).clamp_max(math.pi)
    fan = torch.linspace(-1, 1, ANGLES, dtype=points.dtype, device=points.device)
    for _ in range(ZOOMS):
        angles = angle[:, None] + wide[:, None] * fan
        rays = torch.stack([angles.cos(), angles.sin()], 2)
        start = points[:, None].expand_as(rays)
        ends = start + best[:, None, None] * rays  # only what is nearer counts
        other = answers(ends.reshape(-1, 2)).view(ends.shape[:2]) != own[:, None]
        found = _between(answers, start.reshape(-1, 2), ends.reshape(-1, 2))[1].view_as(ends)
        length = torch.where(other, (found - start).norm(dim=2), math.inf)
        least, which = length.min(1)
        rows = torch.arange(len(points), device=points.device)
        better = least < best
        nearest = torch.where(better[:, None], found[rows, which], nearest)
        angle = torch.where(better, angles[rows, which], angle)
        best, wide = torch.minimum(best, least), wide / 3
    return best, nearest

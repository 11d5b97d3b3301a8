"""How far each point of the plane can be moved before the network changes its mind: bounds from both sides.

The paper's Fig. 1 calls the smallest such distance over the training points eps_r. The lower bound is a proof (branch
and bound over boxes on which the margin is enclosed), the upper bound a point of another class. Units: those of the
data. The network is evaluated in float64 with the weights that were trained.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.foreign import patched, speaks_of
from robode.heads import matrix_of
from robode.network import Network
from robode.ode.enclosure import Enclosure
from robode.ode.step import Chain

GAP = 1e-3
BUDGET = 5_000  # boxes a point may cost before its proof is left as it is; a smooth network takes some hundreds
BATCH = 512
ANGLES, RADII = 180, 60  # of the first, coarse search around each point
CLEARLY = 1e-11  # relative: logits that differ by less may change places with the batch that they are computed in
SHRINK = 1 - 1e-12  # rounding of the distances themselves


@dataclass(frozen=True)
class Radii:
    """For each of P points: lower <= true radius <= upper (P,), and the nearest other-class point found (P, 2).

    upper is inf (and nearest NaN) where nothing of another class was found within `reach`; lower is then at most reach.
    boxes: how many the proof looked at.
    """

    lower: Tensor
    upper: Tensor
    nearest: Tensor
    boxes: int


def radii(
    network: Network, points: Tensor, labels: Tensor, *, reach: float, gap: float = GAP, budget: int = BUDGET
) -> Radii:
    """Bounds of the radius of the largest ball around each point on which the network says its label.

    points: (P, 2) data units; labels: (P,). A point that is classified wrongly has radius 0. Only radii up to `reach`
    are looked for. Stops where lower >= (1 - gap) upper, or after about `budget` boxes a point.

    Raises:
        BadInput: data that are no points of the plane, or a network without a certified enclosure.
    """
    judge = Judge(network)
    points = points.double()
    with torch.no_grad():
        attack = UpperBounds(judge, points, labels, reach)
        attack.search()
        return _branch_and_bound(judge, attack, reach, gap, budget)


class Judge:
    """The network in float64: its margins at points, and certified lower bounds of its margins over boxes."""

    def __init__(self, network: Network):
        if network.info.shape != (2,):
            raise BadInput(f"eps_r: expected data that are points of the plane, got shape {network.info.shape}")
        network.flow.uncontrolled("eps_r")
        self.network = copy.deepcopy(network).double().eval()
        matrix = matrix_of(self.network.head)
        encoder = self.network.encoder
        affine = encoder.affine and speaks_of(type(encoder), "affine") and not patched(encoder)
        if matrix is None or not affine:
            raise BadInput("eps_r: expected an encoder and a head that are affine, of which boxes have exact images")
        if not self.network.flow.computes_its("enclose"):
            raise BadInput("eps_r: expected a flow, steps and fields that are enclosed by methods of their own")
        self.W, self.b = matrix
        with torch.no_grad():
            self.shift = self.network.embed(torch.zeros(1, 2).to(self.W)).T
            self.embedding = self.network.embed(torch.eye(2).to(self.W)).T - self.shift

    def wrong(self, x: Tensor, labels: Tensor) -> Tensor:
        """Whether x (M, 2) gets another class than its label (M,), by more than rounding may decide."""
        logits = self.network(x)
        own = logits.gather(1, labels[:, None])[:, 0]
        best = logits.scatter(1, labels[:, None], -math.inf).amax(1)
        return (best - own > CLEARLY * (1 + logits.abs().amax(1))) | ~logits.isfinite().all(1)

    def margins(self, centres: Tensor, halves: Tensor, labels: Tensor) -> Tensor:
        """Certified lower bounds of logit[label] - max of the others over boxes. centres, halves: (M, 2) -> (M,)."""
        widened = halves * (1 + 1e-9) + 1e-12 * centres.abs()
        box = Enclosure(centres.T, torch.diag_embed(widened).permute(1, 2, 0), torch.zeros_like(centres.T))
        out = Chain(self.network.flow.steps()).enclose(box.linear(self.embedding, self.shift).absorbed())
        margins = []
        for label in range(len(self.b)):
            mine = labels == label
            others = [k for k in range(len(self.b)) if k != label]
            D, d = self.W[label] - self.W[others], (self.b[label] - self.b[others])[:, None]
            part = Enclosure(out.centre[:, mine], out.generators[:, :, mine], out.noise[:, mine]).linear(D, d)
            margins.append((mine, (part.centre - part.radius).amin(0)))
        result = torch.empty_like(centres[:, 0])
        for mine, values in margins:
            result[mine] = values
        return result


class UpperBounds:
    """The nearest point of another class found so far for each point: upper (P,), nearest (P, 2)."""

    def __init__(self, judge: Judge, points: Tensor, labels: Tensor, reach: float):
        self.judge, self.points, self.labels, self.reach = judge, points, labels, reach
        self.upper = torch.full_like(points[:, 0], math.inf)
        self.nearest = torch.full_like(points, math.nan)
        self.offer(torch.arange(len(points), device=points.device), points)

    def offer(self, owners: Tensor, x: Tensor) -> Tensor:
        """Take those of the candidates x (M, 2) that are wrong and nearer; the points that improved, maybe repeated."""
        distance = (x - self.points[owners]).norm(dim=1)
        good = (distance < self.upper[owners]) & (distance <= self.reach)
        good &= self.judge.wrong(x, self.labels[owners])
        owners, x, distance = owners[good], x[good], distance[good]
        self.upper = self.upper.scatter_reduce(0, owners, distance, "amin")
        best = distance == self.upper[owners]
        self.nearest[owners[best]] = x[best]
        return owners[best]

    def search(self) -> None:
        """A polar grid around each point, then pattern search from the best of it."""
        angle = torch.arange(ANGLES).to(self.points) * (2 * math.pi / ANGLES)
        ray = torch.stack([angle.cos(), angle.sin()], dim=1)
        for radius in torch.linspace(0, self.reach, RADII + 1, dtype=torch.float64)[1:].tolist():
            seeking = torch.nonzero(self.upper.isinf())[:, 0]
            if not len(seeking):
                break
            x = self.points[seeking, None] + radius * ray
            self.offer(seeking.repeat_interleave(ANGLES), x.reshape(-1, 2))
        found = torch.nonzero(self.upper.isfinite() & (self.upper > 0))[:, 0]
        self.refine(found)

    def refine(self, owners: Tensor, rounds: int = 30) -> None:
        """Pattern search in polar coordinates around the best: narrows its pattern where it finds nothing better."""
        width = torch.full_like(self.points[owners, 0], 2 * math.pi / ANGLES)
        depth = torch.full_like(width, 1 / RADII)
        turns = torch.linspace(-1, 1, 9, dtype=torch.float64).to(width)
        pulls = 0.25 ** torch.arange(8).to(width)  # however flat the boundary, one of them fits
        for _ in range(rounds if len(owners) else 0):
            d = self.nearest[owners] - self.points[owners]
            angle = torch.atan2(d[:, 1], d[:, 0])[:, None] + width[:, None] * turns
            ray = torch.stack([angle.cos(), angle.sin()], dim=2)[:, :, None]  # (P, turns, 1, 2)
            size = d.norm(dim=1)[:, None, None, None] * (1 - depth[:, None] * pulls)[:, None, :, None]
            x = (self.points[owners, None, None] + size * ray).reshape(len(owners), -1, 2)
            improved = self.offer(owners.repeat_interleave(x.shape[1]), x.reshape(-1, 2))
            stuck = ~torch.isin(owners, improved)
            width, depth = torch.where(stuck, width / 3, width), torch.where(stuck, depth / 3, depth)


def _branch_and_bound(judge: Judge, attack: UpperBounds, reach: float, gap: float, budget: int) -> Radii:
    """Splits the boxes nearest to their points first; what is left when it stops bounds the radius from below."""
    points, labels = attack.points, attack.labels
    owners = torch.arange(len(points), device=points.device)
    centres, halves = points.clone(), attack.upper.clamp(max=reach)[:, None].expand(-1, 2).clone()
    spent = torch.zeros_like(owners)
    while True:
        target = attack.upper.clamp(max=reach)
        nearest = _nearest(points[owners], centres, halves)
        distance = (nearest - points[owners]).norm(dim=1)
        keep = distance < target[owners]
        owners, centres, halves, nearest, distance = (t[keep] for t in (owners, centres, halves, nearest, distance))
        open_ = torch.nonzero((distance < (1 - gap) * target[owners]) & (spent[owners] < budget))[:, 0]
        if not len(open_):
            break
        chosen = open_[torch.argsort(distance[open_] / target[owners[open_]])[:BATCH]]
        spent += torch.bincount(owners[chosen], minlength=len(points))
        candidates = torch.cat([nearest[chosen], centres[chosen]])
        attack.offer(owners[chosen].repeat(2), candidates)
        attack.refine(torch.nonzero(attack.upper < (1 - gap / 4) * target)[:, 0])
        proven = judge.margins(centres[chosen], halves[chosen], labels[owners[chosen]]) > 0
        rest = torch.ones_like(owners, dtype=torch.bool).index_fill(0, chosen, False)
        split = chosen[~proven]
        owners = torch.cat([owners[rest], owners[split].repeat_interleave(4)])
        corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]).to(points)
        quarters = centres[split][:, None] + 0.5 * halves[split][:, None] * corners
        centres = torch.cat([centres[rest], quarters.reshape(-1, 2)])
        halves = torch.cat([halves[rest], 0.5 * halves[split].repeat_interleave(4, dim=0)])
    attack.refine(torch.nonzero(attack.upper.isfinite() & (attack.upper > 0))[:, 0], rounds=60)
    lower = (target * SHRINK).scatter_reduce(0, owners, distance * SHRINK, "amin")
    return Radii(lower, attack.upper, attack.nearest, int(spent.sum()))


def _nearest(points: Tensor, centres: Tensor, halves: Tensor) -> Tensor:
    """The point of each box that is nearest to its owner."""
    return torch.minimum(torch.maximum(points, centres - halves), centres + halves)

"""The maximum of lambda_max(sym(C + B D K)) over slopes lo <= D <= hi, by branch and bound with certified bounds.

A node fixes some slopes at an end of their range; the certified bound of docs/theory.md, section 20, with the other
slopes free bounds it. The node with the largest bound is split next, at the slope that the bound loses most by. The
largest bound that is open when time is up is a certified bound all the same.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robode.ode.jacobians import JacobianSet
from robode.ode.lognorm_lower import SAMPLES, alternate, attained, lower_bound
from robode.ode.lognorm_upper import density, scale, upper_bound

TOLERANCE = 1e-7
STAGES = ((50.0, 25), (500.0, 25))  # of the bound of a node, whose theta begins at that of its parent
TOGETHER = 4  # nodes that are split at once, because a batch of matrices costs less than one by one


@dataclass(frozen=True)
class Maximum:
    """lower <= maximum <= upper, both certified; slopes (k,) and vector (n,) attain lower.

    theta: (k,), what proves the bound before any split. closed: whether the search came to its end: the two meet, up to
    the tolerance, or lie on one side of the threshold.
    """

    lower: float
    upper: float
    slopes: Tensor
    vector: Tensor
    theta: Tensor
    nodes: int
    closed: bool


@dataclass(order=True)
class _Node:
    """One box. order: minus its bound, so that a heap gives the largest; place: the slope to split."""

    order: float
    number: int
    lo: Tensor = field(compare=False)
    hi: Tensor = field(compare=False)
    theta: Tensor = field(compare=False)
    place: int = field(compare=False)


def maximum(
    J: JacobianSet,
    seconds: float = 60.0,
    threshold: float | None = None,
    theta: Tensor | None = None,
) -> Maximum:
    """The maximum of the only layer of J, to within TOLERANCE times the size of its matrices, or as well as `seconds`
    allow. With a threshold only whether it is above that. theta: (1, k), to begin with."""
    return _Search(J, threshold, theta).run(seconds)


class _Search:
    """The nodes that are open, the worst slopes so far, and the largest bound of nodes that were closed."""

    def __init__(self, J: JacobianSet, threshold: float | None, theta: Tensor | None) -> None:
        self.J, self.threshold = J, threshold
        self.gap = TOLERANCE * float(scale(J))
        root = upper_bound(J, theta)
        self.best = lower_bound(J, density(J, root.theta).samples(SAMPLES))[0]
        self.theta, self.nodes, self.closed = root.theta[0], 0, self.best.value
        self.open: list[_Node] = []
        self._add(J, root.value, root.theta)

    @property
    def level(self) -> float:
        """Bounds that are no larger need no further look."""
        return self.best.value + self.gap if self.threshold is None else self.threshold

    def run(self, seconds: float) -> Maximum:
        end = time.monotonic() + seconds
        while self._unsettled() and time.monotonic() < end:
            self._split()
        upper = max([self.closed, self.best.value] + [-node.order for node in self.open[:1]])
        best, closed = self.best, not self._unsettled()
        return Maximum(best.value, upper, best.slopes, best.vector, self.theta, self.nodes, closed)

    def _unsettled(self) -> bool:
        if self.threshold is not None and self.best.value > self.threshold:
            return False
        return bool(self.open) and -self.open[0].order > self.level

    def _split(self) -> None:
        """Takes the most promising nodes and puts their children in their place."""
        chosen: list[_Node] = []
        while self.open and len(chosen) < TOGETHER and -self.open[0].order > self.level:
            chosen.append(heapq.heappop(self.open))
        lo, hi, theta = (
            torch.stack(parts).repeat_interleave(2, 0)
            for parts in zip(*((node.lo, node.hi, node.theta) for node in chosen), strict=True)
        )
        for i, node in enumerate(chosen):
            hi[2 * i, node.place] = lo[2 * i, node.place]
            lo[2 * i + 1, node.place] = hi[2 * i + 1, node.place]
        parents = torch.tensor([-node.order for node in chosen], dtype=torch.float64).repeat_interleave(2)
        children = self.J.on(lo, hi)
        found = upper_bound(children, theta, STAGES, self.level)
        self._add(children, torch.minimum(found.value, parents), found.theta)

    def _add(self, boxes: JacobianSet, bounds: Tensor, theta: Tensor) -> None:
        """Opens the boxes that may hold the maximum, after a look for worse slopes from their top eigenvectors."""
        X = density(boxes, theta)
        D, values, Q = alternate(self.J, self.J.steepest(X.top))
        place = int(values[:, -1].argmax())
        found = attained(self.J, D[place], Q[place, :, -1])
        self.best = max(self.best, found, key=lambda each: each.value)
        lost = boxes.radius * ((X.BXB * X.KXK).clamp_min(0).sqrt() - X.BXK.abs())
        places = lost.masked_fill(boxes.radius == 0, -torch.inf).argmax(1).tolist()
        for i, bound in enumerate(bounds.tolist()):
            self.nodes += 1
            if bound > self.level and bool((boxes.radius[i] > 0).any()):
                node = _Node(-bound, self.nodes, boxes.lo[i], boxes.hi[i], theta[i], places[i])
                heapq.heappush(self.open, node)
            else:
                self.closed = max(self.closed, bound)

"""Losses that ask for a margin: with a bounded Lipschitz constant, margins are radii.

Where two logits differ by at most sqrt 2 times the length of a change (`encoder=bounded head=orthonormal`), the answer
of a sample with margin y_l - max_(j != l) y_j > sqrt 2 r cannot change within the radius r. Source: Tsuzuku, Sato,
Sugiyama, "Lipschitz-margin training", 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from robode.data.motion import Motion, number
from robode.objectives.objective import Objective


class MarginHinge(Objective):
    """sum over j != l of max(0, m - (y_l - y_j)), averaged over the batch; l is the label.

    margin: m > 0, in logits. rotation, zoom, shift: of the training images, see `Motion`.

    Raises:
        BadInput: a margin that is no number > 0, or a motion that is none.
    """

    def __init__(self, margin: float = 0.5, rotation: float = 0.0, zoom: float = 0.0, shift: float = 0.0):
        self.motion = Motion(rotation, zoom, shift, "objective.margin_hinge")
        self.replayable = self.motion.still
        self.margin = number("objective.margin_hinge.margin", margin, above=True)

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        logits = network(self.motion(x))
        missing = functional.relu(self.margin - (logits.gather(1, labels[:, None]) - logits))
        others = torch.ones_like(missing).scatter(1, labels[:, None], 0.0)
        return {"margin_hinge": (missing * others).sum(1).mean()}


class MarginCrossEntropy(Objective):
    """t CE((y - sqrt 2 eps onehot(l))/t, l), averaged over the batch: the true class starts with a handicap.

    offset: eps >= 0, the L2 radius in data units that the handicap stands for where logits have the pairwise constant
    sqrt 2. temperature: t > 0; the smaller, the more the loss looks only at samples that lack the margin.
    rotation, zoom, shift: of the training images, see `Motion`.

    Raises:
        BadInput: an offset that is no number >= 0, a temperature that is none > 0, or a motion that is none.
    """

    def __init__(
        self,
        offset: float = 0.5,
        temperature: float = 0.25,
        rotation: float = 0.0,
        zoom: float = 0.0,
        shift: float = 0.0,
    ):
        self.motion = Motion(rotation, zoom, shift, "objective.margin_cross_entropy")
        self.replayable = self.motion.still
        self.offset = number("objective.margin_cross_entropy.offset", offset, above=False)
        self.temperature = number("objective.margin_cross_entropy.temperature", temperature, above=True)

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        logits = network(self.motion(x))
        handicap = torch.full_like(labels, -math.sqrt(2) * self.offset, dtype=logits.dtype)
        moved = logits.scatter_add(1, labels[:, None], handicap[:, None])
        loss = functional.cross_entropy(moved / self.temperature, labels) * self.temperature
        return {"margin_cross_entropy": loss}

"""LyaNet's delta-stable inference (Definition 5) and the radius that Theorem 3 gives it; docs/theory.md, section 23."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robode.config.levels import check_count, one_level
from robode.data.info import Samples
from robode.data.module import DataModule, spread
from robode.encoders import Control
from robode.errors import BadInput, JobFailed
from robode.network import Network
from robode.quantities import rate_lipschitz
from robode.quantities.quantity import Number, Quantity, row
from robode.quantities.visited import BATCH, Fall, along_path, asked_of, batches, exact_copy

DOUBLINGS = 8
logger = logging.getLogger(__name__)


class StableInference(Quantity):
    """Shares of `samples` test images that meet each condition of Definition 5, for the ODE by the reference solver in
    float64, `refine` states a layer; kappa is that of the run's loss (`asked_of`).

    stable_correct: the last state is classified correctly. stable_falling: dV/dt + kappa V <= 0 at all states of the
    path. stable_final: V(1) <= e^(-kappa) V(0), which is then the least delta that the sample allows, stable_delta (the
    median). stable_all: all three; stable_count: how many images that are.

    Theorem 3, for fields bound to the sample and a first state that is not: an image keeps its class within the radius
    r = kappa (log 2 - delta)/(L (1 - e^(-kappa))), in data units, in the max norm. L: the Lipschitz constant of
    x -> dV/dt, in units of 1/horizon and per data unit.

    stable_L_measured: the median over the images that are right of what gradients find within `eps` of each, from
      below, so that the radius is too large and no certificate. For a radius larger than eps L is sought in larger
      balls, up to 2^8 eps, until the radius lies within.
    stable_L_certified: from above, for all images and all states of the ball that holds the corners and all visited
      states; inf where none is known.
    stable_radius_measured, stable_radius_certified: the medians of r over the images that meet Definition 5, nothing
      where there are none. stable_radius_if_stable: with the measured L over all images that are right, as if they met
      it. No radius is a certificate: the theorem needs the second condition at every state that a perturbed path may
      visit, and it is looked at along the clean path, on a grid.

    Layers that solve no ODE, or one that the reference solver cannot solve, have stable_correct alone, of the network
    that runs.
    """

    name = "stable_inference"
    gives = (
        "stable_correct", "stable_falling", "stable_final", "stable_all", "stable_count", "stable_delta",
        "stable_L_measured", "stable_L_certified", "stable_radius_measured", "stable_radius_certified",
        "stable_radius_if_stable",
    )  # fmt: skip
    certain = ("stable_correct",)
    needs_classes = True

    def __init__(self, samples: int = 500, refine: int = 4, eps: float | str = 8 / 255, steps: int = 5):
        for key, count in {"samples": samples, "refine": refine, "steps": steps}.items():
            check_count(key, count)
        if not one_level("eps", eps):
            raise BadInput(f"eps={eps}: expected a number above 0")
        self.samples, self.refine, self.eps, self.steps = samples, refine, one_level("eps", eps), steps

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        kappa, _ = asked_of(network, folder)
        exact, samples = exact_copy(network), spread(data.split("test"), self.samples)
        name = type(network.flow).__name__
        try:
            if not network.flow.solves_an_ode:
                raise JobFailed(f"the layers of {name} solve no ODE")
            met = _Met.of([along_path(exact, x, labels, self.refine) for x, labels in batches(exact, samples)], kappa)
        except JobFailed as error:  # maybe of the reference solver; the network that runs has been scored before
            logger.warning("stable_inference: stable_correct alone: %s", error)
            with torch.no_grad():
                right = [exact(x).argmax(1) == labels for x, labels in batches(exact, samples)]
            return [row("stable_correct", _share(torch.cat(right)))]
        rows = [row(f"stable_{name}", _share(each)) for name, each in met.conditions.items()]
        rows += [row("stable_count", float(met.all.sum())), row("stable_delta", float(met.delta.median()))]
        if not network.flow.controlled or not isinstance(network.encoder, Control):
            logger.warning("stable_inference: the samples of %s enter through its first state: no radius", name)
            return rows
        return rows + self._radii(exact, samples, met, kappa)

    def _radii(self, network: Network, samples: Samples, met: _Met, kappa: float) -> list[Number]:
        """Of a network whose samples enter through the field alone."""
        T, box = network.flow.horizon, getattr(network.flow, "box", 0.0)
        above = T * rate_lipschitz.certified(network, max(met.reach, box * math.sqrt(network.flow.width)))
        right, L, within = met.conditions["correct"], [], []
        for (x, labels), delta in zip(batches(network, samples), torch.split(met.delta, BATCH), strict=True):
            found = self._measured(network, x, labels, delta, kappa)
            L.append(found[0])
            within.append(found[1])
        below = torch.cat(within)
        radii = {
            "measured": below[met.all],
            "certified": radius(met.delta, torch.full_like(below, above), kappa)[met.all],
            "if_stable": below[right],
        }
        rows = [row("stable_L_certified", above, "certified_upper")]
        if bool(right.any()):
            rows.append(row("stable_L_measured", float(torch.cat(L)[right].median())))
        return rows + [row(f"stable_radius_{name}", float(each.median())) for name, each in radii.items() if len(each)]

    def _measured(
        self, network: Network, x: Tensor, labels: Tensor, delta: Tensor, kappa: float
    ) -> tuple[Tensor, Tensor]:
        """L as found within eps, in units of 1/horizon, and the radius, (B,) each: where that is larger than eps, L is
        sought in balls of twice, four times, … the size, until the radius lies within."""
        T, eps = network.flow.horizon, self.eps
        first = L = T * rate_lipschitz.measured(network, x, labels, eps, self.steps)
        found = radius(delta, L, kappa)
        for _ in range(DOUBLINGS):
            if not bool((beyond := found > eps).any()):
                break
            L = torch.maximum(L, T * rate_lipschitz.measured(network, x, labels, 2 * eps, self.steps))
            found = torch.where(beyond, radius(delta, L, kappa).clamp_min(eps), found)
            eps = 2 * eps
        return first, found.clamp_max(eps)


def radius(delta: Tensor, L: Tensor, kappa: float) -> Tensor:
    """The largest eps of Eq. (15), delta <= log 2 - (L eps/kappa) (1 - e^(-kappa)), in the units of 1/L; 0 where even
    eps = 0 is too large. delta, L: (B,)."""
    found = kappa * (math.log(2) - delta) / (L * -math.expm1(-kappa))
    return torch.where(delta < math.log(2), found, 0.0)


@dataclass(frozen=True)
class _Met:
    """conditions: which samples meet correct, falling, final and all, (B,) each. delta: (B,); reach: the largest
    2-norm of a visited state."""

    conditions: dict[str, Tensor]
    delta: Tensor
    reach: float

    @property
    def all(self) -> Tensor:
        return self.conditions["all"]

    @classmethod
    def of(cls, falls: list[Fall], kappa: float) -> _Met:
        delta = torch.cat([fall.V[0] for fall in falls]) * math.exp(-kappa)
        found = {
            "correct": torch.cat([fall.right for fall in falls]),
            "falling": torch.cat([~fall.violated(kappa).any(0) for fall in falls]),
            "final": torch.cat([fall.V[-1] for fall in falls]) <= delta,
        }
        found["all"] = found["correct"] & found["falling"] & found["final"]
        return cls(found, delta, max(fall.reach for fall in falls))


def _share(which: Tensor) -> float:
    return float(which.double().mean())

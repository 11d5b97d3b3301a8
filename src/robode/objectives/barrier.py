"""The set of right answers kept, and reached, by the field: a barrier condition at random states."""

from __future__ import annotations

import math

from torch import Tensor

from robode.data.motion import number
from robode.network import Network
from robode.objectives.lyapunov import Shared, along_fields
from robode.objectives.objective import Objective


class Barrier(Objective):
    """mean over samples and states of max(0, -dh/dt - alpha h), h_y(eta) = log 2 - V_y(eta), V the cross-entropy of
    the head at the state: where V < log 2, class y has more than half of the probability (with truncate=gamma > 0, more
    than e^(-gamma)/2 of it).

    Where it is 0 on all states, {h >= 0} is kept by the flow (Ames et al. 2016), and from outside h rises to 0 at the
    rate alpha, so that V falls to log 2 only, not to 0. The set is asked to be invariant in place of the loss to be
    stable, which the LyaNet paper names as an outlook; the formula is robode's.

    alpha: > 0, in units of 1/t; samples, domain, scale, truncate: see `Shared`. Logs barrier_violated, the share of
    samples and states at which the condition does not hold.

    Raises:
        BadInput: values that make no sense, or fields that are not bound to the sample.
    """

    violation = "barrier_violated"

    def __init__(
        self,
        alpha: float = 4.0,
        samples: int = 512,
        domain: str = "hypersphere",
        scale: float = 15.0,
        truncate: float = 0.0,
    ):
        self.alpha = number("objective.barrier.alpha", alpha, above=True)
        self.states = Shared(samples, domain, scale, alpha, truncate, "objective.barrier")
        self.violated: Tensor | None = None

    def check(self, network: Network) -> None:
        self.states.check(network)

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        eta = self.states.draw(network.flow.width, x)
        found = along_fields(network, x, labels, eta, self.states.truncate)
        excess = (found.rate - self.alpha * (math.log(2) - found.value.detach())).clamp_min(0)
        self.violated = (excess.detach() > 0).to(excess.dtype).mean()
        return {"barrier": excess.mean()}

    def notes(self) -> dict[str, Tensor]:
        return {} if self.violated is None else {"barrier_violated": self.violated}

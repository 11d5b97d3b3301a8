"""Exponential fall of the loss along the field, asked for at random states: no ODE is solved while training."""

from __future__ import annotations

from torch import Tensor

from robode.network import Network
from robode.objectives.lyapunov import Shared, along_fields
from robode.objectives.objective import Objective


class LyapunovMC(Objective):
    """mean over samples and states of max(0, dV/dt + kappa V), V the cross-entropy of the head at the state.

    Monte Carlo LyaNet: Jimenez Rodriguez, Ames, Yue 2022, Algorithm 1 with Eq. (12), a mean in place of the sum. Where
    it is 0 on all states, the loss falls at least like e^(-kappa t) from the initial state on (Theorem 2). It bounds
    the loss along the paths of the flow only in that sense: it may be small, and large on the paths (docs/theory.md,
    section 22).

    samples, domain, scale, kappa, truncate: see `Shared`. V is taken as a number in kappa V: no gradient of the head.
    Logs lyapunov_violated, the share of samples and states at which the condition does not hold.

    Raises:
        BadInput: values that make no sense, or fields that are not bound to the sample.
    """

    violation = "lyapunov_violated"

    def __init__(
        self,
        samples: int = 512,
        domain: str = "hypersphere",
        scale: float = 15.0,
        kappa: float | str = "auto",
        truncate: float = 0.0,
    ):
        self.states = Shared(samples, domain, scale, kappa, truncate, "objective.lyapunov_mc")
        self.violated: Tensor | None = None

    def check(self, network: Network) -> None:
        self.states.check(network)

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        eta = self.states.draw(network.flow.width, x)
        found = along_fields(network, x, labels, eta, self.states.truncate)
        excess = (found.rate + self.states.rate(network) * found.value.detach()).clamp_min(0)
        self.violated = (excess.detach() > 0).to(excess.dtype).mean()
        return {"lyapunov_mc": excess.mean()}

    def notes(self) -> dict[str, Tensor]:
        return {} if self.violated is None else {"lyapunov_violated": self.violated}

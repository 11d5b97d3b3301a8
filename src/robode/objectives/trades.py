"""Accuracy on clean inputs, and answers that hardly change nearby (Zhang et al. 2019, Theoretically principled
trade-off between robustness and accuracy)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from robode.attacks.balls import Region, step_direction
from robode.attacks.pgd import TRAVEL
from robode.attacks.problem import attacking, gradient
from robode.errors import BadInput
from robode.evaluation.copies import evaluating
from robode.network import Network
from robode.objectives.adversarial import check_attack, fresh_draws
from robode.objectives.objective import OfClasses

START = 1e-3
"""Standard deviation of the first change: at x itself KL is at its minimum and has no gradient."""


class Trades(OfClasses):
    """CE(network(x), label) + beta max_x' KL(p(x) || p(x')), p = softmax(network(.)), x' within eps and the bounds.

    The two terms are logged as trades_clean and trades_gap. beta >= 0 trades the first for the second; eps, step_size:
    in data units, step_size null is 2.5 eps / steps; norm: linf or l2. x' comes from `steps` projected steps up KL, by
    the network in evaluation mode; the gradient in the weights goes through both p(x) and p(x'). The seed of the starts
    comes from torch's global generator, which is in every checkpoint.

    Raises:
        BadInput: beta is no number >= 0; else see `check_attack`.
    """

    def __init__(
        self, eps: float, beta: float = 6.0, norm: str = "linf", steps: int = 10, step_size: float | None = None
    ):
        check_attack("trades", eps, norm, steps, step_size, ("linf", "l2"))
        if not isinstance(beta, int | float) or not 0 <= beta < float("inf"):
            raise BadInput(f"objective.trades.beta: expected a number >= 0, got {beta}")
        self.eps, self.beta, self.norm, self.steps = float(eps), beta, norm, steps
        self.step_size = TRAVEL * self.eps / steps if step_size is None else step_size

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        moved = self._farthest(network, x, labels)
        there = network(moved).log_softmax(1)
        here = network(x).log_softmax(1)  # last: the logged accuracy is that of the last forward pass
        return {
            "trades_clean": functional.nll_loss(here, labels),
            "trades_gap": self.beta * functional.kl_div(there, here, reduction="batchmean", log_target=True),
        }

    def _farthest(self, network: Network, x: Tensor, labels: Tensor) -> Tensor:
        """x' like x, detached, where the answer's distribution has moved far from that at x."""
        near = Region(x, x.new_full((len(x),), self.eps), self.norm, network.info.bounds)
        with evaluating(network), attacking(network):
            p = network(x).softmax(1)

            def gap(logits: Tensor, labels: Tensor) -> Tensor:
                """KL(p || softmax(logits)) but for a constant: (B,)."""
                return -(p * logits.log_softmax(1)).sum(1)

            moved = near.back(x + START * fresh_draws(x).normal(*x.shape[1:]).to(x.dtype))
            for _ in range(self.steps):
                _, _, grad = gradient(network, gap, moved, labels)
                moved = near.back(moved + self.step_size * step_direction(grad, self.norm))
        return moved

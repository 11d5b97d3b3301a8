"""The loss of a classifier on the worst inputs nearby: adversarial training (Madry et al. 2018, Towards deep learning
models resistant to adversarial attacks)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robode.attacks.balls import NORMS
from robode.attacks.pgd import pgd
from robode.corruptions.noise import Draws
from robode.errors import BadInput
from robode.evaluation.copies import evaluating
from robode.network import Network
from robode.objectives.objective import OfClasses


class Adversarial(OfClasses):
    """Cross-entropy at x', which PGD finds within eps of x and the bounds of the data: the saddle point problem
    min_weights E max_x' loss, with the gradient in the weights at a fixed x' (Danskin's theorem).

    eps, step_size: in data units, step_size null is 2.5 eps / steps; norm: linf, l2 or l1. Each batch is attacked anew
    from a random start in the ball, by the network in evaluation mode; every sample takes all the steps. The seed of
    the starts comes from torch's global generator, which is in every checkpoint. A step costs steps + 2 forward passes.

    Raises:
        BadInput: see `check_attack`.
    """

    def __init__(self, eps: float, norm: str = "linf", steps: int = 10, step_size: float | None = None):
        check_attack("adversarial", eps, norm, steps, step_size)
        self.eps, self.norm, self.steps, self.step_size = float(eps), norm, steps, step_size

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        with evaluating(network):
            worst = pgd(
                network, x, labels, eps=self.eps, norm=self.norm, steps=self.steps, step_size=self.step_size,
                bounds=network.info.bounds, draws=fresh_draws(x), early=False,
            )  # fmt: skip
        return {"adversarial": functional.cross_entropy(network(worst), labels)}


def fresh_draws(x: Tensor) -> Draws:
    """Random numbers for x (B, *shape) that no other batch gets, from one number of torch's global generator."""
    return Draws([int(torch.randint(2**62, ()))], range(len(x)), x.device)


def check_attack(
    objective: str, eps: object, norm: object, steps: object, step_size: object, norms: tuple[str, ...] = NORMS
) -> None:
    """Refuse, by the name of its key, an eps that is no number >= 0, a norm that is not among `norms`, steps that are
    no whole number >= 1, and a step_size that is neither null nor a number > 0. Raises `BadInput`."""
    place = f"objective.{objective}"
    if not isinstance(eps, int | float) or not 0 <= eps < float("inf"):
        raise BadInput(f"{place}.eps: expected a number >= 0, got {eps}")
    if norm not in norms:
        raise BadInput(f"{place}.norm: expected one of {', '.join(norms)}, got {norm}")
    if type(steps) is not int or steps < 1:
        raise BadInput(f"{place}.steps: expected a whole number >= 1, got {steps}")
    if step_size is not None and not (isinstance(step_size, int | float) and 0 < step_size < float("inf")):
        raise BadInput(f"{place}.step_size: expected null or a number > 0, got {step_size}")

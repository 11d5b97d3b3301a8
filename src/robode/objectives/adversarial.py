"""The loss of a classifier on the worst inputs nearby: adversarial training (Madry et al. 2018, Towards deep learning
models resistant to adversarial attacks)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robode.attacks.balls import NORMS
from robode.attacks.pgd import pgd
from robode.attacks.problem import make_problem
from robode.config.levels import one_level
from robode.corruptions.noise import PerSampleRNG
from robode.data.batches import evaluating
from robode.errors import BadInput
from robode.network import Network
from robode.objectives.objective import Objective


class Adversarial(Objective):
    """Cross-entropy at x', which PGD finds within eps of x and the bounds of the data: the saddle point problem
    min_weights E max_x' loss, with the gradient in the weights at a fixed x' (Danskin's theorem).

    eps, step_size: in data units, step_size null is 2.5 eps / steps; norm: linf, l2 or l1. Each batch is attacked anew
    from a random start in the ball, by the network in evaluation mode; every sample takes all the steps. The seed of
    the starts comes from torch's global generator, which is in every checkpoint. A step costs steps + 2 forward passes.

    Raises:
        BadInput: see `check_attack`.
    """

    def __init__(self, eps: float | str, norm: str = "linf", steps: int = 10, step_size: float | None = None):
        self.eps = check_attack("adversarial", eps, norm, steps, step_size)
        self.norm, self.steps, self.step_size = norm, steps, step_size

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        with evaluating(network):
            problem = make_problem(
                network, x, labels, eps=self.eps, norm=self.norm, bounds=network.info.bounds, rng=fresh_rng(x)
            )
            worst = pgd(problem, steps=self.steps, step_size=self.step_size, early=False)
        return {"adversarial": functional.cross_entropy(network(worst), labels)}


def fresh_rng(x: Tensor) -> PerSampleRNG:
    """Random numbers for x (B, *shape) that no other batch gets, from one number of torch's global generator."""
    return PerSampleRNG([int(torch.randint(2**62, ()))], range(len(x)), x.device)


def check_attack(
    objective: str, eps: float | str, norm: str, steps: int, step_size: float | None, norms: tuple[str, ...] = NORMS
) -> float:
    """eps as a number. Raises `BadInput`, by the name of its key, for an eps that is no number >= 0, a norm that is not
    among `norms`, steps that are no whole number >= 1, and a step_size that is neither null nor a number > 0."""
    place = f"objective.{objective}"
    if norm not in norms:
        raise BadInput(f"{place}.norm: expected one of {', '.join(norms)}, got {norm}")
    if type(steps) is not int or steps < 1:
        raise BadInput(f"{place}.steps: expected a whole number >= 1, got {steps}")
    if step_size is not None and not (isinstance(step_size, int | float) and 0 < step_size < float("inf")):
        raise BadInput(f"{place}.step_size: expected null or a number > 0, got {step_size}")
    return one_level(f"{place}.eps", eps)

"""The attacks on one network whose disagreement shows hidden gradients: what masking_checks judges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from robode.attacks.balls import SMOOTH, beside, length
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import Model, attacking, gradient, loss_named, make_problem
from robode.attacks.square import square
from robode.corruptions.noise import BLOCK, PerSampleRNG
from robode.corruptions.perturbation import Bounds, clip
from robode.evaluation.copies import DRAWS
from robode.masking.checks import (
    Check,
    black_box,
    large_eps,
    ordering,
    random_gradients,
    rescaled,
    saturation,
    transfer,
    zero_gradients,
)
from robode.tasks.classification import margin, misclassified

MASKING = DRAWS + 1  # third word of the draws: not that of a suite's perturbations
USES = ("noise", "fgsm", "pgd", "square", "margin", "rescaled", "transfer", "large")  # second word: by place
BATCH = 5 * BLOCK
FAR_RESTARTS = 5  # where PGD may go everywhere, a single start can end on a far plateau

Attack = Callable[[Tensor, Tensor, PerSampleRNG], Tensor]
"""(x (B, *shape) in data units, labels (B,), draws of these samples) -> x' like x."""


@dataclass(frozen=True)
class Trial:
    """A network in eval mode, samples x (n, *shape) in data units with labels (n,), and the accuracy in question: that
    under PGD on the cross-entropy with `steps` steps from `restarts` starts within `eps` in `norm`.

    bounds: of the data. queries: of Square, for each sample. seed: of the noise and of all random starts.
    """

    model: nn.Module
    x: Tensor
    labels: Tensor
    eps: float
    norm: str
    bounds: Bounds | None
    steps: int
    restarts: int
    queries: int
    seed: int

    def findings(self, baseline: Model, title: str) -> tuple[list[Check], dict[str, Tensor]]:
        """The checks, and who is right under "noise", "fgsm", …: (n,) bool each. What is fallen is not attacked again.

        baseline: whose adversarials are carried over; title: its name in a sentence.
        """
        gradients, logits = self.gradients()
        right = {"clean": ~misclassified(logits, self.labels)}
        right |= self.weak(right["clean"])
        right["pgd"] = self.right("pgd", partial(self.pgd, restarts=self.restarts), right["clean"])
        right |= self.other(baseline, logits, right["pgd"])
        losses = {"margin of the logits": right["margin"], "cross-entropy of rescaled logits": right["rescaled"]}
        return [
            zero_gradients(gradients),
            random_gradients(gradients, self.gradients()[0]),
            saturation(logits, self.labels, right["pgd"], right["rescaled"]),
            ordering(right["noise"], right["fgsm"], right["pgd"]),
            black_box(right["pgd"], right["square"]),
            self.far(logits),
            rescaled(right["pgd"], losses),
            transfer(right["pgd"], right["transfer"], title),
        ], right

    def weak(self, standing: Tensor) -> dict[str, Tensor]:
        """Which of the samples `standing` (n,) bool are right under "noise" and "fgsm": (n,) bool each."""
        attacks: dict[str, Attack] = {"noise": self.noise, "fgsm": self.fgsm}
        return {name: self.right(name, attack, standing) for name, attack in attacks.items()}

    def other(self, baseline: Model, logits: Tensor, standing: Tensor) -> dict[str, Tensor]:
        """The same under "square" (not for l1, which it does not know), "margin", "rescaled" and "transfer".

        logits: (n, classes), of x.
        """
        scale = _spread(margin(logits, self.labels))
        attacks: dict[str, Attack] = {
            "margin": partial(self.pgd, loss="margin"),
            "rescaled": partial(self.pgd, model=lambda x: self.model(x) / scale),
            "transfer": partial(self.pgd, model=baseline),
        }
        if self.norm in SMOOTH:
            attacks["square"] = self.square
        return {name: self.right(name, attack, standing) for name, attack in attacks.items()}

    def far(self, logits: Tensor, loss: str = "ce") -> Check:
        """`large_eps` of PGD on the loss. logits: (n, classes), of x."""
        eps = extent(self.x, self.norm, self.bounds)
        attack = partial(self.pgd, loss=loss, eps=eps, restarts=FAR_RESTARTS)
        answers = self.answers("large", attack, ~misclassified(logits, self.labels))
        who = "PGD" if loss == "ce" else f"PGD ({loss})"
        return large_eps(self.labels, logits.argmax(dim=1), answers, f"{self.norm} eps = {eps:.3g}", who)

    def gradients(self, loss: str = "ce") -> tuple[Tensor, Tensor]:
        """Of a loss of classifiers with respect to x, like x, and the logits (n, classes)."""
        parts = zip(torch.split(self.x, BATCH), torch.split(self.labels, BATCH), strict=True)
        with attacking(self.model):
            found = [gradient(self.model, loss_named(loss), x, labels) for x, labels in parts]
        return torch.cat([grad for _, _, grad in found]), torch.cat([logits for _, logits, _ in found])

    @torch.no_grad()
    def answers(self, use: str, attack: Attack, standing: Tensor) -> Tensor:
        """The network's classes (n,) at x' of the samples `standing` (n,) bool; -1 for the others and for no answer."""
        found = torch.full_like(self.labels, -1)
        for start in range(0, len(found), BATCH):
            part = range(start, min(start + BATCH, len(found)))
            rows = standing[part.start : part.stop].nonzero()[:, 0]
            if len(rows):
                draws = PerSampleRNG((self.seed, USES.index(use), MASKING), part, self.x.device).of(rows)
                chosen = start + rows
                logits = self.model(attack(self.x[chosen], self.labels[chosen], draws))
                found[chosen] = logits.argmax(dim=1).where(logits.isfinite().all(dim=1), -1)
        return found

    def right(self, use: str, attack: Attack, standing: Tensor) -> Tensor:
        """Which of the samples `standing` are right at x', (n,) bool."""
        return self.answers(use, attack, standing) == self.labels

    def noise(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """x + eps times a random direction: a corner of the cube (linf), a point of the sphere (l2, l1)."""
        z = draws.normal(*x.shape[1:])
        z = z.sign() if self.norm == "linf" else z / beside(length(z, self.norm), z)
        return clip(x + self.eps * z, self.bounds)

    def fgsm(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        return fgsm(make_problem(self.model, x, labels, eps=self.eps, norm=self.norm, bounds=self.bounds))

    def pgd(
        self,
        x: Tensor,
        labels: Tensor,
        draws: PerSampleRNG,
        *,
        model: Model | None = None,
        loss: str = "ce",
        eps: float | None = None,
        restarts: int = 1,
    ) -> Tensor:
        """On the network, within the eps in question and once, where nothing else is said."""
        problem = make_problem(
            self.model if model is None else model, x, labels, eps=self.eps if eps is None else eps, norm=self.norm,
            bounds=self.bounds, rng=draws,
        )  # fmt: skip
        return pgd(problem, loss=loss, steps=self.steps, restarts=restarts)

    def square(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        problem = make_problem(
            self.model, x, labels, eps=self.eps, norm=self.norm, bounds=self.bounds, rng=draws
        )  # fmt: skip
        return square(problem, queries=self.queries)


def extent(x: Tensor, norm: str, bounds: Bounds | None) -> float:
    """A radius at which the ball around each of the samples x (n, *shape) holds all of them, and all of the bounds."""
    flat = x.flatten(1)
    width = flat.amax(dim=0) - flat.amin(dim=0) if bounds is None else torch.full_like(flat[0], bounds[1] - bounds[0])
    return float(length(width[None], norm))


def _spread(margins: Tensor) -> float:
    """Root mean square of the margins (n,): logits divided by it keep a cross-entropy of ordinary size."""
    size = float(margins.double().square().mean().sqrt())
    return size if 0 < size < math.inf else 1.0

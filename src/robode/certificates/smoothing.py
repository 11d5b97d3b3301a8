"""Randomised smoothing: a probabilistic L2 certificate for any network (Cohen, Rosenfeld and Kolter, ICML 2019).

Theorem 1 there, with p_B = 1 - p_A. Let g(x) = argmax_c P[f(x + e) = c] with e ~ N(0, sigma^2 I). If
P[f(x + e) = A] >= p_A > 1/2, then g(x') = A for all ||x' - x|| < sigma Phi^-1(p_A); this is their Eq. (3).

Their procedure CERTIFY chooses A from n0 draws and bounds p_A from n others by Clopper and Pearson's interval
(Biometrika 1934), so that its answer and radius are wrong with probability alpha at most (their Proposition 2).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.special import betaincinv, ndtri
from torch import Tensor, nn

from robode.config.levels import check_count, noise_levels
from robode.corruptions.noise import PerSampleRNG
from robode.corruptions.perturbation import Batch, Curve, Perturbation, Scoring
from robode.errors import BadInput
from robode.tasks.task import Task

ABSTAIN = -1
FORWARD = 500  # noisy images at a time
ENTRIES = 2**21  # of noise drawn at a time for a block of images: 8 MiB


def lower_confidence_bound(k: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Clopper and Pearson's one-sided lower bound of a probability of which n draws gave k: it holds with probability
    >= 1 - alpha whatever the true one. The p at which k or more have probability alpha; 0 for k = 0."""
    k = np.asarray(k, dtype=float)
    return np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0)


def certified_radius(k: np.ndarray, n: int, sigma: float, alpha: float) -> np.ndarray:
    """sigma Phi^-1 of the lower bound: the radius that holds with probability >= 1 - alpha; 0 where it is <= 1/2."""
    return np.maximum(sigma * ndtri(lower_confidence_bound(k, n, alpha)), 0.0)


class Smoothing(Perturbation):
    """Samples whose smoothed answer is right and certified at an L2 radius, in data units.

    sigma: of the noise, in data units, not clipped; n0 draws choose the class and n others bound its probability, so
    that the radius of each single sample holds with probability >= 1 - alpha. Where no class is proven to have more
    than half, the procedure abstains, which counts as wrong, at radius 0 too. Networks trained without noise mostly
    get nothing: smoothing asks them about pictures that they have never seen.
    """

    name = "smoothing"
    norm = "l2"
    in_data_units = True
    needs_classes = True

    def __init__(
        self,
        radii: float | Sequence[float],
        sigma: float,
        n0: int = 100,
        n: int = 1000,
        alpha: float = 0.001,
        suite: str = "smoothing",
    ) -> None:
        super().__init__(suite, noise_levels("suite.smoothing.radii", radii, math.inf))
        if not (isinstance(sigma, int | float) and 0 < sigma < math.inf):
            raise BadInput(f"suite.smoothing.sigma={sigma}: expected a number above 0")
        if not (isinstance(alpha, int | float) and 0 < alpha < 0.5):
            raise BadInput(f"suite.smoothing.alpha={alpha}: expected a number strictly between 0 and 0.5")
        for key, count in (("n0", n0), ("n", n)):
            check_count(f"suite.smoothing.{key}", count)
        self.sigma, self.n0, self.n, self.alpha = float(sigma), n0, n, float(alpha)
        self.severity_unit = f"radius at {100 * (1 - self.alpha):g} %"
        largest = float(certified_radius(np.array([n]), n, self.sigma, self.alpha)[0])
        if max(self.severities) > largest:
            raise BadInput(
                f"suite.smoothing.radii={max(self.severities):g}: n={n} draws can certify {largest:.4g} at most; "
                "expected smaller radii, a larger n or a larger sigma"
            )

    def perturbed(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Iterator[Tensor]:
        """The inputs as they are."""
        return (batch.x for _ in levels)

    def scores(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Curve:
        """Which smoothed answers are right and certified at each radius; the votes are counted once."""
        assert batch.rng is not None, "smoothing needs random numbers for these images"
        scoring = Scoring(network, task, batch)
        with torch.inference_mode():
            answers, radii = self.certify(network, batch.x, copy.deepcopy(batch.rng))
        for level in levels:
            scoring.add(((answers == batch.targets) & (radii >= level)).float(), batch.x)
        return scoring.curve

    def certify(self, network: nn.Module, x: Tensor, draws: PerSampleRNG) -> tuple[Tensor, Tensor]:
        """The smoothed answers, ABSTAIN where there is none, and their radii, (B,) int64 and (B,) float64.

        x: (B, *shape) in data units; draws: of these images.
        """
        guess = self._votes(network, x, draws, self.n0).argmax(1)
        votes = self._votes(network, x, draws, self.n).gather(1, guess[:, None])[:, 0]
        found = certified_radius(votes.cpu().numpy(), self.n, self.sigma, self.alpha)
        radii = torch.from_numpy(found).to(x.device)
        return torch.where(radii > 0, guess, ABSTAIN), radii

    def _votes(self, network: nn.Module, x: Tensor, draws: PerSampleRNG, count: int) -> Tensor:
        """How often each class is answered for x + noise, (B, classes) int64; logits that are not finite vote for none.

        The noise comes in pieces whose size does not depend on the batch, so that each image always gets the same.
        """
        piece = max(1, min(count, ENTRIES // (50 * math.prod(x.shape[1:]))))
        votes: Tensor | int = 0
        for start in range(0, count, piece):
            size = min(piece, count - start)
            noisy = (x[:, None] + self.sigma * draws.normal(size, *x.shape[1:])).flatten(0, 1)
            logits = torch.cat([network(part) for part in torch.split(noisy, FORWARD)])
            ones = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
            ones *= logits.isfinite().all(1, keepdim=True)
            votes = votes + ones.reshape(len(x), size, -1).sum(1)
        assert isinstance(votes, Tensor)
        return votes

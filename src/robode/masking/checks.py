"""Signs that an attack failed because the gradients are hidden and not because the network is robust.

Pure functions of what was found on n samples: which of them stay right under an attack, (n,) bool, their logits, their
input gradients. Sources: Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018;
Carlini et al., "On evaluating adversarial robustness", 2019; Pintor et al., "Indicators of attack failure", 2022.

Each check allows a share of misbehaving samples (TOLERANCE and others below), and fails where an exact one-sided test
at LEVEL says that the share is larger: a binomial one of a count, McNemar's of two attacks on the same samples. So a
network within the tolerances fails one check with a probability of at most LEVEL, and ten with at most ten times that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import bdtrc
from torch import Tensor, nn

from robode.attacks.balls import length
from robode.corruptions.perturbation import Bounds
from robode.masking.file import verdict_text
from robode.tasks.classification import margin
from robode.tasks.measure import percent

TOLERANCE = 0.01
"""Share of all samples, not only of those that were looked at, that may misbehave before a check fails."""

SATURATED = 0.5
"""Share of the samples whose cross-entropy may round to 0 although PGD on smaller logits finds more."""

LOSSES_DIFFER = 0.05
"""Share of the samples that another loss, or a long random search, may find on an honest network: on small images both
find more than PGD with one loss."""

ANY = ", or PGD on another loss,"
LEVEL = 0.005
"""Probability with which a check may fail on a network that is within the tolerance."""

ANOTHER_GRADIENT = 0.025
"""Share of the samples that PGD along other gradients, as good as another start, may find on an honest network."""

SAME = 0.01
"""Relative difference of two evaluations of one gradient: far above rounding, far below noise."""


@dataclass(frozen=True)
class Check:
    """What was found (value) and what is allowed (threshold), both shares of the samples; passed: value <= threshold.

    sentence: the finding for people; reason: why a robust accuracy fails the check, "" if it passed.
    """

    name: str
    value: float
    threshold: float
    sentence: str
    reason: str

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the robust accuracy."""
        return not self.reason


def dead(gradients: Tensor) -> Tensor:
    """Which samples give an attack nothing to follow, (n,) bool. gradients: of the loss it climbs, (n, *shape)."""
    flat = gradients.flatten(1)
    return (flat == 0).all(dim=1) | ~flat.isfinite().all(dim=1)


def zero_gradients(dead: Tensor, loss: str = "cross-entropy", which: str = "") -> Check:
    """How many samples are `dead`, (n,) bool. loss: that the attack climbs; which: of the samples, for people, where
    only those count on which it can do harm (right under the attack, and not certified)."""
    share, threshold = _share(dead), allowed(TOLERANCE, len(dead))
    sentence = f"{percent(share)} of the samples {which}have no input gradient: that of the {loss} is 0 or not finite."
    return _check("zero_gradients", share, threshold, sentence, "the input gradients vanish")


def random_gradients(first: Tensor, second: Tensor) -> Check:
    """How many samples have another gradient when asked again. first, second: (n, *shape)."""
    size = torch.maximum(_length(first), _length(second))
    share, threshold = _share(_length(first - second) > SAME * size), allowed(TOLERANCE, len(first))
    sentence = f"Asked twice, the network gives {percent(share)} of the samples two different input gradients."
    return _check("random_gradients", share, threshold, sentence, "the input gradients are random")


def saturated_at(logits: Tensor, labels: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Whose cross-entropy is 0, (n,) bool, and the median and 95th percentile of the margins of the logits.

    logits: (n, classes) float32. The cross-entropy is 0 from a margin of log(2^24) = 16.6 on: exp(-margin) is lost
    beside 1, and with it the part of the gradient that belongs to the sample's own class; from 104 on nothing is left.
    """
    zero = nn.functional.cross_entropy(logits, labels, reduction="none") == 0
    size = -margin(logits, labels).double()
    middle, far = size.quantile(size.new_tensor([0.5, 0.95])).tolist()
    return zero, (middle, far)


def saturation(zero: Tensor, margins: tuple[float, float], pgd: Tensor, unsaturated: Tensor) -> Check:
    """How many samples are so far from any other answer that their cross-entropy is 0 in float32, where that hurts.

    Well-trained networks get there too, and it counts only where PGD finds more once the logits are scaled down.
    zero, margins: of `saturated_at`; unsaturated: right after that, among those of `pgd`.
    """
    share, (middle, far) = _share(zero), margins
    found = _share(pgd & ~unsaturated)
    harmless = found <= allowed(LOSSES_DIFFER, len(pgd))
    sentence = (
        f"The cross-entropy of {percent(share)} of the samples is exactly 0 in float32 (margin of the logits: median "
        f"{middle:.3g}, 95th percentile {far:.3g})"
    )
    if share > SATURATED and harmless:
        sentence += f", without harm: with the logits scaled down PGD finds {percent(found)} more"
    threshold = 1.0 if harmless else SATURATED
    return _check("saturation", share, threshold, sentence + ".", "the cross-entropy is saturated")


def ordering(noise: Tensor, fgsm: Tensor, pgd: Tensor, who: str = "PGD", alone: bool = False) -> Check:
    """Whether each attack leaves no more right than the weaker one before it: random noise, one step, many steps.

    who: the attack with many steps, for people; so in the checks below. alone: only that one is judged, by both of the
    others; one step on another loss may do worse than noise, which is not its fault.
    """
    steps = [_excess(pgd if alone else fgsm, noise), _excess(pgd, fgsm)]
    value, threshold = max(steps, key=lambda pair: pair[0] - pair[1])
    sentence = (
        f"Right under random noise {percent(_share(noise))}, under FGSM {percent(_share(fgsm))}, under {who} "
        f"{percent(_share(pgd))}: expected {'the last to be the least' if alone else 'to fall'}, or to rise by no "
        f"more than {percent(threshold)}."
    )
    return _check("ordering", value, threshold, sentence, "a weaker attack does better than a stronger one")


def black_box(known: Tensor, square: Tensor, who: str = "PGD") -> Check:
    """Whether a random search without gradients finds what gradients do not show. square: right after it.

    known: right after PGD in each of three ways, on the cross-entropy, the margin and rescaled logits: what the choice
    of a loss hides is another check's. So below.
    """
    reason = f"a black-box attack beats {who}"
    return _missed("black_box", (known, who + ANY), square, "Square, which needs no gradients,", reason, LOSSES_DIFFER)


def smoothed(known: Tensor, around: Tensor, who: str = "PGD") -> Check:
    """Whether gradients that are averaged over noise lead where the network's own do not. around: right after those."""
    reason = f"gradients that are averaged over noise beat {who}"
    title = "PGD on gradients averaged over noise"
    return _missed("smoothed_gradients", (known, who + ANY), around, title, reason, ANOTHER_GRADIENT)


def rescaled(pgd: Tensor, margins: Tensor, smaller: Tensor, who: str = "PGD") -> Check:
    """Whether PGD finds many more with a loss that no scale of the logits can saturate.

    margins, smaller: right after PGD on the margin of the logits, and on the cross-entropy of logits that are scaled
    down, among those of `pgd`.
    """
    others = {"margin of the logits": margins, "cross-entropy of rescaled logits": smaller}
    name = min(others, key=lambda each: int(others[each].sum()))
    reason = "the scale of the logits hides adversarials"
    return _missed("logit_rescaling", (pgd, who), others[name], f"PGD on the {name}", reason, LOSSES_DIFFER)


def transfer(known: Tensor, carried: Mapping[str, Tensor], who: str = "PGD") -> Check:
    """Whether what PGD finds on other networks fools this one where its own gradients do not. carried: right after
    that, by the name of the other network in a sentence; all together count."""
    reason, names = f"another network's adversarials beat {who}", list(carried)
    together = torch.stack([known, *carried.values()]).all(dim=0)
    listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    return _missed("transfer", (known, who + ANY), together, f"What PGD finds on {listed}", reason, ANOTHER_GRADIENT)


def large_eps(labels: Tensor, clean: Tensor, answers: Tensor, eps: str, who: str = "PGD") -> Check:
    """Whether PGD fools every sample when it may go as far as the other samples are.

    Each ball then holds all samples, so a network that gives two of them different answers has the true accuracy 0.
    One that always gives the same answer keeps its share: rightly, but its robustness is of no use.
    clean, answers: of the network before and after, (n,), -1 for none; eps: for people.
    """
    left, threshold = _share(answers == labels), allowed(TOLERANCE, len(labels))
    every = torch.cat([clean, answers])
    given = torch.unique(every[every >= 0])
    if len(given) == 1 and left > threshold:
        sentence = (
            f"The network answered class {int(given)} wherever it was asked, so no attack can get below that class's "
            f"share of {percent(left)}: the number is right, but of a constant and not of a classifier."
        )
        return _check("large_eps", left, threshold, sentence, "the network always gives the same answer")
    sentence = f"{who} with {eps} leaves {percent(left)} right"
    if len(torch.unique(clean)) > 1:
        sentence += "; so large a ball holds samples with other answers, and the truth is 0.0 %"
    return _check("large_eps", left, threshold, sentence + ".", "not even unlimited changes fool every sample")


def beaten(right: Tensor, others: Mapping[str, Tensor], who: str) -> Check:
    """Whether other attacks, each within the same ball, fool samples that survive this one.

    right: under this one, (n,) bool; others: right after each other one, by its name, on the same samples. All
    together count; the reason names the one that finds most, where it finds more than is allowed by itself.
    """
    together = _share(right & ~torch.stack([right, *others.values()]).all(dim=0))
    threshold = allowed(LOSSES_DIFFER, len(right))
    finds = {name: _share(right & ~each) for name, each in others.items()}
    best = max(finds, key=lambda name: finds[name], default="")
    reason = f"other attacks together find {percent(together)} more"
    if best and finds[best] > threshold:
        reason = f"{best} finds {percent(finds[best])} more"
    most = f", {best} alone {percent(finds[best])}" if len(finds) > 1 and together else ""
    sentence = (
        f"Other attacks within the same ball fool {percent(together)} of the samples that {who} does not{most}; up to "
        f"{percent(threshold)} is allowed."
    )
    return _check("beaten", together, threshold, sentence, reason)


def verdict(checks: Sequence[Check]) -> str:
    """ "passes 8 gradient-masking checks", or "fails 2 of 8 gradient-masking checks: …" with every reason."""
    return verdict_text([check.reason for check in checks if not check.passed], len(checks))


def extent(x: Tensor, norm: str, bounds: Bounds | None) -> float:
    """A radius at which the ball around each of the samples x (n, *shape) holds all of them, and all of the bounds."""
    flat = x.flatten(1)
    width = flat.amax(dim=0) - flat.amin(dim=0) if bounds is None else torch.full_like(flat[0], bounds[1] - bounds[0])
    return float(length(width[None], norm))


def size_of(margins: Tensor) -> float:
    """Root mean square of the margins (n,): logits divided by it keep a cross-entropy of ordinary size."""
    size = float(margins.double().square().mean().sqrt())
    return size if 0 < size < math.inf else 1.0


def _check(name: str, value: float, threshold: float, sentence: str, reason: str) -> Check:
    return Check(name, value, threshold, sentence, reason if value > threshold else "")


def _missed(name: str, attack: tuple[Tensor, str], other: Tensor, who: str, reason: str, tolerance: float) -> Check:
    """The share of samples that survive the attack (the first, with its name) and not the other one."""
    right, title = attack
    found = _share(right & ~other)
    threshold = allowed(tolerance, len(right))
    sentence = (
        f"{who} fools {percent(found)} of the samples that {title} does not; up to {percent(threshold)} is allowed."
    )
    return _check(name, found, threshold, sentence, reason)


def allowed(tolerance: float, n: int) -> float:
    """The largest share of n samples that does not show, at LEVEL, a true share above the tolerance (binomial test)."""
    return _largest(n, tolerance) / n


def _excess(strong: Tensor, weak: Tensor) -> tuple[float, float]:
    """How much more is right under the stronger attack, and how much of that is allowed: TOLERANCE, or what McNemar's
    test does not reject where in truth neither is better, given how many samples the two disagree on."""
    worse, differ = int((strong & ~weak).sum()), int((strong ^ weak).sum())
    return (2 * worse - differ) / len(strong), max(TOLERANCE, (2 * _largest(differ, 0.5) - differ) / len(strong))


def _largest(n: int, p: float) -> int:
    """The smallest k with P[Bin(n, p) > k] <= LEVEL."""
    return int(np.argmax(bdtrc(np.arange(n + 1), n, p) <= LEVEL))


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _length(gradients: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradients.flatten(1).double(), dim=1)

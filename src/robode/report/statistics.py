"""Statistics of a table's cells: pure functions of arrays.

The unit of replication is the training seed. Noisy copies of the test images and the images themselves are shared by
the seeds, so they are averaged first; their spread is reported beside the interval and never enters it.
"""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri, stdtrit

from robode.errors import BadInput
from robode.report.layout import Plain
from robode.runs.identity import differences

LEVEL = 0.95
WIDEST = 10.0
"""Percentage points: a published value within a prediction interval of a larger half-width is no agreement."""
MANY = 10
"""Seeds whose standard deviation is believed where it says that more of them would not help."""
SMALLEST_P = 1e-12
"""What the Fourier transform behind a p-value of several copies can resolve."""
STEPS = 255
"""In which differences of scores that are no bits are counted."""

Verdict = Literal["agrees", "higher", "lower", "spread", "undecided", "not run"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What n independent values say; all in the values' unit, NaN where n is too small.

    std: with n - 1. t_low, t_high: 95 % interval of the mean. pi_low, pi_high: 95 % prediction interval, which
    contains one further value of the same (normal) distribution in 95 of 100 cases.
    """

    n: int
    mean: float
    std: float
    t_low: float
    t_high: float
    pi_low: float
    pi_high: float


def estimate(values: npt.ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean, standard deviation, t-interval and prediction interval of independent values (n,)."""
    array = _one_dimensional(values)
    n = array.size
    mean = float(array.mean()) if n else math.nan
    with np.errstate(invalid="ignore"):  # an infinite value has no spread
        std = float(array.std(ddof=1)) if n > 1 else math.nan
    of_mean, of_next = (half * std for half in half_widths(n, level))
    return Estimate(n, mean, std, mean - of_mean, mean + of_mean, mean - of_next, mean + of_next)


def half_widths(n: int, level: float = LEVEL) -> tuple[float, float]:
    """Half-widths, in standard deviations, of the t-interval of the mean and of the prediction interval.

    t·√(1/n) and t·√(1 + 1/n) with t the (1 + level)/2 quantile of Student's t with n - 1 degrees of freedom
    (Hahn and Meeker, Statistical Intervals, 1991, §4.2 and §4.7). NaN for n < 2.
    """
    if n < 2:
        return math.nan, math.nan
    t = float(stdtrit(n - 1, (1 + level) / 2))
    return t * math.sqrt(1 / n), t * math.sqrt(1 + 1 / n)


def verdict(
    published: float, values: npt.ArrayLike, *, upper: npt.ArrayLike | None = None, widest: float = WIDEST
) -> Verdict:
    """Whether one published number could be a further one of ours.

    values (n,): one per seed, in the unit of `published`. upper (n,): where a number is known only from below and
    above, its upper ends (`values` are the lower ones); ±inf for an end that nobody knows.

    Returns:
        "not run" without values; "undecided" for too few of them: for one value, and for a half-width over `widest`
        unless `spreads` finds that no number of seeds makes it smaller; also for a published value between bounds that
        are further apart than 2·widest. "higher" if OURS is higher, that is the published value lies below the
        prediction interval; "lower" if ours is lower; else "agrees", or "spread" where `spreads`. The published value
        is rounded: half a unit of its last digit never makes a difference.
    """
    low = _one_dimensional(values)
    high = low if upper is None else _one_dimensional(upper)
    if low.size != high.size:
        raise ValueError(f"expected as many upper ends as lower ends, got {high.size} and {low.size}")
    if not low.size:
        return "not run"
    below, above = estimate(low), estimate(high)
    ends = [each for each in (below, above) if math.isfinite(each.mean)]
    narrow = bool(ends) and max(each.pi_high - each.mean for each in ends) <= widest  # a NaN is not narrow
    spread = any(spreads(each.std, each.n, widest) for each in ends)
    if not narrow and not spread:
        return "undecided"
    start = below.pi_low if math.isfinite(below.mean) else -math.inf
    end = above.pi_high if math.isfinite(above.mean) else math.inf
    slack = rounding(published) + 1e-9 * max(1.0, abs(published))  # a value on the edge of the interval is inside
    if published + slack < start:
        return "higher"
    if published - slack > end:
        return "lower"
    return "spread" if spread else "agrees" if (end - start) / 2 <= widest else "undecided"


def spreads(std: float, n: int, widest: float = WIDEST) -> bool:
    """Whether n seeds are enough to say that no number of them brings the prediction interval within ± widest, to whose
    half-width z·std it shrinks: 5.1 percentage points for ± 10."""
    return n >= MANY and std > widest / float(ndtri((1 + LEVEL) / 2))


def needed(std: float, widest: float = WIDEST) -> int:
    """How many seeds of this standard deviation are expected to decide: the fewest whose prediction interval is within
    ± widest; MANY where that would take more than a million. 2 where nobody knows a deviation."""
    most = 1_000_000
    found = bisect.bisect_left(range(most), True, key=lambda n: not half_widths(n)[1] * std > widest, lo=2)
    return MANY if found == most else found


def percentile(published: float, values: npt.ArrayLike) -> float:
    """How many percent of the values lie below the published one; equal ones count half."""
    array = _one_dimensional(values)
    return float(100 * ((array < published).mean() + (array == published).mean() / 2)) if array.size else math.nan


def rounding(published: float) -> float:
    """Half a unit of the last published digit, of the second decimal at least: YAML keeps 63.00 as 63.0."""
    digits = np.format_float_positional(published, trim="-").partition(".")[2]
    return 0.5 * 10.0 ** -max(2, len(digits))


def repeat_spread(spreads: Sequence[float], repeats: Sequence[int]) -> float:
    """Standard deviation between noisy copies within a seed, pooled over seeds; NaN if no seed has two copies.

    spreads: per seed, over its `repeats` copies, with repeats - 1.
    """
    pairs = [(s, r - 1) for s, r in zip(spreads, repeats, strict=True) if r > 1 and math.isfinite(s)]
    weight = sum(freedom for _, freedom in pairs)
    return math.sqrt(sum(s * s * freedom for s, freedom in pairs) / weight) if weight else math.nan


def pooled(runs: Iterable[tuple[str, Plain, npt.ArrayLike]]) -> Floats:
    """The values of several runs (name, plain configuration, values) in one array, if they may be pooled.

    Raises:
        BadInput: two runs differ in more than the seed and the weights that they began with, or have the same seed:
            then they are no independent copies of one thing. An empty configuration is not checked.
    """
    runs = list(runs)
    known = [(name, config) for name, config, _ in runs if config]
    seeds: dict[int | None, str] = {}
    for name, config in known:
        first, reference = known[0]
        for key, here, there in differences(reference, config):
            begun = key == "start_weights" and None not in (here, there)  # each seed with weights of its own
            if key != "seed" and not begun:
                raise BadInput(
                    f"{key}: expected one value in the runs to pool, got {here} in {first}, {there} in {name}"
                )
        seed = config.get("seed")
        if seed in seeds:
            raise BadInput(f"seed: expected another one in each run to pool, got {seed} in {seeds[seed]} and {name}")
        seeds[seed] = name
    return np.concatenate([np.empty(0), *(np.asarray(values, float).ravel() for _, _, values in runs)])


@dataclass(frozen=True)
class Paired:
    """Two networks on the same samples. only_a, only_b: samples on which one of them has the higher score (of shares:
    that only it gets right), mean over copies; difference: mean score of a minus that of b; p: two-sided."""

    samples: int
    copies: int
    only_a: float
    only_b: float
    difference: float
    p: float


def paired_test(a: npt.ArrayLike, b: npt.ArrayLike) -> Paired:
    """Exact test of whether two networks score alike; a, b: scores (n,) or, for noisy copies, (copies, n).

    Bits (who is right), one copy: McNemar's test in its exact form, the two-sided binomial test of the discordant
    samples (McNemar, Psychometrika 12, 1947; it never rejects too often, unlike the mid-p of Fagerland et al., 2013).

    Several copies of the same images are not independent, so their counts must not be added up. The images are
    independent: per image the copies are added to one difference d_i, and under the null hypothesis that the networks
    are exchangeable on every image each d_i may change its sign. p = P(|Σ ±d_i| ≥ |Σ d_i|) over all sign patterns
    (Fisher 1935, Pitman 1937), computed exactly by a Fourier transform. With one copy this is McNemar's test; unlike a
    majority vote it uses all copies, its direction is that of the accuracies, and the largest p over copies would
    throw away what the copies have in common. p below SMALLEST_P is given as SMALLEST_P.

    Scores that are no bits are tested in the same way, with each d_i rounded to STEPS steps up to the largest |d_i|:
    rounding is odd, so the rounded differences may change their signs like the others and the test stays exact. A
    difference that is not finite counts as the largest one that is.

    Raises:
        ValueError: not the same samples.
    """
    of_a, of_b = (np.atleast_2d(np.asarray(each, dtype=np.float64)) for each in (a, b))
    if of_a.shape != of_b.shape or of_a.ndim != 2 or not of_a.size:
        raise ValueError(f"expected scores of the same samples, got shapes {of_a.shape} and {of_b.shape}")
    copies, samples = of_a.shape
    with np.errstate(invalid="ignore"):  # inf - inf is no difference
        per_image = np.nan_to_num((of_a - of_b).sum(axis=0), nan=0.0, posinf=np.inf, neginf=-np.inf)
    return Paired(
        samples,
        copies,
        float((of_a > of_b).sum() / copies),
        float((of_b > of_a).sum() / copies),
        float(per_image.sum() / (copies * samples)),
        _sign_flips(_whole(per_image)),
    )


def _whole(differences: Floats) -> npt.NDArray[np.int64]:
    """Whole differences up to STEPS as they are, others in STEPS steps up to the largest."""
    finite = np.abs(differences[np.isfinite(differences)])
    largest = float(finite.max(initial=0.0)) or 1.0
    clipped = np.clip(differences, -largest, largest)
    whole = largest <= STEPS and bool((clipped == np.rint(clipped)).all())
    return np.rint(clipped if whole else clipped / largest * STEPS).astype(np.int64)


def _sign_flips(differences: npt.NDArray[np.int64]) -> float:
    """P(|Σ ±d_i| ≥ |Σ d_i|) for fair independent signs."""
    observed = int(abs(differences.sum()))
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if observed == 0:
        return 1.0
    if sizes.size == 1:  # a binomial distribution: exact for every n
        flips = int(counts[0])
        return min(1.0, 2.0 * float(bdtr((flips - observed // int(sizes[0])) // 2, flips, 0.5)))
    # Hoeffding: P(|sum| >= reach) <= 2 exp(-reach^2 / (2 sum d^2)) = SMALLEST_P, so that what wraps around is nothing
    reach = math.sqrt(2 * math.log(2 / SMALLEST_P) * float(sizes**2 @ counts))
    if observed >= reach:
        return SMALLEST_P
    length = 1 << (2 * math.ceil(reach)).bit_length()
    angles = 2 * np.pi * np.arange(length // 2 + 1) / length
    spectrum = np.ones_like(angles)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= np.cos(size * angles) ** int(count)  # characteristic function of ±size, `count` times
    probabilities = np.fft.irfft(spectrum, length)
    return float(np.clip(probabilities[observed : length - observed + 1].sum(), SMALLEST_P, 1.0))


def _one_dimensional(values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected values (n,), got shape {array.shape}")
    return array

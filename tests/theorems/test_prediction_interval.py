"""The prediction interval holds one further seed in 95 of 100 cases, no fewer and not many more; McNemar's test
rejects a true null hypothesis in at most 5 of 100 cases, also where the noisy copies of an image are alike."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from robode.report import statistics
from robode.report.statistics import estimate, half_widths, paired_test, verdict

TRIALS = 100_000
ERROR = 4 * math.sqrt(0.95 * 0.05 / TRIALS)  # four standard errors of a coverage


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation of n normal values, and a further one of the same distribution; (TRIALS,) each."""
    drawn = np.random.default_rng(seed).normal(3.0, 2.0, size=(TRIALS, n + 1))
    return drawn[:, :n].mean(1), drawn[:, :n].std(1, ddof=1), drawn[:, n]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_prediction_interval_covers_a_further_value_in_95_of_100_cases(n):
    mean, std, further = samples(n)
    inside = (abs(further - mean) <= half_widths(n)[1] * std).mean()
    assert 0.95 - ERROR < inside < 0.95 + ERROR


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_t_interval_covers_the_mean_but_not_a_further_value(n):
    mean, std, further = samples(n, seed=1)
    half = half_widths(n)[0] * std
    assert 0.95 - ERROR < (abs(3.0 - mean) <= half).mean() < 0.95 + ERROR
    assert (abs(further - mean) <= half).mean() < 0.93


def test_a_print_that_is_a_further_seed_agrees_in_95_of_100_cases_and_misses_on_both_sides():
    drawn = np.random.default_rng(2).normal(90.0, 1.0, size=(4000, 6))
    found = [verdict(row[5], row[:5]) for row in drawn]
    error = 4 * math.sqrt(0.95 * 0.05 / len(drawn))
    assert abs(found.count("agrees") / len(drawn) - 0.95) < error
    assert min(found.count("higher"), found.count("lower")) > 0.02 * len(drawn)
    assert "undecided" not in found


def test_both_intervals_are_those_of_scipy():
    values = [81.3, 79.2, 84.0, 80.5]
    found = estimate(values)
    standard_error = stats.sem(values)
    assert (found.t_low, found.t_high) == pytest.approx(stats.t.interval(0.95, 3, found.mean, standard_error))
    further = stats.t.interval(0.95, 3, found.mean, standard_error * math.sqrt(5))
    assert (found.pi_low, found.pi_high) == pytest.approx(further)
    assert found.std == pytest.approx(np.std(values, ddof=1))


def enumerated(differences: list[int]) -> float:
    """P(|Σ ±d| ≥ |Σ d|), sign pattern by sign pattern."""
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return float(np.mean([total >= abs(sum(differences)) for total in sums]))


@pytest.mark.parametrize(("only_a", "only_b"), list(itertools.product(range(6), repeat=2)))
def test_mcnemar_is_the_enumeration_of_all_ways_to_swap_discordant_samples(only_a, only_b):
    a = np.array([1] * only_a + [0] * only_b + [1, 0])
    b = np.array([0] * only_a + [1] * only_b + [1, 0])
    found = paired_test(a, b)
    assert found.p == pytest.approx(enumerated(list(a - b)), rel=1e-12)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    if only_a + only_b:
        assert found.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)


def test_several_copies_are_tested_by_enumeration_over_images():
    generator = np.random.default_rng(3)
    for copies, n in ((2, 9), (3, 10), (10, 8)):
        a, b = generator.integers(0, 2, size=(2, copies, n))
        found = paired_test(a, b)
        assert found.p == pytest.approx(enumerated(list((a - b).sum(0))), abs=1e-12)
        assert found.difference == pytest.approx(a.mean() - b.mean())


def test_copies_of_one_image_that_all_agree_count_once():
    a, b = np.random.default_rng(4).integers(0, 2, size=(2, 60))
    assert paired_test(np.tile(a, (10, 1)), np.tile(b, (10, 1))).p == pytest.approx(paired_test(a, b).p, rel=1e-12)


def test_alike_copies_do_not_reject_a_true_null_hypothesis_too_often_but_added_up_they_do():
    generator = np.random.default_rng(5)
    trials, copies, n = 400, 10, 80
    honest = naive = 0
    for _ in range(trials):  # each network is right on each image with a probability of its own, alike in law
        a, b = generator.random((2, copies, n)) < generator.beta(0.3, 0.3, size=(2, 1, n))
        honest += paired_test(a, b).p < 0.05
        naive += paired_test(a.reshape(-1), b.reshape(-1)).p < 0.05
    assert honest / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert naive / trials > 0.2


def test_a_real_difference_is_found_and_a_p_value_is_never_rounded_to_nothing():
    generator = np.random.default_rng(6)
    b = generator.random((5, 2000)) < 0.6
    a = b | (generator.random((5, 2000)) < 0.1)
    assert paired_test(a, b).p == statistics.SMALLEST_P
    assert 0 < paired_test(a[0], b[0]).p < 1e-12

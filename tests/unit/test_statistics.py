"""Verdicts at their edges, spread over copies, and which runs may be pooled."""

import itertools
import math

import numpy as np
import pytest

from robode.errors import BadInput
from robode.report.statistics import (
    STEPS,
    estimate,
    needed,
    paired_test,
    percentile,
    pooled,
    repeat_spread,
    rounding,
    verdict,
)


def test_one_value_has_a_mean_and_no_interval():
    found = estimate([81.3])
    assert (found.n, found.mean) == (1, 81.3)
    assert all(math.isnan(each) for each in (found.std, found.t_low, found.t_high, found.pi_low, found.pi_high))
    assert math.isnan(estimate([]).mean)
    assert verdict(81.3, [81.3]) == "undecided"
    assert verdict(81.3, []) == "not run"


def test_equal_values_have_an_interval_of_width_zero():
    found = estimate([90.0, 90.0, 90.0])
    assert found.std == 0 and found.pi_low == found.pi_high == 90.0
    assert verdict(90.0, [90.0, 90.0]) == "agrees"
    assert verdict(89.9, [90.0, 90.0]) == "higher"
    assert verdict(90.1, [90.0, 90.0]) == "lower"


def test_higher_means_that_ours_is_higher():
    assert verdict(60.0, [81.0, 81.5, 80.9]) == "higher"
    assert verdict(99.0, [81.0, 81.5, 80.9]) == "lower"


def test_a_wide_interval_is_undecided_wherever_the_print_lies():
    values = [30.0, 57.0, 84.0]
    assert verdict(57.0, values) == verdict(1000.0, values) == "undecided"
    assert verdict(57.0, values, widest=200.0) == "agrees"


def seeds(n, std, mean=60.0):
    """n values with exactly this mean and standard deviation."""
    raw = np.linspace(-1.0, 1.0, n)
    return mean + std * raw / raw.std(ddof=1)


@pytest.mark.parametrize(
    ("n", "std", "published", "expected"),
    [
        (10, 5.2, 65.0, "spread"),
        (200, 5.2, 65.0, "spread"),  # no number of seeds helps
        (9, 5.2, 65.0, "undecided"),  # too few to believe their deviation
        (10, 5.0, 65.0, "undecided"),  # 86 of them would be within ± 10
        (86, 5.0, 65.0, "agrees"),
        (10, 5.2, 75.0, "lower"),  # outside of an interval that many seeds have
        (10, 5.2, 45.0, "higher"),
        (9, 5.2, 45.0, "undecided"),
    ],
)
def test_seeds_that_no_number_brings_together_are_spread(n, std, published, expected):
    assert verdict(published, seeds(n, std)) == expected
    assert verdict(published / 50, seeds(n, std) / 50, widest=0.2) == expected, "in any unit"


def test_undecided_means_too_few_seeds_and_says_how_many_are_needed():
    for std in (0.3, 1.0, 4.0, 5.0):
        enough = needed(std)
        assert verdict(60.0, seeds(enough, std)) == "agrees"
        assert enough == 2 or verdict(60.0, seeds(enough - 1, std)) == "undecided"
    assert needed(math.nan) == 2, "one seed has no deviation"
    assert needed(5.2) == 10 and verdict(60.0, seeds(10, 5.2)) == "spread"
    assert needed(5.2, widest=20.0) < 10


def test_the_percentile_counts_equal_values_half():
    assert percentile(2.0, [1.0, 2.0, 3.0, 4.0]) == 37.5
    assert percentile(0.0, [1.0, 2.0]) == 0.0 and percentile(9.0, [1.0, 2.0]) == 100.0
    assert math.isnan(percentile(1.0, []))


def test_the_rounding_of_the_print_decides_nothing():
    for value in (97.0051, 97.0149):  # both are printed as 97.01
        assert verdict(97.01, [value, value]) == "agrees"
    assert verdict(97.01, [97.0151, 97.0151]) == "higher"
    assert verdict(97.01, [97.0049, 97.0049]) == "lower"
    assert [rounding(each) for each in (63.0, 97.01, 0.3214, 0.7)] == pytest.approx([0.005, 0.005, 5e-5, 0.005])


def test_a_number_known_from_both_sides_agrees_only_where_the_sides_are_close():
    low, high = [0.60, 0.61, 0.59], [0.70, 0.71, 0.69]
    assert verdict(0.65, low, upper=high, widest=0.3) == "agrees"
    assert verdict(0.65, low, upper=high, widest=0.05) == "undecided"
    assert verdict(0.21, low, upper=high, widest=0.3) == "higher"
    assert verdict(0.95, low, upper=high, widest=0.3) == "lower"


def test_a_number_known_from_one_side_can_be_higher_or_lower_but_not_agree():
    low, unknown = [0.60, 0.61, 0.59], [math.inf] * 3
    assert verdict(0.21, low, upper=unknown) == "higher"
    assert verdict(0.60, low, upper=unknown) == verdict(5.0, low, upper=unknown) == "undecided"
    below = [-math.inf] * 3
    assert verdict(5.0, below, upper=low) == "lower"
    assert verdict(0.21, below, upper=low) == "undecided"


def test_the_spread_of_copies_is_pooled_over_seeds_by_their_degrees_of_freedom():
    assert repeat_spread([1.0, 2.0], [3, 2]) == pytest.approx(math.sqrt((2 * 1 + 1 * 4) / 3))
    assert repeat_spread([math.nan, 2.0], [1, 2]) == 2.0
    assert math.isnan(repeat_spread([math.nan], [1]))


def config(seed, **changes):
    return {"model": {"name": "chnode", "kappa": 0.04}, "depth": 4, "seed": seed, "repeats": 10} | changes


def test_seeds_of_one_configuration_are_pooled_whatever_was_measured_afterwards():
    runs = [("a", config(1), [0.9]), ("b", config(2, repeats=2), [0.8]), ("unknown", {}, [0.7])]
    assert pooled(runs).tolist() == [0.9, 0.8, 0.7]
    assert pooled([]).size == 0


def test_pooling_refuses_another_configuration_and_names_the_key_and_both_values():
    other = config(2, model={"name": "chnode", "kappa": 0.5})
    with pytest.raises(BadInput, match=r"^model\.kappa: expected .* 0\.04 in a, 0\.5 in b$"):
        pooled([("a", config(1), [0.9]), ("b", other, [0.8])])


def test_pooling_refuses_the_same_seed_twice():
    with pytest.raises(BadInput, match="^seed: .* got 1 in a and b$"):
        pooled([("a", config(1), [0.9]), ("b", config(1), [0.9])])


def test_mcnemar_without_a_discordant_sample_says_nothing():
    found = paired_test([1, 1, 0], [1, 1, 0])
    assert (found.p, found.only_a, found.only_b, found.difference) == (1.0, 0, 0, 0)
    assert (found.samples, found.copies) == (3, 1)
    opposite = paired_test([[1, 0], [0, 1]], [[0, 1], [1, 0]])  # each image once for a, once for b
    assert opposite.p == 1.0 and opposite.only_a == opposite.only_b == 1


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[1], [0]], [[1]])])
def test_mcnemar_refuses_other_samples(a, b):
    with pytest.raises(ValueError, match="same samples"):
        paired_test(a, b)


def test_errors_are_compared_by_sign_flips_like_bits():
    generator = np.random.default_rng(0)
    a, b = generator.random(9), generator.random(9)
    steps = np.rint((a - b) / np.abs(a - b).max() * STEPS)
    flips = np.array(list(itertools.product((-1, 1), repeat=9))) @ steps
    found = paired_test(a, b)
    assert found.p == pytest.approx(np.mean(np.abs(flips) >= abs(steps.sum())), rel=1e-9)
    assert found.difference == pytest.approx((a - b).mean()) and found.only_a + found.only_b == 9
    assert paired_test(3 * a, 3 * b).p == pytest.approx(found.p, rel=1e-9), "the unit of an error plays no part"
    assert paired_test(b, a).p == found.p


@pytest.mark.slow
def test_of_errors_with_one_mean_few_tests_reject():
    generator = np.random.default_rng(1)
    rejected = sum(paired_test(*generator.exponential(1.0, (2, 40))).p < 0.05 for _ in range(300))
    assert rejected / 300 < 0.1
    assert paired_test(generator.exponential(1.0, 200), generator.exponential(1.0, 200) + 1).p < 1e-6


def test_an_infinite_error_counts_as_the_largest_difference():
    finite = paired_test([0.5, 0.25, 1.0], [0.25, 0.5, 0.0])
    assert paired_test([0.5, 0.25, np.inf], [0.25, 0.5, 0.0]).p == paired_test([0.5, 0.25, 0.25], [0.25, 0.5, 0.0]).p
    assert 0 < finite.p <= 1 and paired_test([np.inf, 1.0], [np.inf, 0.5]).difference == 0.25

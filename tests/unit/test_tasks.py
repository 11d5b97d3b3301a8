"""What a target is, what an output is worth, and which direction is better: for classes and for numbers."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ttest_1samp

from robode.errors import BadInput
from robode.tasks.classification import Classification
from robode.tasks.measure import CLASSIFICATION, Measure, measure_named
from robode.tasks.regression import Regression
from robode.tasks.task import Task

CLASSES, ERRORS = Classification(("a", "b", "c")), Regression(2, "rad")
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, math.nan, 0.0], [5.0, math.inf, 0.0]])
LABELS = torch.tensor([0, 1, 0, 1])
OUTPUT, TARGET = (
    torch.tensor([[3.0, 4.0], [1.0, 1.0], [math.nan, 0.0]]),
    torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
)


def test_a_right_answer_scores_one_and_logits_that_are_not_finite_none():
    assert CLASSES.score(LOGITS, LABELS).tolist() == [1, 0, 0, 0]
    assert CLASSES.score(LOGITS, LABELS).dtype == torch.float32
    assert CLASSES.failed(LOGITS, LABELS).tolist() == [False, True, True, True]


def test_an_error_is_the_distance_from_the_target_and_infinite_where_there_is_none():
    assert ERRORS.score(OUTPUT, TARGET).tolist() == [5, 0, math.inf]
    assert not ERRORS.failed(OUTPUT, TARGET).any()
    (loss,) = ERRORS.attack_losses.values()
    assert loss(OUTPUT, TARGET)[:2].tolist() == [5, 0]
    assert ERRORS.loss(OUTPUT[:2], TARGET[:2]).item() == pytest.approx(25 / 4)


@pytest.mark.parametrize("task", [CLASSES, ERRORS])
def test_the_worse_of_two_scores_is_never_the_better(task: Task):
    a, b = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 1.0])
    worse = task.worse(a, b).tolist()
    assert worse == ([0, 0, 1] if task is CLASSES else [1, 1, 1])
    assert task.is_better(0.9, 0.8) is (task is CLASSES) and not task.is_better(0.5, 0.5)
    assert all(task.worse(torch.tensor(task.worst), each).item() == task.worst for each in a)


@pytest.mark.parametrize(
    ("task", "target", "words"),
    [
        (CLASSES, torch.tensor([0.0, 1.0]), "mine: expected labels (n,) int64, got (2,) torch.float32"),
        (CLASSES, torch.tensor([[0, 1]]), "expected labels (n,) int64, got (1, 2)"),
        (CLASSES, torch.tensor([0, 3]), "mine: a label is outside 0 to 2"),
        (CLASSES, torch.tensor([-1, 2]), "a label is outside 0 to 2"),
        (ERRORS, torch.tensor([0, 1]), "mine: expected targets (n, 2) float32, got (2,) torch.int64"),
        (ERRORS, torch.zeros(4, 3), "got (4, 3) torch.float32"),
        (ERRORS, torch.tensor([[0.0, math.inf]]), "mine: a target is not finite"),
    ],
)
def test_targets_of_another_task_are_refused(task: Task, target: torch.Tensor, words: str):
    with pytest.raises(BadInput) as caught:
        task.check(target, "mine")
    assert words in str(caught.value)


def test_targets_of_the_task_are_not():
    """Each is taken by its own task, and refused by the other."""
    for task, other, target in (
        (CLASSES, ERRORS, torch.tensor([0, 1, 2])),
        (ERRORS, CLASSES, torch.zeros(5, 2)),
    ):
        task.check(target, "mine")
        with pytest.raises(BadInput):
            other.check(target, "mine")


def test_what_is_certified_of_classes_is_the_margin_over_the_pairs():
    logits, labels = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]]), torch.tensor([0, 1])
    pairs = torch.tensor([[9.0, 2.0, 1.0], [2.0, 9.0, 1.0], [1.0, 1.0, 9.0]])
    assert [CLASSES.certified(logits, labels, pairs, r).tolist() for r in (0.0, 0.5, 0.51)] == [[1, 0], [1, 0], [0, 0]]
    pairs[0, 1] = 0.0  # equal rows: nothing moves this margin, and the other one holds up to 2
    assert [CLASSES.certified(logits, labels, pairs, r)[0].item() for r in (2.0, 2.1)] == [1, 0]


def test_what_is_certified_of_an_error_no_input_within_the_radius_exceeds():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    L = torch.linalg.matrix_norm(W, 2)
    x, target = torch.randn(50, 3, generator=generator, dtype=torch.float64), torch.zeros(50, 2, dtype=torch.float64)
    pairs = L.expand(2, 2)
    bound = ERRORS.certified(x @ W.T, target, pairs, 0.3)
    assert bound.dtype == torch.float32
    assert torch.equal(ERRORS.certified(x @ W.T, target, pairs * math.inf, 0.0) < math.inf, torch.ones(50, dtype=bool))
    tight = 0.0
    for _ in range(200):
        step = torch.randn(50, 3, generator=generator, dtype=torch.float64)
        error = ((x + 0.3 * step / step.norm(dim=1, keepdim=True)) @ W.T).norm(dim=1)
        assert bool((error <= bound).all())
        tight = max(tight, float((error / bound).max()))
    assert tight > 0.9, "a bound far above everything would pass, too"


def test_intervals():
    shares = np.array([1, 1, 1, 0, 1], dtype=np.float32)
    expected = binomtest(4, 5).proportion_ci(0.95, method="wilson")
    assert CLASSES.interval(shares) == pytest.approx((expected.low, expected.high))
    errors = np.array([0.5, 0.25, 0.75, 1.0], dtype=np.float32)
    assert ERRORS.interval(errors) == pytest.approx(tuple(ttest_1samp(errors, 0.0).confidence_interval(0.95)))
    assert ERRORS.interval(np.array([0.0, 9.0]))[0] == 0, "no error is below 0"
    assert ERRORS.interval(np.array([0.5])) == ERRORS.interval(np.array([0.5, math.inf])) == (0, math.inf)


def test_a_split_keeps_the_shares_of_classes_and_nothing_of_numbers():
    assert torch.equal(CLASSES.strata(LABELS), LABELS)
    assert ERRORS.strata(TARGET).tolist() == [0, 0, 0]


@pytest.mark.parametrize("measure", [CLASSES.measure, ERRORS.measure, Regression(3).measure])
def test_a_measure_is_its_text(measure: Measure):
    assert measure_named(str(measure)) == measure


def test_how_scores_read():
    assert CLASSES.measure == CLASSIFICATION == measure_named("") == measure_named(None)
    assert str(ERRORS.measure) == "regression: error in rad (lower is better)"
    assert (CLASSIFICATION.text(0.964), CLASSIFICATION.interval(0.951, 0.973)) == ("96.4 %", "[95.1, 97.3]")
    assert (ERRORS.measure.text(0.012345), ERRORS.measure.interval(0.01, 0.02)) == ("0.0123", "[0.0100, 0.0200]")
    assert (ERRORS.measure.text(123.4), ERRORS.measure.text(math.nan), ERRORS.measure.label) == (
        "123",
        "–",
        "error (rad)",
    )
    assert (CLASSIFICATION.gain(0.1), ERRORS.measure.gain(0.1)) == (0.1, -0.1)
    with pytest.raises(ValueError, match="expected a text like"):
        measure_named("something else")


def test_a_regression_without_a_unit_would_pass_for_shares():
    with pytest.raises(BadInput, match="expected a unit"):
        Regression(2, "")

"""Pairs of digits: which digits stand where, that no digit is in both splits, and that all classes are there."""

import pytest
import torch

from robode.data.digit_pairs import DigitPairs
from robode.data.info import DatasetInfo, Samples, Source
from robode.data.toy import Circles
from robode.errors import BadInput
from robode.tasks.classification import Classification


class Flat(Source):
    """Every digit is an even grey: class in the tens, split and number in the ones."""

    @property
    def info(self):
        return DatasetInfo((1, 28, 28), (0.0,), (1.0,), (0.0, 1.0), Classification(tuple("0123456789")))

    def load(self):
        return tuple(
            Samples(
                torch.tensor([10 * c + 4 * split + k for c in range(10) for k in range(4)], dtype=torch.uint8)
                .view(-1, 1, 1, 1)
                .repeat(1, 1, 28, 28),
                torch.arange(10).repeat_interleave(4),
            )
            for split in (0, 1)
        )


def test_the_label_is_ten_times_the_left_digit_and_the_right_one_and_the_splits_share_no_digit():
    for number, split in enumerate(DigitPairs(Flat(), 1000, 300).load()):
        left, right = split.x[:, 0, 5, 3].long(), split.x[:, 0, 5, 20].long()
        assert torch.equal(10 * (left // 10) + right // 10, split.target)
        for digit in (left, right):
            assert set((digit % 10).tolist()) == set(range(4 * number, 4 * number + 4))


def test_no_pair_comes_twice_and_more_than_there_are_is_refused():
    (x, labels), _ = DigitPairs(Flat(), 1600, 100).load()
    assert len(x[:, 0, 0].unique(dim=0)) == 1600 and labels.bincount().tolist() == [16] * 100
    with pytest.raises(BadInput, match="1601 pairs are 17 a class, and there are 16 of class 00"):
        DigitPairs(Flat(), 1601, 100).load()


def test_every_class_has_as_many_pairs_in_a_mixed_order_that_is_always_the_same():
    (x, labels), test = DigitPairs(Flat(), 1000, 250).load()
    assert labels.bincount().tolist() == [10] * 100 and test.target.bincount(minlength=100).unique().tolist() == [2, 3]
    assert len(labels[:50].unique()) > 30
    again, _ = DigitPairs(Flat(), 1000, 250).load()
    assert torch.equal(again.x, x) and torch.equal(again.target, labels)


def test_a_half_is_the_mean_of_neighbouring_columns():
    class Striped(Flat):
        def load(self):
            stripes = torch.tensor([0, 100], dtype=torch.uint8).repeat(10, 1, 28, 14)
            return (Samples(stripes, torch.arange(10)),) * 2

    train, _ = DigitPairs(Striped(), 100, 100).load()
    assert train.x.dtype == torch.uint8 and train.x.shape == (100, 1, 28, 28) and (train.x == 50).all()


@pytest.mark.parametrize(
    "digits, sizes, named",
    [(Flat(), (99, 500), "train=99"), (Flat(), (500, 0), "test=0"), (Circles(), (500, 500), "digits")],
)
def test_what_is_no_set_of_pairs_is_refused(digits, sizes, named):
    with pytest.raises(BadInput, match=f"data.source.{named}"):
        DigitPairs(digits, *sizes)

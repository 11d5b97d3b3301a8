"""What `limit` takes of a split."""

import pytest
import torch

from robode.data.info import Samples
from robode.data.module import part, part_digest
from robode.data.toy import Circles, DoubleCircles, DoubleMoons, SixPoints, SwissRoll, TwoSamples
from robode.data.vision import MNIST5k

SETS = [Circles(), DoubleCircles(), SwissRoll(), DoubleMoons(), SixPoints(), TwoSamples()]


@pytest.mark.parametrize("source", SETS, ids=lambda source: type(source).__name__)
def test_a_part_of_a_set_that_lies_class_by_class_has_the_shares_of_the_whole(source):
    _, test = source.load()
    count = len(test.target) // 3
    few = part(test, count, source)
    assert len(few.x) == len(few.target) == count
    whole, shares, first = (each.double().mean() for each in (test.target, few.target, test.target[:count]))
    assert abs(float(whole - shares)) <= 1 / count
    assert abs(float(whole - first)) > 0.2


def test_a_part_of_a_set_of_images_is_its_first_samples_and_no_limit_is_all():
    source = MNIST5k()
    split = Samples(torch.arange(20.0).reshape(10, 2), torch.arange(10))
    assert torch.equal(part(split, 4, source).target, torch.arange(4))
    assert torch.equal(part(split, 99, source).target, split.target)
    for each in (source, SETS[0]):
        assert part(split, None, each) is split and part_digest("abc", None, each) == "abc"


def test_parts_of_different_sizes_and_ways_are_different_data():
    names = [part_digest("abc", n, source) for n in (3, 4) for source in (SETS[0], MNIST5k())]
    assert len({"abc", *names}) == 5

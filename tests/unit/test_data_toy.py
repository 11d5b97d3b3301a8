"""The planar sets against their formulas and domains."""

import math

import numpy as np
import pytest
import torch

from robode.data.toy import Circles, DoubleCircles, DoubleMoons, SixPoints, SwissRoll, TwoSamples
from robode.errors import BadInput


@pytest.mark.parametrize(
    "source, low, high",
    [
        (DoubleCircles, (-5, -5), (5, 5)),
        (SwissRoll, (-1.2, -1.2), (1.2, 1.2)),
        (DoubleMoons, (-2, -1), (5, 2)),
    ],
)
def test_points_lie_in_the_domain_half_in_each_class(source, low, high):
    train, test = source().load()
    for split in (train, test):
        assert split.x.shape == (4000, 2) and split.target.bincount().tolist() == [2000, 2000]
        assert (split.x >= torch.tensor(low)).all() and (split.x <= torch.tensor(high)).all()


def test_even_indices_train_and_odd_indices_test():
    points, labels = DoubleMoons().points()
    train, test = DoubleMoons().load()
    assert np.array_equal(train.x.numpy(), points[0::2].astype(np.float32))
    assert np.array_equal(test.x.numpy(), points[1::2].astype(np.float32))
    assert np.array_equal(test.target.numpy(), labels[1::2])


def test_double_circles_have_radii_1_2_3_4_and_uniform_noise():
    points, labels = DoubleCircles().points()
    rings = points.reshape(4, 2000, 2)
    angle = np.linspace(0, 2 * np.pi, 2000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    noise = rings - np.arange(1, 5)[:, None, None] * circle
    assert 0.29 < np.abs(noise).max() <= 0.3
    assert noise.std() == pytest.approx(0.3 / math.sqrt(3), rel=0.02)
    assert labels.reshape(4, 2000).mean(axis=1).tolist() == [0, 1, 0, 1]


def test_circles_have_the_radii_and_the_normal_noise_that_their_keys_say():
    points, labels = Circles(8000, (1.5, 3.0), 0.2).points()
    exact, _ = Circles(8000, (1.5, 3.0), 0.0).points()
    assert np.allclose(np.linalg.norm(exact, axis=1), np.where(labels == 0, 1.5, 3.0))
    assert (points - exact).std() == pytest.approx(0.2, rel=0.03) and np.abs(points - exact).max() > 0.5
    train, test = Circles().load()
    assert all(split.target.bincount().tolist() == [500, 500] for split in (train, test))


@pytest.mark.parametrize(
    "keys, named", [({"radii": (1,)}, "radii"), ({"radii": (1, -2)}, "radii"), ({"noise": -1}, "noise")]
)
def test_circles_that_are_none_are_refused(keys, named):
    with pytest.raises(BadInput, match=f"data.source.{named}="):
        Circles(**keys)


def test_swiss_roll_has_no_noise():
    points, labels = SwissRoll().points()
    radius = np.linalg.norm(points, axis=1)
    assert np.allclose(radius[labels == 1], np.linspace(0, 1, 4000))
    assert np.allclose(radius[labels == 0], np.linspace(0.2, 1.2, 4000))


def test_double_moons_are_half_circles_about_their_centres():
    points, labels = DoubleMoons().points()
    centres = np.array([(0, 0), (1, 0.5), (2, 0), (3, 0.5)])[:, None, :]
    offset = points.reshape(4, 2000, 2) - centres
    assert np.abs(np.linalg.norm(offset, axis=2) - 1).max() <= 0.15 * math.sqrt(2) + 0.02
    assert (offset[[0, 2], :, 1] >= -0.15).all() and (offset[[1, 3], :, 1] <= 0.15).all()
    assert labels.reshape(4, 2000).mean(axis=1).tolist() == [0, 1, 0, 1]


def test_six_points_of_figure_1():
    train, test = SixPoints().load()
    assert train.x[0].tolist() == [2, 0] and train.x[3].tolist() == [4, 0]
    assert train.x.norm(dim=1).tolist() == pytest.approx([2, 2, 2, 4, 4, 4])
    angles = torch.atan2(train.x[:, 1], train.x[:, 0])
    assert angles.tolist() == pytest.approx([0, math.pi / 3, 2 * math.pi / 3] * 2)
    assert torch.equal(train.x, test.x) and train.target.tolist() == [0, 0, 0, 1, 1, 1]


def test_points_are_the_same_every_time():
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(DoubleCircles().load()[0].x, DoubleCircles().load()[0].x)


@pytest.mark.parametrize("n", [0, -8, 12])
def test_a_number_of_points_that_cannot_be_shared_is_bad_input(n):
    with pytest.raises(BadInput, match=r"data\.source\.n"):
        SwissRoll(n)


def test_two_samples_have_as_many_points_each_and_one_lies_on_a_ring():
    (x, labels), test = TwoSamples(512).load()
    assert [int((each == k).sum()) for each in (labels, test.target) for k in (0, 1)] == [128] * 4
    radius, corners = x[labels == 0].norm(dim=1), x[labels == 1].abs()
    assert 0.5 < float(radius.min()) and float(radius.max()) < 1.5
    assert 1.7 <= float(corners.min()) and float(corners.max()) <= 2.3

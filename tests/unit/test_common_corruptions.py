"""Common corruptions of images, against scipy and against formulas written down once more."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from robode.corruptions.common import Blur, Contrast, Rotation, Translation, blur_matrix
from robode.corruptions.perturbation import Batch
from robode.errors import BadInput

SHAPES = [(4, 1, 28, 28), (3, 3, 9, 14), (2, 1, 1, 5)]
EACH = [Blur(1.0), Rotation(30), Translation(1.5), Contrast(0.5)]


def images(*shape: int) -> torch.Tensor:
    """Pixels in [0, 1], black and white among them."""
    return (1.4 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.2).clamp(0, 1)


def changed(perturbation, x, severity, bounds=(0.0, 1.0)):
    return perturbation.perturb(Batch(x, torch.zeros(len(x)), None, bounds), severity)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 20.0])
def test_blur_is_the_gaussian_filter_of_scipy(shape, sigma):
    x = images(*shape)
    expected = ndimage.gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    assert np.abs(changed(Blur(sigma), x, sigma).numpy() - expected).max() < 1e-6


def test_blur_keeps_grey_grey_and_its_kernel_has_the_variance_it_is_given():
    matrix = blur_matrix(201, 3.0)
    assert matrix.sum(1).numpy() == pytest.approx(1.0)
    offsets = torch.arange(201.0, dtype=torch.float64) - 100
    assert float(matrix[100] @ offsets) == pytest.approx(0.0, abs=1e-12)
    assert float(matrix[100] @ offsets.square()) == pytest.approx(9.0, rel=2e-3)  # the tails are cut off
    assert changed(Blur(2.0), torch.full((1, 1, 8, 8), 0.3), 2.0).numpy() == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [1.0, 10.0, 45.0, 90.0, 137.0, 180.0])
def test_rotation_is_that_of_scipy_counter_clockwise_with_black_around(shape, degrees):
    x = images(*shape)
    expected = ndimage.rotate(x.double().numpy(), degrees, (3, 2), reshape=False, order=1, mode="grid-constant")
    assert np.abs(changed(Rotation(degrees), x, degrees).numpy() - expected).max() < 1e-4
    if shape[2] == shape[3]:
        assert torch.equal(changed(Rotation(90), x, 90.0), torch.rot90(x, 1, (2, 3)))


@pytest.mark.parametrize("pixels", [1, 3, 28, 10**12])
def test_whole_pixels_move_exactly(pixels):
    x = images(4, 1, 28, 28)
    expected = torch.zeros_like(x)
    for column in range(pixels, 28):
        expected[..., column] = x[..., column - pixels]
    assert torch.equal(changed(Translation(pixels), x, float(pixels)), expected)


@pytest.mark.parametrize("pixels", [0.25, 2.5, 27.5])
def test_parts_of_a_pixel_are_interpolated(pixels):
    x = images(4, 3, 28, 28)
    expected = ndimage.shift(x.double().numpy(), (0, 0, 0, pixels), order=1, mode="grid-constant")
    assert np.abs(changed(Translation(pixels), x, pixels).numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("lost", [0.25, 0.9, 1.0])
def test_contrast_shrinks_towards_the_mean_of_each_image_and_channel(lost):
    x = images(4, 3, 9, 14)
    found = changed(Contrast(lost), x, lost)
    means, deviations = (lambda y: y.double().mean((2, 3))), (lambda y: y.double().std((2, 3)))
    assert means(found).numpy() == pytest.approx(means(x).numpy(), abs=1e-6)
    assert deviations(found).numpy() == pytest.approx((1 - lost) * deviations(x).numpy(), abs=1e-6)


@pytest.mark.parametrize("perturbation", EACH, ids=lambda each: each.name)
def test_level_zero_is_the_image_and_no_level_touches_the_input(perturbation):
    x = images(5, 3, 8, 8)
    before = x.clone()
    same = changed(perturbation, x, 0.0)
    assert torch.equal(same, before) and same.data_ptr() != x.data_ptr()
    moved = changed(perturbation, x, perturbation.severities[0])
    assert torch.equal(x, before) and not torch.equal(moved, before)
    assert bool((moved >= 0).all()) and bool((moved <= 1).all())


@pytest.mark.parametrize("perturbation", EACH, ids=lambda each: each.name)
def test_what_surrounds_an_image_is_black_whatever_black_is(perturbation):
    x = images(2, 1, 8, 8)
    level = perturbation.severities[0]
    shifted = changed(perturbation, x - 1, level, bounds=(-1.0, 0.0))
    assert (shifted + 1).numpy() == pytest.approx(changed(perturbation, x, level).numpy(), abs=1e-6)


@pytest.mark.parametrize("perturbation", EACH, ids=lambda each: each.name)
def test_they_are_for_images(perturbation):
    assert "vectors" in perturbation.refusal(None) and perturbation.refusal((0.0, 1.0)) is None
    assert perturbation.in_data_units and not perturbation.stochastic and not perturbation.attacks


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Blur(-1), "suite.blur.sigma=-1"),
        (lambda: Blur(1e9), "suite.blur.sigma"),
        (lambda: Rotation([10, 190]), "suite.rotation.degrees=190"),
        (lambda: Translation("far"), "suite.translation.pixels=far"),
        (lambda: Contrast(1.5), "suite.contrast.lost=1.5"),
    ],
)
def test_levels_that_make_no_sense(make, key):
    with pytest.raises(BadInput, match=key):
        make()

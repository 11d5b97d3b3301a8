"""Circular blurs against their matrices, and total variation against scikit-image and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from robode.deblurring import Blur, _differences, _differences_adjoint, motion_kernel, total_variation, tv_deblurred
from robode.errors import BadInput


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(blur: Blur) -> Tensor:
    """K of one channel, by columns."""
    n = math.prod(blur.size)
    return blur(torch.eye(n, dtype=torch.float64).reshape(n, 1, *blur.size)).flatten(1).T


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (9, 9)])
def test_a_blur_is_a_circular_convolution_with_these_constants(size: tuple[int, int]) -> None:
    kernel = random(3, 5)
    blur = Blur.of(kernel, size)
    K = matrix(blur)
    torch.testing.assert_close(
        blur.adjoint(random(2, 3, *size)), (random(2, 3, *size).flatten(2) @ K).view(2, 3, *size)
    )
    values = torch.linalg.svdvals(K)
    assert blur.L == pytest.approx(float(values[0]) ** 2) and blur.mu == pytest.approx(float(values[-1]) ** 2, rel=1e-6)
    x, y = random(2, 3, *size), random(2, 3, *size, seed=1)
    direct = torch.stack([
        sum(
            kernel[a, b] * x.roll((a - 1, b - 2), (2, 3))
            for a in range(3) for b in range(5)
        )
    ])[0]  # fmt: skip
    torch.testing.assert_close(blur(x), direct)
    torch.testing.assert_close(blur.inverse(blur(x)), x)
    z = blur.resolvent(x, y, 0.7)
    torch.testing.assert_close(z - x + 0.7 * blur.gradient(z, y), torch.zeros_like(z), atol=1e-12, rtol=0)


def test_the_motion_kernel_lies_on_the_antidiagonal() -> None:
    kernel = motion_kernel(15)
    assert float(kernel.sum()) == pytest.approx(1) and float(kernel[0, 14]) == 1 / 15
    blur = Blur.of(kernel, (88, 88))
    assert blur.L == pytest.approx(1)
    # 15 and 88 have no common divisor: no k^ is 0; 15 and 90 have
    assert 1e-6 < blur.mu < 1e-5 and Blur.of(kernel, (90, 90)).mu < 1e-20
    constant = torch.full((1, 1, 88, 88), 0.3)
    torch.testing.assert_close(blur(constant), constant)  # float32 stays


def test_differences_and_their_adjoint() -> None:
    x, p = random(2, 3, 5, 4), random(2, 2, 3, 5, 4, seed=1)
    torch.testing.assert_close((_differences(x) * p).sum(), (x * _differences_adjoint(p)).sum())
    n = 20
    D = _differences(torch.eye(n, dtype=torch.float64).reshape(n, 1, 5, 4)).flatten(1).T
    assert 5 < float(torch.linalg.matrix_norm(D, 2)) ** 2 <= 8


def test_total_variation_without_a_blur_is_that_of_scikit_image() -> None:
    restoration = pytest.importorskip("skimage.restoration")
    y = random(1, 1, 16, 16) * 0.2 + torch.linspace(0, 1, 16).double()
    identity = Blur.of(torch.ones(1, 1, dtype=torch.float64), (16, 16))
    ours = tv_deblurred(identity, y, 0.1, 2000)[0, 0].numpy()
    theirs = restoration.denoise_tv_chambolle(y[0, 0].numpy(), weight=0.1, eps=1e-12, max_num_iter=20000)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_nothing_nearby_has_a_smaller_sum_than_the_answer_of_total_variation() -> None:
    blur, y = Blur.of(motion_kernel(5), (12, 12)), random(2, 3, 12, 12) * 0.2 + 0.5
    found = tv_deblurred(blur, y, 0.05, 3000)

    def objective(x: Tensor) -> Tensor:
        return (blur(x) - y).square().flatten(1).sum(1) / 2 + 0.05 * total_variation(x)

    for seed in range(20):
        other = found + 10.0 ** (-seed % 4) * random(2, 3, 12, 12, seed=seed)
        assert bool((objective(other) >= objective(found)).all())
    assert bool((objective(found) < objective(y)).all())
    torch.testing.assert_close(found, tv_deblurred(blur, y, 0.05, 6000), atol=1e-4, rtol=0)


def test_what_cannot_be_is_bad_input() -> None:
    with pytest.raises(BadInput, match="the kernel 15 x 15 is larger than the image 12 x 16"):
        Blur.of(motion_kernel(15), (12, 16))
    for length in (4, 0, -1, 3.0):
        with pytest.raises(BadInput, match="an odd whole number >= 1, got"):
            motion_kernel(length)  # type: ignore[arg-type]
    blur = Blur.of(motion_kernel(3), (4, 4))
    with pytest.raises(BadInput, match="a weight > 0 and steps >= 1, got 0 and 300"):
        tv_deblurred(blur, torch.zeros(1, 1, 4, 4), 0)

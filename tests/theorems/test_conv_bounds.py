"""Certified norms of convolutions against the dense matrices of random kernels: never below, and close from above."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from problems import norm2
from torch import nn

from robode.errors import BadInput
from robode.linalg.convolution import conv_norm, dilated


def convolutions(count: int, circular: bool, strided: bool) -> Iterator[tuple[nn.Conv2d, int, int]]:
    """Random kernels, paddings, strides and images, those that torch accepts."""
    for seed in range(count):
        torch.manual_seed(seed)
        draw = random.Random(seed)
        k, p, n = ([draw.randint(*ends), draw.randint(*ends)] for ends in ((1, 5), (0, 3), (1, 7)))
        stride = (draw.randint(1, 3), draw.randint(1, 3)) if strided else (1, 1)
        fits = all(size + 2 * pad >= kernel for size, pad, kernel in zip(n, p, k, strict=True))
        if fits and not (circular and any(pad > size for pad, size in zip(p, n, strict=True))):
            channels = draw.randint(1, 3), draw.randint(1, 3)
            mode = "circular" if circular else "zeros"
            conv = nn.Conv2d(*channels, tuple(k), stride, tuple(p), bias=False, padding_mode=mode)
            yield conv.double(), *n


@torch.no_grad()
def dense_norm(conv: nn.Conv2d, height: int, width: int) -> float:
    inputs = conv.in_channels * height * width
    basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, conv.in_channels, height, width)
    return norm2(conv(basis).flatten(1).T)


def bound(conv: nn.Conv2d, height: int, width: int) -> float:
    circular = conv.padding_mode == "circular"
    return conv_norm(conv.weight, height, width, padding=conv.padding, circular=circular, stride=conv.stride)


@pytest.mark.parametrize("strided", [False, True], ids=["stride 1", "strided"])
@pytest.mark.parametrize("circular", [False, True], ids=["zeros", "circular"])
def test_the_bound_is_never_below_the_dense_norm(circular: bool, strided: bool) -> None:
    found = [(bound(conv, *size), dense_norm(conv, *size)) for conv, *size in convolutions(300, circular, strided)]
    assert len(found) > 100
    assert all(upper >= true for upper, true in found)
    ratios = sorted(upper / true for upper, true in found if true > 0)
    assert ratios[len(ratios) // 2] < (1.6 if strided else 1.35)  # images of 1 to 7 pixels; it tends to 1


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_it_tends_to_the_dense_norm_as_images_grow(stride: int, padding: int) -> None:
    torch.manual_seed(stride)
    conv = nn.Conv2d(2, 2, 3, stride, padding, bias=False).double()
    assert 1 <= bound(conv, 16, 15) / dense_norm(conv, 16, 15) < 1.06


def test_circular_same_convolutions_are_exact() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        conv = nn.Conv2d(3, 2, (3, 5), padding=(1, 2), bias=False, padding_mode="circular").double()
        size = 4 + seed % 3, 5 + seed % 4
        assert bound(conv, *size) == pytest.approx(dense_norm(conv, *size), rel=1e-9)


def test_one_point_less_on_the_torus_would_be_too_few() -> None:
    """N + p - 1 points: violated for random kernels, so N + p is not generous."""
    broken = 0
    for seed in range(300):
        torch.manual_seed(seed)
        conv = nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
        small = torch.fft.fft2(conv.weight.detach(), s=(3, 3)).abs().max()
        broken += bool(small < dense_norm(conv, 3, 3))
        assert bound(conv, 3, 3) >= dense_norm(conv, 3, 3)
    assert broken > 0


def test_a_dilated_kernel_is_the_kernel_with_its_zeros_written_out() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, (3, 2), padding=2, dilation=(2, 3), bias=False).double()
    x = torch.randn(4, 2, 8, 9, dtype=torch.float64)
    wide = dilated(conv.weight, conv.dilation)
    torch.testing.assert_close(nn.functional.conv2d(x, wide, padding=2), conv(x))


def test_an_image_that_is_smaller_than_the_kernel_is_bad_input() -> None:
    with pytest.raises(BadInput, match="5 x 5 is larger than the image 3 x 3"):
        conv_norm(torch.ones(1, 1, 5, 5), 3, 3, padding=(0, 0))

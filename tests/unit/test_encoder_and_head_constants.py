"""Certified constants of the encoder and of the head against dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from problems import norm2, randn
from torch.nn import functional

from robode.certificates.radius import row_distances
from robode.data.info import DatasetInfo
from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.linalg.convolution import conv_norm
from robode.network import Network
from robode.tasks.classification import Classification

GREY = DatasetInfo((1, 5, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(tuple("abc")))
COLOUR = DatasetInfo((3, 4, 4), (0.5, 0.4, 0.3), (0.1, 0.3, 0.4), (0.0, 1.0), Classification(tuple("abcd")))
VECTORS = DatasetInfo((2,), (0.0, 0.0), (0.5, 2.0), None, Classification(tuple("abc")))


def dense(kernel: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The zero-padded convolution as a matrix."""
    inputs = kernel.shape[1] * height * width
    basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, kernel.shape[1], height, width)
    p = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    return functional.conv2d(basis, kernel, padding=p).flatten(1).T


def test_the_fourier_bound_is_above_every_dense_norm_and_close_to_it() -> None:
    ratios = []
    for seed in range(60):
        out, ins = 1 + seed % 4, 1 + seed % 3
        kernel = randn(out, ins, 3, 3, seed=seed)
        height, width = 3 + seed % 6, 2 + seed % 5
        ratios.append(conv_norm(kernel, height, width) / norm2(dense(kernel, height, width)))
    assert min(ratios) >= 1
    assert sum(ratios) / len(ratios) < 1.25 and max(ratios) < 1.7  # tiny images; it tends to 1
    kernel = randn(2, 1, 3, 3, seed=1)
    assert conv_norm(kernel, 20, 20) <= 1.02 * norm2(dense(kernel, 20, 20))


def test_other_kernel_sizes_and_the_averaging_kernel() -> None:
    for size in ((1, 1), (5, 3)):
        kernel = randn(2, 2, *size, seed=3)
        assert conv_norm(kernel, 6, 5) >= norm2(dense(kernel, 6, 5))
    ones = torch.ones(1, 1, 3, 3)
    assert conv_norm(ones, 28, 28) == pytest.approx(9, rel=1e-9)  # the constant image, at frequency 0


def test_the_torus_of_the_images_own_size_would_be_wrong() -> None:
    """Why (N + p) points: three points do not see the frequency pi, at which this kernel is largest."""
    laplace = torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64)
    kernel = torch.outer(laplace, laplace)[None, None]
    wrong = float(torch.fft.fft2(kernel, s=(3, 3)).abs().max())
    true = norm2(dense(kernel, 3, 3))
    assert wrong == pytest.approx(9) and true == pytest.approx((2 + math.sqrt(2)) ** 2)
    assert wrong < true <= conv_norm(kernel, 3, 3) == pytest.approx(16)


@pytest.mark.parametrize("info", [GREY, COLOUR, VECTORS], ids=["grey", "colour", "vectors"])
def test_the_embedding_constant_bounds_the_jacobian_of_normalise_and_encoder(info: DatasetInfo) -> None:
    torch.manual_seed(0)
    network = Network(info, CHNode(4, 1, ETD())).double()
    J = torch.autograd.functional.jacobian(lambda x: network.embed(x).flatten(), torch.zeros(1, *info.shape).double())
    true = norm2(J.flatten(1))
    assert true <= network.encoder.lipschitz(network.normalise.std) <= 1.3 * true
    if info is VECTORS:
        assert network.encoder.lipschitz(network.normalise.std) == pytest.approx(1 / min(info.std), rel=1e-6)


def test_division_by_std_inside_the_kernel_is_never_worse_than_beside_it() -> None:
    torch.manual_seed(0)
    network = Network(COLOUR, CHNode(4, 1, ETD()))
    beside = 1 / min(COLOUR.std) * conv_norm(network.encoder.weight, 4, 4)
    assert network.encoder.lipschitz(network.normalise.std) < 0.9 * beside


def test_pairwise_radii_are_never_below_the_product_certificates() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        head = torch.nn.Linear(6, 5)
        W = head.weight.detach().double()
        pairs = row_distances(head.weight)
        assert float(pairs.max()) <= math.sqrt(2) * norm2(W) * (1 + 1e-9)
        expected = torch.stack([torch.stack([(a - b).norm() for b in W]) for a in W])
        torch.testing.assert_close(pairs, expected, rtol=1e-9, atol=0)

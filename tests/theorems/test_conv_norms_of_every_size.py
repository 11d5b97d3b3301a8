"""One number bounds the norm of a convolution on images of every size; how much it is too large.

docs/theory.md, section 29.
"""

from __future__ import annotations

import math
from functools import partial

import problems
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import norm2
from torch import Tensor
from torch.nn import functional as F

from robode.errors import BadInput
from robode.linalg.convolution import (
    GRID,
    PROOF,
    between_frequencies,
    conv_norm,
    conv_norm_of_every_size,
    norms_squared_of_every_size,
)

randn = partial(problems.randn, seed=0)


def dense_norm(kernel: Tensor, height: int, width: int, circular: bool = False) -> float:
    """Of the "same" convolution on images of that size, by its matrix."""
    inputs = kernel.shape[1] * height * width
    basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, kernel.shape[1], height, width)
    pads = [p for k in reversed(kernel.shape[2:]) for p in (k // 2, k // 2)]
    wide = F.pad(basis, pads, mode="circular" if circular else "constant")
    return norm2(F.conv2d(wide, kernel).flatten(1).T)


@pytest.mark.parametrize("taps", [(3, 3), (5, 3), (1, 3), (2, 3), (4, 5)])
def test_no_image_of_any_size_is_stretched_by_more(taps: tuple[int, int]) -> None:
    for seed in range(6):
        kernel = randn(1 + seed % 3, 2, *taps, seed=seed)
        bound = float(conv_norm_of_every_size(kernel))
        for side in range(3, 13):
            assert dense_norm(kernel, side, 15 - side) <= bound
            assert dense_norm(kernel, side, side) <= bound
            if all(k % 2 for k in taps):  # others give a row or a column twice
                assert dense_norm(kernel, side, side, circular=True) <= bound


def test_it_is_too_large_by_the_slack_of_the_grid_and_no_more() -> None:
    """Between what a fine grid attains, which large circular images reach, and that times the factor."""
    for seed in range(10):
        kernel = randn(3, 2, 3, 3, seed=seed)
        attained = float(conv_norm(kernel, 1024, 1024, circular=True))
        for grid in (16, 32, 64):
            bound = float(conv_norm_of_every_size(kernel, grid))
            assert attained * (1 - 1e-9) <= bound <= attained * between_frequencies((3, 3), (grid, grid)) * (1 + 1e-9)
    assert between_frequencies((3, 3), (64, 64)) == pytest.approx(1.00241, abs=1e-5)
    assert between_frequencies((3, 3), (32, 32)) == pytest.approx(1.00970, abs=1e-5)
    assert between_frequencies((1, 1), (32, 32)) == 1


@given(st.integers(1, 3), st.integers(0, 2**31), st.integers(1, 20))
def test_a_trigonometric_polynomial_is_bounded_by_its_values_on_a_grid(degree: int, seed: int, more: int) -> None:
    """Ehlich and Zeller, one variable, real coefficients: max |t| <= max over M > 2 p points / cos(pi p/M)."""
    points = 2 * degree + more
    a, b = torch.randn(2, degree + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def t(w: Tensor) -> Tensor:
        waves = torch.arange(degree + 1, dtype=torch.float64) * w[:, None]
        return waves.cos() @ a + waves.sin() @ b

    everywhere = t(torch.linspace(0, 2 * math.pi, 4096, dtype=torch.float64)).abs().max()
    on_grid = t(2 * math.pi / points * torch.arange(points, dtype=torch.float64)).abs().max()
    assert float(everywhere) <= float(on_grid) / math.cos(math.pi * degree / points) * (1 + 1e-12)


def test_no_smaller_factor_holds() -> None:
    """cos(w + pi/M) has its largest values on the grid, cos(pi/M), half way between two points of it."""
    for points in (4, 16, GRID):
        shift = torch.polar(torch.ones(2, dtype=torch.float64), torch.tensor([-1.0, 1.0]).double() * math.pi / points)
        kernel = torch.zeros(2, 2, 3, 1, dtype=torch.float64)  # z -> cos(w + pi/M) z of complex numbers, as 2 x 2 real
        for tap, value in ((0, shift[0] / 2), (2, shift[1] / 2)):
            kernel[:, :, tap, 0] = torch.tensor([[value.real, -value.imag], [value.imag, value.real]])
        # on the grid the norms are |cos(w +- pi/M)|; some frequency attains 1 times the factor
        grid_alone = float(conv_norm(kernel, points, 1, circular=True))
        assert grid_alone == pytest.approx(math.cos(math.pi / points), rel=1e-9)
        finer = float(conv_norm(kernel, 2 * points, 1, circular=True))
        assert finer == pytest.approx(grid_alone * between_frequencies((3, 1), (points, points)), rel=1e-9)


def test_the_grid_alone_would_be_too_little() -> None:
    """Of random kernels some are stretched more between the points of a coarse grid than at any of them."""
    broken = 0
    for seed in range(50):
        kernel = randn(1, 1, 3, 3, seed=seed)
        grid_alone = float(conv_norm(kernel, 4, 4, circular=True))
        broken += dense_norm(kernel, 11, 11) > grid_alone
        assert dense_norm(kernel, 11, 11) <= grid_alone * between_frequencies((3, 3), (4, 4))
    assert broken > 5


def test_what_is_enforced_bounds_what_is_certified() -> None:
    kernels = randn(7, 4, 6, 3, 3)
    certified = torch.stack([conv_norm_of_every_size(kernel, GRID) for kernel in kernels])
    enforced = norms_squared_of_every_size(kernels.float()).double().sqrt()
    assert bool((certified <= enforced).all())
    assert bool((enforced <= certified * math.sqrt(1 + PROOF) * (1 + 1e-6)).all())


def test_a_grid_that_says_nothing_is_bad_input() -> None:
    with pytest.raises(BadInput, match="more than 4 points an axis, got 4"):
        between_frequencies((5, 3), (4, 4))
    assert torch.isnan(conv_norm_of_every_size(torch.full((1, 1, 3, 3), math.nan)))

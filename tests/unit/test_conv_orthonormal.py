"""Kernels with nearly orthonormal rows, and what they do for the convolutional gradient flow: no direction fades."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.integrators.euler import Euler
from robode.linalg.conv_orthonormal import REACH, newton_schulz, random_orthonormal_kernels
from robode.linalg.convolution import Convolution

SHAPES = [(2, 3, 5, 3, 3), (2, 5, 3, 3, 3), (1, 4, 4, 5, 3)]


def symbols(kernels: Tensor, side: int = 16) -> Tensor:
    """K^(w) of circular convolutions: (L, side, side, c', c)."""
    return torch.fft.fft2(kernels, s=(side, side)).permute(0, 3, 4, 1, 2)


def small_kernels(shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(0)
    kernels = torch.randn(*shape, dtype=torch.float64)
    return kernels / torch.linalg.matrix_norm(symbols(kernels), 2).amax() * REACH**0.5


@pytest.mark.parametrize(("rows", "channels"), [(2, 4), (3, 3), (4, 2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
def test_random_kernels_are_orthonormal_on_every_image(rows: int, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for kernel in random_orthonormal_kernels(2, rows, channels, 3):
        images = torch.eye(channels * size[0] * size[1]).view(-1, channels, *size)
        W = Convolution(kernel)(images).flatten(1).mT
        gram = W @ W.mT if rows <= channels else W.mT @ W
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-4, rtol=0)
        assert float(torch.linalg.matrix_norm(W, 2)) <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_the_polynomial_of_the_singular_values_cut_to_the_taps(shape: tuple[int, ...]) -> None:
    kernels = small_kernels(shape)
    K = symbols(kernels)
    uncut = torch.fft.ifft2((1.5 * K - 0.5 * K @ K.mH @ K).permute(0, 3, 4, 1, 2)).real
    torch.testing.assert_close(newton_schulz(kernels), uncut[..., : shape[3], : shape[4]], atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_goes_down_the_gradient_of_the_distance_from_orthonormal(shape: tuple[int, ...]) -> None:
    """Of ||W W^T - I||^2 / 4, or ||W^T W - I||^2 / 4, per pixel."""
    kernels = small_kernels(shape).requires_grad_()

    def distance(K: Tensor) -> Tensor:
        gram = K @ K.mH if shape[1] <= shape[2] else K.mH @ K
        return (gram - torch.eye(gram.shape[-1])).abs().square().sum((-2, -1)).mean((1, 2)).sum() / 4

    before = distance(symbols(kernels))
    (gradient,) = torch.autograd.grad(before, kernels)
    after = newton_schulz(kernels.detach())
    torch.testing.assert_close(after, kernels.detach() - gradient / 2, atol=1e-12, rtol=0)
    assert float(distance(symbols(after))) < float(before.detach())


def flow(**options: str) -> ConvGradientFlow:
    torch.manual_seed(0)
    found = ConvGradientFlow(4, 3, Euler(), **options)
    found.build((4, 12, 12))
    return found


def flatness(phi: ConvGradientFlow) -> float:
    """The smallest singular value of a layer's symbol over the longest that is allowed: 1 for orthonormal rows."""
    longest = float(phi.limit) ** 0.5
    return min(float(torch.linalg.svdvals(symbols(K.detach(), 14)).amin()) / longest for K in phi.K)


def test_layers_start_orthonormal_and_keep_the_length_of_every_gradient() -> None:
    """Gaussian ones do not: their longest direction reflects, the others shrink."""
    phi = flow()
    assert flatness(phi) > 0.99 and flatness(flow(kernels="free")) < 0.2
    x = torch.randn(5, 4, 12, 12, requires_grad=True)
    y = phi(x)
    back = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * back).sum(), x)
    ratio = gradient.flatten(1).norm(dim=1) / back.flatten(1).norm(dim=1)
    torch.testing.assert_close(ratio, torch.ones(5), atol=0.01, rtol=0)


@torch.no_grad()
def train_at_random(phi: ConvGradientFlow, steps: int = 60) -> None:
    """Steps that lengthen one direction each, as those of Adam do: signs of a rank-one matrix, times .003."""
    for _ in range(steps):
        for K in phi.K:
            signs = torch.randn(*K.shape[:2], 1).sign() * torch.randn(K.shape[0], 1, K.shape[2]).sign()
            K.add_(0.003 * signs[..., None, None])
        phi.project_()


def test_updates_that_lengthen_a_direction_do_not_shorten_all_others() -> None:
    """What made this family train badly: after each step every direction paid for the longest."""
    kept, faded = flow(), flow(kernels="free")
    for phi in (kept, faded):
        train_at_random(phi)
        assert phi.certificate()["flow_discrete"] <= 1
    assert flatness(kept) > 0.7 and flatness(faded) < 0.05


def test_a_far_step_is_led_back_too_and_a_second_projection_changes_nothing() -> None:
    for far in (3.0, 100.0):
        phi = flow()
        with torch.no_grad():
            for K in phi.K:
                K.add_(far * torch.randn_like(K))
        phi.project_()
        before = [K.clone() for K in phi.K]
        assert phi.certificate()["flow_discrete"] <= 1
        phi.project_()
        assert all(torch.equal(a, b) for a, b in zip(before, phi.K, strict=True))


def test_with_space_to_depth_a_change_of_stage_loses_nothing() -> None:
    for V in flow().V:
        assert V.shape[0] == V.shape[1]
        torch.testing.assert_close(V.detach().mT @ V.detach(), torch.eye(V.shape[0]), atol=1e-3, rtol=0)

"""Gradients from which the growth of a convolution's norm is taken out, against finite differences."""

from __future__ import annotations

from functools import partial

import problems
import pytest
import torch
from torch import Tensor

from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.integrators.euler import Euler
from robode.linalg.conv_growth import growth, without_growth
from robode.linalg.convolution import conv_norm

randn = partial(problems.randn, seed=0)
EPS = 1e-6


def norms(kernels: Tensor) -> Tensor:
    """On the torus of 8 x 9 points."""
    return torch.stack([conv_norm(each, 8, 9, circular=True) for each in kernels])


@pytest.mark.parametrize("shape", [(3, 2, 4, 3, 3), (3, 4, 2, 3, 3), (2, 3, 3, 3, 3), (2, 1, 1, 5, 3)])
def test_it_is_the_derivative_of_the_norm(shape: tuple[int, ...]) -> None:
    K, direction = randn(*shape), randn(*shape, seed=1)
    found, D = growth(K, 8 - shape[3] // 2, 9 - shape[4] // 2)
    torch.testing.assert_close(found, norms(K), rtol=1e-7, atol=0)
    torch.testing.assert_close((D * K).flatten(1).sum(1), torch.ones(len(K)).double())
    slope = (norms(K + EPS * direction) - norms(K - EPS * direction)) / (2 * EPS)
    torch.testing.assert_close((D * direction).flatten(1).sum(1) * found, slope, rtol=1e-5, atol=1e-6)


def test_a_gradient_without_growth_is_that_of_the_kernel_over_its_norm() -> None:
    """d/dK of loss(K/||W||) at ||W|| = 1, where descent lengthens W; the gradient as it is, where it shortens it."""
    K, weights, other = randn(4, 2, 3, 3, 3), randn(4, 2, 3, 3, 3, seed=1), randn(4, 2, 3, 3, 3, seed=2)
    K = K / norms(K)[:, None, None, None, None]
    _, D = growth(K, 7, 8)

    def losses(kernels: Tensor) -> Tensor:
        return (weights * kernels).flatten(1).sum(1).square() - (weights * kernels).flatten(1).sum(1)

    def relative(kernels: Tensor) -> Tensor:
        return losses(kernels / norms(kernels)[:, None, None, None, None])

    leaf = K.clone().requires_grad_()
    (plain,) = torch.autograd.grad(losses(leaf).sum(), leaf)
    (found,) = torch.autograd.grad(losses(without_growth(leaf, D, torch.ones(4))).sum(), leaf)
    (inside,) = torch.autograd.grad(losses(without_growth(leaf, D, torch.zeros(4))).sum(), leaf)
    torch.testing.assert_close(inside, plain)
    lengthens = (plain * K).flatten(1).sum(1) < 0
    assert bool(lengthens.any()) and not bool(lengthens.all())
    slope = (relative(K + EPS * other) - relative(K - EPS * other)) / (2 * EPS)
    along = (found * other).flatten(1).sum(1)
    torch.testing.assert_close(along[lengthens], slope[lengthens], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[~lengthens], plain[~lengthens])


def trained(kernels: str) -> ConvGradientFlow:
    torch.manual_seed(0)
    flow = ConvGradientFlow(
        4, 3, Euler(), stages=1, expansion=1, kernels=kernels, sizes="every", init_norm=0.3, theta=0.9
    )
    flow.build((4, 10, 10))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    for _ in range(60):
        clean = torch.rand(8, 1, 1, 1).expand(8, 4, 10, 10)
        loss = (flow(clean + 0.2 * torch.randn(8, 4, 10, 10)) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        flow.project_()
    return flow


def test_no_direction_fades_that_is_only_shortened_otherwise() -> None:
    """Frobenius norms over spectral ones, after steps at a large rate: the price of lengthening is known."""

    def richness(flow: ConvGradientFlow) -> float:
        K = flow.K[0].detach()
        return float((K.flatten(1).norm(dim=1) / growth(K, 9, 9)[0]).mean())

    assert richness(trained("tangent")) > richness(trained("free"))


def test_the_forward_pass_is_the_same_in_training_and_for_measuring() -> None:
    flow = trained("tangent")
    x = torch.rand(2, 4, 10, 10)
    assert torch.equal(flow.train()(x), flow.eval()(x))
    assert flow.averagedness() < 1

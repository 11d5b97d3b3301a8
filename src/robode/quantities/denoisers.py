"""Networks as denoisers of pictures of any size, with what is proven of them, and iterations that are made of them.

Theory: docs/theory.md, section 30.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robode.deblurring import Blur
from robode.encoders import ZeroChannels
from robode.errors import BadInput
from robode.foreign import patched
from robode.heads import Projection
from robode.iterations import Iteration, Map, clip, gradient_step
from robode.network import Network


def is_denoiser(network: nn.Module) -> bool:
    """Whether it is P N L: channels of zeros, a flow of pixels, the first channels; and nothing is normalised."""
    if not isinstance(network, Network) or patched(network):
        return False
    parts = isinstance(network.head, Projection) and isinstance(network.encoder, ZeroChannels)
    return parts and not bool(network.normalise.mean.any()) and bool((network.normalise.std == 1).all())


def denoiser(network: Network) -> Map:
    """(B, C, H, W) -> (B, C, H, W), of any size that the flow takes. Averaged as its flow is: P L = I, so that
    P ((1 - theta) I + theta R) L = (1 - theta) I + theta P R L, and P R L is 1-Lipschitz. Raises `BadInput` for another
    network, `JobFailed` for weights that are not finite."""
    if not is_denoiser(network):
        raise BadInput(
            "denoiser: expected encoder=zero_channels and head=projection, on data that are not normalised; choose "
            "model=denoiser or dncnn"
        )
    channels = network.info.shape[0]

    def apply(x: Tensor) -> Tensor:
        y, context = network.encode(x)
        return network.flow(y, context)[:, :channels]

    theta = network.flow.averagedness()
    return Map("denoiser", apply, 1.0 if theta <= 1 else math.inf, theta)


def strengthened(of: Map, s: float) -> Map:
    """N(s x)/s: takes away noise that is s times weaker, with the constants of N."""
    return Map(of.name, lambda x: of(s * x) / s, of.lipschitz, of.averaged)


def plug_and_play(of: Map, blur: Blur, y: Tensor, tau: float) -> Iteration:
    """x <- clip(N(x - tau K^T (K x - y))): a gradient step, the denoiser, and the box [0, 1]^d, without which nothing
    says that there is a fixed point. y: (B, C, H, W)."""
    step = gradient_step(lambda x: blur.gradient(x, y), tau, blur.L, blur.mu)
    return Iteration(step, of, clip(0.0, 1.0))


def largest_growth(steps: Tensor, least: float) -> float:
    """The largest ||x_{k+1} - x_k||/||x_k - x_{k-1}|| of steps (K, B) of which none is shorter than `least`; 0 where
    there are no two, inf where one is not finite."""
    if not bool(steps.isfinite().all()):
        return math.inf
    long = steps[1:] > least
    return float(torch.where(long, steps[1:] / steps[:-1].clamp_min(least), 0.0).max()) if len(steps) > 1 else 0.0

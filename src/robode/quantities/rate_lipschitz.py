"""How fast dV/dt = grad V(eta) . f(t, eta; x) changes with the sample x, in the max norm: the L of LyaNet's Theorem 3.

From below by gradients (`measured`), which proves nothing, and from above by the norms of all layers (`certified`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from robode.certificates.lipschitz import lipschitz
from robode.encoders import MLPControl, ResNet18Control
from robode.families.data_node import TINY, DataNode
from robode.foreign import patched
from robode.heads import matrix_of
from robode.linalg.norms import ROUNDING, spectral_norms
from robode.network import Network
from robode.quantities.visited import cross_entropy_and_rate


def measured(network: Network, x: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """The largest 1-norm of the gradient of x' -> dV/dt that was found for each sample, (B,), in units of 1/t and per
    data unit: a lower bound of the Lipschitz constant, in the max norm, on the ball of radius eps around x.

    At x for every state at the ends of the layers; then, for the state where that was largest, at `steps` points of
    the ball on each of two ways that begin at its corners along the gradient (a random one where that is 0), and climb
    up and down.
    """
    with torch.no_grad():
        states = torch.stack(network.flow.states(*network.encode(x)))
    places = torch.arange(len(states), device=x.device).clamp_max(network.flow.depth - 1)
    slopes = torch.stack([_gradient(network, x, labels, y, place) for y, place in zip(states, places, strict=True)])
    best, which = slopes.abs().flatten(2).sum(2).max(0)
    rows = torch.arange(len(x), device=x.device)
    state, place, first = states[which, rows], places[which], slopes[which, rows]
    flat = best.view(-1, *[1] * (x.dim() - 1)) == 0
    random = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
    corner = torch.where(flat, random, first).sign()
    for way in (eps, -eps):
        moved = x + way * corner
        for _ in range(steps):
            slope = _gradient(network, moved, labels, state, place)
            best = torch.maximum(best, slope.abs().flatten(1).sum(1))
            moved = x + (moved + way * slope.sign() - x).clamp(-eps, eps)
    return best


def _gradient(network: Network, x: Tensor, labels: Tensor, state: Tensor, place: Tensor) -> Tensor:
    """Of dV/dt at the states (B, n), held fixed, in front of the layers `place` (B,) or ()."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        fields = network.flow.fields(network.encode(x)[1])
        if len(set(map(id, fields))) == 1 and fields[0].autonomous:
            speed = fields[0](0.0, state.T).T
        else:
            every = [field(j * float(network.flow.h), state.T).T for j, field in enumerate(fields)]
            speed = torch.stack(every)[place, torch.arange(len(x), device=x.device)]
        logits, slope, *_ = torch.func.jvp(network.head, (state,), (speed,))
        rate = cross_entropy_and_rate(logits, slope, labels)[1]
        return torch.autograd.grad(rate.sum(), x)[0]


@torch.no_grad()
def certified(network: Network, radius: float) -> float:
    """An upper bound of the Lipschitz constant of x -> dV/dt in the max norm, in units of 1/t and per data unit, for
    all samples and all states |eta| <= radius; inf where none is known (fields of others, other encoders).

    |grad V| <= sqrt 2 |W_head|; f = (speed/n) m(u) u with m = sum_k p_k d_k and u = r/max(|r|, TINY), where
    |u - u'| <= |r - r'|/TINY, |m(u) - m(u')| <= s (d_max - d_min) |u - u'|, and r follows W(x) by the norms of W2, of
    the slopes and of the hidden state. W(x) follows x by the product of the encoder's norms, sqrt(d) times. It is
    about the field as the code computes it: u has no limit where r is 0, and TINY alone makes it Lipschitz.
    network: `exact_copy`.
    """
    flow, matrix = network.flow, matrix_of(network.head)
    if type(flow) is not DataNode or patched(flow) or matrix is None:
        return math.inf
    encoder = context_lipschitz(network)
    n, s = flow.width, flow.box
    slope = max(1.0, abs(float(flow.slope)))
    W1, W2, head = (float(spectral_norms(each)) * ROUNDING for each in (flow.W1, flow.W2, matrix[0]))
    hidden = slope * (W1 * radius + float(flow.b1.norm()))
    farthest, apart = radius + s * math.sqrt(n), 2 * math.sqrt(2) * s
    of_u = float(flow.gain) * flow.kappa / n * (farthest + s * apart)
    of_r = W2 * slope * hidden * encoder * math.sqrt(math.prod(network.info.shape))
    return math.sqrt(2) * head * of_u * of_r / TINY * ROUNDING


def context_lipschitz(network: Network) -> float:
    """Certified constant of x -> the context that fields are bound to, in the 2-norm, eval mode; inf where none is."""
    encoder = network.encoder
    known = MLPControl if isinstance(encoder, MLPControl) else ResNet18Control
    if not isinstance(encoder, known) or type(encoder) is not known or patched(encoder) or patched(network):
        return math.inf
    parts = [network.normalise, *_flat(encoder.features), encoder.last]
    return lipschitz(nn.Sequential(*parts), network.info.shape)


def _flat(chain: nn.Module) -> Iterator[nn.Module]:
    for part in chain.children():
        yield Vouching(part) if isinstance(part, BasicBlock) else part


class Vouching(nn.Module):
    """A residual block that knows its constant: |relu(s y + F y)| has at most those of s and F together."""

    def __init__(self, block: BasicBlock):
        super().__init__()
        self.block = block

    def forward(self, y: Tensor) -> Tensor:
        """The block. y: (B, channels, H, W)."""
        found: Tensor = self.block(y)
        return found

    def certified_lipschitz(self, shape: tuple[int, ...]) -> float:
        """See the class. shape: of one sample, (channels, H, W)."""
        block = self.block
        inner = nn.Sequential(block.conv1, block.bn1, block.relu, block.conv2, block.bn2)
        return lipschitz(inner, shape) + (lipschitz(block.downsample, shape) if block.downsample else 1.0)

"""What the square attack tries: for each norm a first change, and changes of a random place of the best x' so far.

Images are (B, C, H, W). Vectors have no squares: for linf a random run of entries takes their place, for l2 a random
direction. Source: Andriushchenko et al., ECCV 2020, section 3; for l2 sections 3.4 and B.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from robode.attacks.balls import Region, beside, length
from robode.corruptions.noise import Draws

Start = Callable[[Region, Draws], Tensor]
Change = Callable[[Region, Tensor, Draws, float], Tensor]
"""(region, best x' so far, draws, share of the image to change) -> a new x', still to be brought into the region."""

TILES = 5
"""Along the shorter side of an image, in the first change for l2."""
TINY = 1e-12


def moves_for(x: Tensor, norm: str) -> tuple[Start, Change]:
    """For samples like x, and norm linf or l2."""
    if norm == "linf":
        return stripes, recolour
    return (tiles, regather) if x.ndim == 4 else (direction, turn)


def stripes(region: Region, draws: Draws) -> Tensor:
    """Linf: every column of a channel (every entry of a vector) at one end of its interval."""
    image = _as_image(region.x)
    up = draws.uniform(image.shape[1], 1, image.shape[3]) < 0.5
    return torch.where(up.expand_as(image).reshape(region.x.shape), region.upper, region.lower)


def recolour(region: Region, best: Tensor, draws: Draws, share: float) -> Tensor:
    """Linf: a square (a run of entries), all of it at one end in each channel."""
    image = _as_image(best)
    channels, high, wide = image.shape[1:]
    side = max(1, round(math.sqrt(share * high * wide)))
    size = (min(side, high), min(side, wide)) if best.ndim == 4 else (1, max(1, round(share * wide)))
    u = draws.uniform(2 + channels)
    hit = _window(u, size, image.shape)
    moved, up = image.clone(), (u[:, 2:, None, None] < 0.5).to(best)
    moved[hit] = torch.lerp(_as_image(region.lower)[hit], _as_image(region.upper)[hit], up)
    return moved.view_as(best)


def tiles(region: Region, draws: Draws) -> Tensor:
    """L2: bumps of random sign side by side."""
    x = region.x
    high, wide = x.shape[2:]
    side = max(1, min(high, wide) // TILES)
    up, across = high // side, wide // side
    signs = draws.uniform(x.shape[1], up, across).sub_(0.5).sign_()
    delta = torch.zeros_like(x)
    delta[:, :, : up * side, : across * side] = torch.kron(signs, bump(side).to(x))
    return x + _scaled(delta, region.eps)


def regather(region: Region, best: Tensor, draws: Draws, share: float) -> Tensor:
    """L2: what two squares hold, and what the bounds have cut off, is put into the first of them as another bump."""
    x, delta = region.x, best - region.x
    channels, high, wide = x.shape[1:]
    side = min(max(3, round(math.sqrt(share * high * wide)) | 1), high, wide)
    u = draws.uniform(5 + channels)
    here, there = (_window(u[:, 2 * i :], (side, side), x.shape) for i in range(2))
    shape = torch.where((u[:, 4] < 0.5)[:, None, None], bump(side).to(x), bump(side).T.to(x))[:, None]
    old = delta[here]
    new = old / (_norm(old) + TINY) + shape * (u[:, 5:, None, None] - 0.5).sign()
    kept = delta.clone()
    kept[here], kept[there] = 0.0, 0.0
    held = _norm(delta).square() - _norm(kept).square()
    spare = (region.eps.square() - length(delta, "l2").square()).clamp_min(0)[:, None, None, None] / channels
    kept[here] = new / (_norm(new) + TINY) * (held + spare).clamp_min(0).sqrt()
    return x + _scaled(kept, region.eps)


def direction(region: Region, draws: Draws) -> Tensor:
    """L2, vectors: anywhere on the sphere."""
    return region.x + _scaled(draws.normal(*region.x.shape[1:]).to(region.x), region.eps)


def turn(region: Region, best: Tensor, draws: Draws, share: float) -> Tensor:
    """L2, vectors: turned on the sphere by about sqrt(share) of a right angle."""
    z = draws.normal(*best.shape[1:]).to(best)
    delta = best - region.x
    return region.x + _scaled(delta + math.sqrt(share) * _scaled(z, length(delta, "l2")), region.eps)


@functools.cache
def bump(side: int) -> Tensor:
    """(side, side) of norm 1: two pyramids of opposite sign, one above the other; 1 for a single pixel."""
    if side == 1:
        return torch.ones(1, 1)
    top = side // 2
    found = torch.cat([_pyramid(top, side), -_pyramid(side - top, side)])
    return found / found.norm()


def _pyramid(high: int, wide: int) -> Tensor:
    """(high, wide): falls off from the middle by rings, ring k weighing what the squares 1 … 1/k^2 around it add."""
    rows = (torch.arange(high) - high // 2).abs()[:, None]
    columns = (torch.arange(wide) - wide // 2).abs()[None]
    ring, last = torch.maximum(rows, columns), max(high, wide) // 2
    weights = 1 / torch.arange(1, last + 2) ** 2
    found = weights.flip(0).cumsum(0).flip(0)[ring]
    return found / found.norm()


def _as_image(x: Tensor) -> Tensor:
    """(B, C, H, W); a vector is one channel, one pixel high."""
    return x if x.ndim == 4 else x.view(len(x), 1, 1, -1)


def _window(u: Tensor, size: tuple[int, int], shape: torch.Size) -> tuple[Tensor, ...]:
    """Indices of a rectangle of each image (B, C, H, W), all channels: x[window] is (B, C, *size).

    u: (B, >= 2) in [0, 1), where it is: from the top and the left to the bottom and the right."""
    first = [(u[:, i, None] * (shape[2 + i] - size[i] + 1)).long() for i in range(2)]
    rows, columns = (first[i] + torch.arange(size[i], device=u.device) for i in range(2))
    samples = torch.arange(shape[0], device=u.device)[:, None, None, None]
    channels = torch.arange(shape[1], device=u.device)[None, :, None, None]
    return samples, channels, rows[:, None, :, None], columns[:, None, None, :]


def _norm(part: Tensor) -> Tensor:
    """Of every channel: (B, C, 1, 1)."""
    return part.square().sum(dim=(2, 3), keepdim=True).sqrt()


def _scaled(delta: Tensor, size: Tensor) -> Tensor:
    """To the Euclidean length `size` (B,)."""
    return delta * beside(size / (length(delta, "l2") + TINY), delta)

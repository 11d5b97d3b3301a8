"""Square attack: random squares (images) or random steps (vectors), kept where they help. It sees outputs only.

For each norm there is a first change, and changes of a random place of the best x' so far. Images are (B, C, H, W).
Vectors have no squares: for linf a random run of entries takes their place, for l2 a random direction.
Source: Andriushchenko, Croce, Flammarion, Hein, "Square Attack", ECCV 2020, section 3; for l2 sections 3.4 and B.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robode.attacks.attack import Attack
from robode.attacks.balls import SMOOTH, Region, beside, check_norm, length
from robode.attacks.problem import Problem, attacking, in_turn, loss_named
from robode.corruptions.noise import PerSampleRNG
from robode.errors import BadInput
from robode.tasks.task import AttackLoss

First = Callable[[Region, PerSampleRNG], Tensor]
Change = Callable[[Region, Tensor, PerSampleRNG, float], Tensor]
"""(region, best x' so far, rng, share of the image to change) -> a new x', still to be brought into the region."""

TILES = 5
"""Along the shorter side of an image, in the first change for l2."""
TINY = 1e-12

FIRST = 0.8
"""Share of the image that the first squares cover."""
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10 000, after which that share is halved."""


def square(problem: Problem, *, queries: int = 1000) -> Tensor:
    """x' (like x) of the largest margin that `queries` random changes found, the first wrong answer if there is one; of
    a task without a margin, of the largest first loss.

    problem: with norm linf or l2, of images (C, H, W) or vectors (d,); queries: forward passes of one sample. No
    gradients. A sample is let go at its first wrong answer, and wrong ones stay x, which changes no other sample.
    Raises BadInput for another norm, or queries < 1.
    """
    if queries < 1:
        raise BadInput(f"queries={queries}: expected at least 1")
    check_norm(problem.norm, SMOOTH)
    losses = problem.task.attack_losses
    loss = losses.get("margin", loss_named(None, problem.task))
    with attacking(problem.model):
        return in_turn(problem, [functools.partial(_search, loss=loss, queries=queries)])


def share(query: int, queries: int) -> float:
    """Of the image, that the squares of a query cover."""
    return FIRST / 2 ** sum(query * 10_000 // queries > limit for limit in HALVED_AT)


def _search(problem: Problem, *, loss: AttackLoss, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """An `Attempt`."""
    first, change = moves_for(problem.x, problem.norm)
    region, target, rng = problem.region, problem.target, problem.rng
    result, fell = problem.x.clone(), torch.zeros_like(problem.eps, dtype=torch.bool)
    rows = torch.arange(len(target), device=target.device)
    values = torch.full_like(problem.eps, -math.inf)
    best, best_value = problem.x.clone(), values.clone()
    for query in range(queries):
        moved = change(region, best, rng, share(query, queries)) if query else first(region, rng)
        output = problem.model(region.back(moved))
        value, gone = loss(output, target), problem.failed(output, target)
        better = value > best_value
        best[better], best_value[better] = moved[better], value[better]
        if bool(gone.any()):
            result[rows[gone]], fell[rows[gone]] = moved[gone], True
            keep = ~gone
            region, rng = region.of(keep), rng.of(keep)
            rows, target, best, best_value = rows[keep], target[keep], best[keep], best_value[keep]
            if not len(rows):
                return result, fell, values
    result[rows], values[rows] = best, best_value
    return result, fell, values


class Square(Attack):
    """The square attack, which sees outputs only."""

    norms = SMOOTH
    queries: int

    def __init__(
        self, eps: float | Sequence[float], norm: str = "linf", queries: int = 1000, suite: str = "attacks"
    ) -> None:
        super().__init__("square", eps, norm, suite, queries=queries)

    def find(self, problem: Problem) -> Tensor:
        return square(problem, queries=self.queries)


def moves_for(x: Tensor, norm: str) -> tuple[First, Change]:
    """For samples like x, and norm linf or l2."""
    if norm == "linf":
        return stripes, recolour
    return (tiles, regather) if x.ndim == 4 else (direction, turn)


def stripes(region: Region, rng: PerSampleRNG) -> Tensor:
    """Linf: every column of a channel (every entry of a vector) at one end of its interval."""
    image = _as_image(region.x)
    up = rng.uniform(image.shape[1], 1, image.shape[3]) < 0.5
    return torch.where(up.expand_as(image).reshape(region.x.shape), region.upper, region.lower)


def recolour(region: Region, best: Tensor, rng: PerSampleRNG, share: float) -> Tensor:
    """Linf: a square (a run of entries), all of it at one end in each channel."""
    image = _as_image(best)
    channels, high, wide = image.shape[1:]
    side = max(1, round(math.sqrt(share * high * wide)))
    size = (min(side, high), min(side, wide)) if best.ndim == 4 else (1, max(1, round(share * wide)))
    u = rng.uniform(2 + channels)
    hit = _window(u, size, image.shape)
    moved, up = image.clone(), (u[:, 2:, None, None] < 0.5).to(best)
    moved[hit] = torch.lerp(_as_image(region.lower)[hit], _as_image(region.upper)[hit], up)
    return moved.view_as(best)


def tiles(region: Region, rng: PerSampleRNG) -> Tensor:
    """L2: bumps of random sign side by side."""
    x = region.x
    high, wide = x.shape[2:]
    side = max(1, min(high, wide) // TILES)
    up, across = high // side, wide // side
    signs = rng.uniform(x.shape[1], up, across).sub_(0.5).sign_()
    delta = torch.zeros_like(x)
    delta[:, :, : up * side, : across * side] = torch.kron(signs, bump(side).to(x))
    return x + _scaled(delta, region.eps)


def regather(region: Region, best: Tensor, rng: PerSampleRNG, share: float) -> Tensor:
    """L2: what two squares hold, and what the bounds have cut off, is put into the first of them as another bump."""
    x, delta = region.x, best - region.x
    channels, high, wide = x.shape[1:]
    side = min(max(3, round(math.sqrt(share * high * wide)) | 1), high, wide)
    u = rng.uniform(5 + channels)
    here, there = (_window(u[:, 2 * i :], (side, side), x.shape) for i in range(2))
    shape = torch.where((u[:, 4] < 0.5)[:, None, None], bump(side).to(x), bump(side).T.to(x))[:, None]
    old = delta[here]
    new = old / (_norm(old) + TINY) + shape * (u[:, 5:, None, None] - 0.5).sign()
    kept = delta.clone()
    kept[here], kept[there] = 0.0, 0.0
    held = _norm(delta).square() - _norm(kept).square()
    cut_off = (region.eps.square() - length(delta, "l2").square()).clamp_min(0)[:, None, None, None] / channels
    kept[here] = new / (_norm(new) + TINY) * (held + cut_off).clamp_min(0).sqrt()
    return x + _scaled(kept, region.eps)


def direction(region: Region, rng: PerSampleRNG) -> Tensor:
    """L2, vectors: anywhere on the sphere."""
    return region.x + _scaled(rng.normal(*region.x.shape[1:]).to(region.x), region.eps)


def turn(region: Region, best: Tensor, rng: PerSampleRNG, share: float) -> Tensor:
    """L2, vectors: turned on the sphere by about sqrt(share) of a right angle."""
    z = rng.normal(*best.shape[1:]).to(best)
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

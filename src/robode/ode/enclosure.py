"""What a flow does to a whole box of inputs: affine forms with certified remainders, in float64.

A state over the box x = c + r e, |e| <= 1, is centre + generators e + noise. The part linear in e is kept exactly, so
the remainder shrinks with the square of the box (affine arithmetic: Stolfi and de Figueiredo 1997; on networks: Singh
et al., "Fast and effective robustness certification", 2018). Each step encloses its own remainder in a box and later
steps transport that box linearly, so nothing wraps from step to step. Steps and fields say themselves how they are
enclosed (`enclose`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.activations import Activation

# Rounding of a sum of a few hundred float64 products, relative to the sum of their sizes; 2^-53 is 1.1e-16.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Enclosure:
    """Columns of states, one for each box. centre, noise >= 0: (n, M); generators: (n, g, M)."""

    centre: Tensor
    generators: Tensor
    noise: Tensor

    @property
    def radius(self) -> Tensor:
        """Half-widths of the smallest enclosing boxes, (n, M)."""
        return self.generators.abs().sum(1) + self.noise

    def linear(self, W: Tensor, b: Tensor | None = None) -> Enclosure:
        """W z + b. W: (m, n), b: (m, 1)."""
        n, g, M = self.generators.shape
        centre = W @ self.centre
        size = W.abs() @ (self.centre.abs() + self.radius)
        if b is not None:
            centre, size = centre + b, size + b.abs()
        generators = (W @ self.generators.reshape(n, g * M)).reshape(len(W), g, M)
        return Enclosure(centre, generators, W.abs() @ self.noise + ROUNDING * size)

    def __add__(self, other: Enclosure) -> Enclosure:
        """Sum of two enclosures over the same generators."""
        noise = self.noise + other.noise
        return Enclosure(self.centre + other.centre, self.generators + other.generators, noise)

    def scaled(self, factor: float) -> Enclosure:
        """The enclosure of factor times the values."""
        return Enclosure(factor * self.centre, factor * self.generators, abs(factor) * self.noise)

    def activated(self, activation: Activation) -> Enclosure:
        """sigma(z) inside slope z + offset +- deviation, with the chord's slope and the exact largest deviation."""
        reach = self.radius * (1 + ROUNDING) + ROUNDING * self.centre.abs()
        low, high = self.centre - reach, self.centre + reach
        slope = _slope(activation, low, high)
        gaps = torch.stack([activation(t) - slope * t for t in _candidates(activation, slope, low, high)])
        top, bottom = gaps.amax(0), gaps.amin(0)
        size = slope * (self.centre.abs() + reach) + activation(low).abs() + activation(high).abs()
        deviation = 0.5 * (top - bottom) + ROUNDING * size + activation.jump
        return Enclosure(
            slope * self.centre + 0.5 * (top + bottom),
            slope[:, None] * self.generators,
            slope * self.noise + deviation,
        )

    def absorbed(self) -> Enclosure:
        """The noise as n further generators, which later linear maps transport without absolute values."""
        own = torch.diag_embed(self.noise.T).permute(1, 2, 0)
        return Enclosure(self.centre, torch.cat([self.generators, own], dim=1), torch.zeros_like(self.noise))


def _slope(activation: Activation, low: Tensor, high: Tensor) -> Tensor:
    """The chord's slope; any slope is sound, so where the chord cancels the derivative serves."""
    width = high - low
    chord = (activation(high) - activation(low)) / width
    middle = activation.derivative(0.5 * (low + high))
    return torch.where(width > 1e-6, chord, middle).clamp(0.0, activation.slope_bound)


def _candidates(activation: Activation, slope: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
    """Where sigma(t) - slope t can be largest or smallest on [low, high]."""
    if activation.turning is None:
        raise BadInput(f"model.activation: no certified enclosure of {activation.name}")
    return [low, high, *(torch.minimum(torch.maximum(t, low), high) for t in activation.turning(slope))]

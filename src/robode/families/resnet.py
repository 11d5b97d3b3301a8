"""The ResNet of Table I: x+ = x + h sigma(K x + b); Eq. (7) with F = K^{-T}, L = 0, kappa = 0 (Remark 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robode.families.layered import LayeredFlow
from robode.ode.field import OneLayerField


class ResNet(LayeredFlow):
    """One sigma(Kx + b) per step. step="auto" is h = 1, the layer as printed; the published script uses h = 0.5.

    Property: none by design; ||d phi|| <= the certified bound, which grows with ||K||.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.integrator.check(self.fields()[0])

    def fields(self, context: Tensor | None = None) -> list[OneLayerField]:
        layers = zip(self.weights().unbind(0), self.biases().unbind(0), strict=True)
        return self.each_step([OneLayerField(K, b, self.activation) for K, b in layers])

"""The ResNet of Table I: x+ = x + h sigma(K x + b); Eq. (7) with F = K^{-T}, L = 0, kappa = 0 (Remark 3)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from robode.families.layered import LayeredFlow, LayeredKeys
from robode.integrators.integrator import Integrator
from robode.ode.field import OneLayerField


class ResNet(LayeredFlow):
    """One sigma(Kx + b) per step. step="auto" is h = 1, the layer as printed; the published script uses h = 0.5.

    Property: none by design; ||d phi|| <= the certified bound, which grows with ||K||.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        init_std: float = 1.0,
        **keys: Unpack[LayeredKeys],
    ):
        super().__init__(width, depth, integrator, step, horizon, init_std=init_std, **keys)
        self.integrator.check(self.fields()[0])

    def fields(self, context: Tensor | None = None) -> list[OneLayerField]:
        layers = zip(self.weights().unbind(0), self.biases().unbind(0), strict=True)
        return self.each_step([OneLayerField(K, b, self.activation) for K, b in layers])

"""The ResNet of Table I: x+ = x + h sigma(K x + b); Eq. (7) with F = K^{-T}, L = 0, kappa = 0 (Remark 3)."""

from __future__ import annotations

from typing import Any

import torch

from robode.fields.layered import LayeredFlow
from robode.ode.bounds import Scalar
from robode.ode.vector_field import OneLayerField


class ResNet(LayeredFlow):
    """One sigma(Kx + b) per step. step="auto" is h = 1, the layer as printed; the published script uses h = 0.5.

    Property: none by design; ||d phi|| <= the certified bound, which grows with ||K||.
    """

    claim = "bounded"
    AUTO_STEP = 1.0

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.auto:
            self.h.fill_(self.AUTO_STEP)
        self.integrator.check(self.bind()[0][0])

    def bind(self, dtype: torch.dtype | None = None) -> tuple[list[OneLayerField], Scalar]:
        K, b = self.weights(), self.biases()
        if dtype is not None:
            K, b = K.detach().to(dtype), b.detach().to(dtype)
        fields = [OneLayerField(Kj, bj, self.activation) for Kj, bj in zip(K.unbind(0), b.unbind(0), strict=True)]
        return fields * (self.depth if self.shared else 1), float(self.h)

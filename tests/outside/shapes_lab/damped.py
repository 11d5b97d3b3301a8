"""A family: a ResNet that forgets, x' = sigma(2 K x + b) - rate x, with at most 25 lines of code."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robode.fields.layered import LayeredFlow
from robode.ode.vector_field import OneLayerField


@dataclass(frozen=True)
class DampedField(OneLayerField):
    rate: float

    def __call__(self, t, y):
        return super().__call__(t, y) - self.rate * y

    def jacobian(self, t, y):
        return super().jacobian(t, y) - self.rate * torch.eye(len(y), dtype=y.dtype)

    def lognorm(self):
        return super().lognorm() - self.rate

    def lipschitz(self):
        return super().lipschitz() + self.rate


class Damped(LayeredFlow):
    def __init__(self, *args, rate=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.rate = rate

    def weights(self):
        return 2 * self.K

    def fields(self, context=None):
        layers = zip(self.weights(), self.biases(), strict=True)
        return self.each_step([DampedField(K, b, self.activation, self.rate) for K, b in layers])

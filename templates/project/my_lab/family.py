"""A family: a ResNet that forgets, x' = σ(2 K x + b) − rate x."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robode.families.layered import LayeredFlow
from robode.ode.field import OneLayerField, VectorField
from robode.ode.step import identity_like


@dataclass(frozen=True)
class DampedField(VectorField):
    """Of one layer. Each rate of forgetting lowers the log-norm by itself, so that it may make a flow contractive."""

    layer: OneLayerField
    rate: float

    def __call__(self, t: float | Tensor, y: Tensor) -> Tensor:
        return self.layer(t, y) - self.rate * y

    def jacobian(self, t: float | Tensor, y: Tensor) -> Tensor:
        return self.layer.jacobian(t, y) - self.rate * identity_like(y)

    def lognorm(self):
        return self.layer.lognorm() - self.rate

    def lipschitz(self):
        return self.layer.lipschitz() + self.rate


class Damped(LayeredFlow):
    """A field of its own for each step; the integrator, the encoder and the head are robode's."""

    def __init__(self, *args, rate: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.rate = rate

    def weights(self) -> Tensor:
        return 2 * self.K

    def fields(self, context: Tensor | None = None) -> list[VectorField]:
        layers = [OneLayerField(K, b, self.activation) for K, b in zip(self.weights(), self.biases(), strict=True)]
        return self.each_step([DampedField(layer, self.rate) for layer in layers])

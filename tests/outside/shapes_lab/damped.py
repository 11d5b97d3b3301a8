"""A family: a ResNet that forgets, x' = sigma(2 K x + b) - rate x, with at most 25 lines of code."""

from dataclasses import dataclass

from robode.families.layered import LayeredFlow
from robode.ode.field import OneLayerField, VectorField
from robode.ode.step import identity_like


@dataclass(frozen=True)
class DampedField(VectorField):
    layer: OneLayerField
    rate: float

    def __call__(self, t, y):
        return self.layer(t, y) - self.rate * y

    def jacobian(self, t, y):
        return self.layer.jacobian(t, y) - self.rate * identity_like(y)

    def lognorm(self):
        return self.layer.lognorm() - self.rate

    def lipschitz(self):
        return self.layer.lipschitz() + self.rate


class Damped(LayeredFlow):
    def __init__(self, *args, rate=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.rate = rate

    def weights(self):
        return 2 * self.K

    def fields(self, context=None):
        layers = [OneLayerField(K, b, self.activation) for K, b in zip(self.weights(), self.biases(), strict=True)]
        return self.each_step([DampedField(layer, self.rate) for layer in layers])

"""The Stoermer-Verlet method, for fields with two halves (Hairer, Lubich and Wanner, Geometric numerical integration,
I.1.4 and VI.3; networks: Haber and Ruthotto, Stable architectures for deep neural networks, 2017)."""

from __future__ import annotations

from robode.integrators.symplectic_euler import Shears
from robode.ode.bounds import Scalar
from robode.ode.field import PartitionedField, VectorField
from robode.ode.step import Chain, Step


class Verlet(Shears):
    """Half a step of p, a whole one of q, half a step of p; order 2, symmetric.

    Networks that keep p half a step behind q ("leapfrog": q, then p, a whole step each) make the same states, but for
    the half steps of p at both ends where consecutive layers share their weights.
    """

    name, order = "verlet", 2

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        assert isinstance(field, PartitionedField)
        half = field.shear(0.5 * h, of_q=False)
        return Chain([half, field.shear(h, of_q=True), half])

"""Symplectic Euler, for fields with two halves (Hairer, Lubich and Wanner, Geometric numerical integration, VI.3)."""

from __future__ import annotations

from robode.integrators.integrator import Integrator
from robode.ode.bounds import Scalar
from robode.ode.field import PartitionedField, VectorField
from robode.ode.step import Chain, Step


class Shears(Integrator):
    """Moves q and p in turn, each with the other held: volumes are kept, and on separable Hamiltonians (H2 of H-DNN)
    the symplectic form."""

    symplectic = True
    needs = "a separable Hamiltonian (model=hdnn model.separable=true, hdnn_ms1 or hdnn_ms3)"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, PartitionedField) and field.partitioned


class SymplecticEuler(Shears):
    """q first, then p with the new q, order 1."""

    name, order = "symplectic_euler", 1

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        assert isinstance(field, PartitionedField)
        return Chain([field.shear(h, of_q=True), field.shear(h, of_q=False)])

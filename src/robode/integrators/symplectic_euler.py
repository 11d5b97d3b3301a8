"""Symplectic Euler, for separable Hamiltonians (Hairer, Lubich and Wanner, Geometric numerical integration, VI.3)."""

from __future__ import annotations

import torch

from robode.integrators.integrator import Integrator
from robode.ode.bounds import Scalar
from robode.ode.field import GradientField, VectorField
from robode.ode.step import Chain, Step


class SymplecticEuler(Integrator):
    """q first, then p with the new q, order 1; symplectic on separable Hamiltonians (H2 of H-DNN)."""

    name, order, symplectic = "symplectic_euler", 1, True
    needs = "a separable Hamiltonian (model=hdnn model.separable=true)"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, GradientField) and field.partitioned

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        assert isinstance(field, GradientField)
        G = h * field.F
        half = G.shape[-1] // 2
        upper = torch.cat([G[:half], torch.zeros_like(G[half:])])
        return Chain([field.through(upper), field.through(G - upper)])

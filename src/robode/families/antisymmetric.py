"""x' = sigma(K x + b) with K = -K^T: MS1 and MS2, the special cases of H-DNNs that came before them.

E. Haber, L. Ruthotto, Stable architectures for deep neural networks, Inverse Problems, 2017 (MS2; MS1 with Verlet);
Galimberti, Furieri, Xu, Ferrari-Trecate, Hamiltonian deep neural networks guaranteeing non-vanishing gradients by
design, 2021 (Table I). Where K has an inverse, this is J grad H for H = 1^T sigma~(K x + b) and the skew J = -K^-1,
which differs from layer to layer. Steps shrink no volumes (docs/theory.md, section 25).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.families.layered import LayeredFlow, LayeredKeys
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.integrators.symplectic_euler import Shears
from robode.ode.bounds import Scalar
from robode.ode.field import OneLayerField, PartitionedField, one_half
from robode.ode.guarantees import EXPANDING
from robode.ode.layer import Layer


@dataclass(frozen=True)
class AntisymmetricField(OneLayerField, PartitionedField):
    """sigma(K y + b), K = -K^T; partitioned: K = [[0, K_0], [-K_0^T, 0]]."""

    partitioned: bool = False

    def shear(self, h: Scalar, of_q: bool) -> Layer:
        eye = torch.eye(self.K.shape[-1], dtype=self.K.dtype, device=self.K.device)
        return Layer(eye, one_half(h * eye, of_q), self.K, self.b, self.activation)


class Antisymmetric(LayeredFlow):
    """K_j = U_j - U_j^T. blocks: U_j is an upper right block, so that q and p drive each other (MS1, for verlet and
    symplectic_euler); else the upper triangle (MS2, for Euler). step="auto" is h = 0.5.

    Property: with these methods no step shrinks volumes, at any h, and every sensitivity has a norm of at least 1.
    """

    guarantee = EXPANDING
    default_step = 0.5
    blocks = False

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        blocks: bool = False,
        init_std: float = 1.0,
        **keys: Unpack[LayeredKeys],
    ):
        if blocks and width % 2:
            raise BadInput(f"model.width: expected an even number with model.blocks=true, got {width}")
        if not isinstance(integrator, Euler | Shears):
            raise BadInput(
                f"integrator={integrator.name}: expected euler, or with model.blocks=true verlet or symplectic_euler, "
                "whose steps shrink no volumes"
            )
        super().__init__(width, depth, integrator, step, horizon, init_std=init_std, **keys)
        self.blocks = blocks
        self.integrator.check(self.fields()[0])
        self.project_()

    def weights(self) -> Tensor:
        half = self.width // 2
        block = nn.functional.pad(self.K[:, :half, half:], (half, 0, 0, half)) if self.blocks else None
        U = self.K.triu(1) if block is None else block
        return U - U.mT

    def fields(self, context: Tensor | None = None) -> list[AntisymmetricField]:
        layers = zip(self.weights().unbind(0), self.biases().unbind(0), strict=True)
        return self.each_step([AntisymmetricField(K, b, self.activation, self.blocks) for K, b in layers])

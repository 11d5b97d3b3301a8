"""Hamiltonian deep network: x' = J grad H(x), no damping.  (H-DNN: Galimberti, Furieri, Xu, Ferrari-Trecate 2021)"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.families.hamiltonian import HamiltonianFlow, HamiltonianKeys
from robode.integrators.integrator import Integrator
from robode.ode.guarantees import HAMILTONIAN


class HDNN(HamiltonianFlow):
    """F = J, kappa = 0, L = 0: CHNode with gamma = kappa = 0 (Remark 3 of the CH-NODE paper).

    J=canonical is H1 with J1, J=j2 is H1 with J2; separable=true is H2: K = blkdiag(K_q, K_p), so that symplectic
    Euler is explicit. step="auto" is h = 0.5, the setting of the published MNIST script.
    Property: the flow preserves volume and energy, and ||BSM|| >= 1 for the ODE and for symplectic Euler.
    """

    guarantee = HAMILTONIAN
    default_step = 0.5

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        separable: bool = False,
        **keys: Unpack[HamiltonianKeys],
    ):
        super().__init__(width, depth, integrator, step, horizon, **keys)
        if separable and keys.get("J", "canonical") != "canonical":
            raise BadInput(f"model.J: expected canonical with model.separable=true, got '{keys['J']}'")
        if separable and self.L is not None:
            raise BadInput("model.trainable_L: expected false with model.separable=true (L couples q and p), got true")
        self.partitioned = separable
        self.integrator.check(self.fields()[0])
        self.project_()

    def weights(self) -> Tensor:
        if not self.partitioned:
            return self.K
        half = self.width // 2
        mask = torch.zeros_like(self.K[:1])
        mask[..., :half, :half] = 1
        mask[..., half:, half:] = 1
        return self.K * mask

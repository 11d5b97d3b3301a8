"""Vector fields that are bound to data: one field for each sample of a batch, y' = f(t, y; x_b)."""

from __future__ import annotations

import warnings
from abc import abstractmethod

import torch
from torch import Tensor

from robode.ode.bounds import Scalar
from robode.ode.field import VectorField

# torch says this of its own rules, where a derivative is first taken forwards
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


class ControlledField(VectorField):
    """Bound to B samples: column b of y (n, B) flows by f(., .; x_b)."""

    @abstractmethod
    def on_all(self, t: Scalar, y: Tensor) -> Tensor:
        """Every state under every sample: y (n, S) -> f(t, y_j; x_b), (B, n, S)."""

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        """n directional derivatives, each of all columns at once. y: (n, M) -> (M, n, n)."""
        n, M = y.shape
        directions = torch.eye(n, dtype=y.dtype, device=y.device)[:, :, None].expand(n, n, M)

        def along(v: Tensor) -> Tensor:
            return torch.func.jvp(lambda z: self(t, z), (y,), (v,))[1]

        return torch.func.vmap(along, randomness="different")(directions).permute(2, 1, 0)

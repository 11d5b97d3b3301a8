"""Constant skew-symmetric matrices J and functions of F = J - gamma I.

F is normal, so every explicit one-stage scheme for x' = F grad V is x + g(F) grad V with a spectral function g.
J splits R^n into planes on which it rotates with frequency omega_k, so g(F) is a short sum of fixed real matrices
and no matrix exponential is ever computed in a forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robode.config.levels import skew_matrix
from robode.errors import BadInput


class Skew(nn.Module):
    """J = -J^T (n, n) with its modes: frequencies omega_k >= 0, projections P_k, quarter turns Q_k = J P_k / omega_k.

    g(F) = sum_k Re g_k P_k + Im g_k Q_k for g_k = g(-gamma + i omega_k). Buffers are float64; J is in the state dict.
    """

    J: Tensor
    P: Tensor
    Q: Tensor

    def __init__(self, J: Tensor):
        super().__init__()
        J = J.double()
        omegas, P, Q = _modes(J)
        self.omegas = omegas
        self.norm = max(omegas)
        for name, value in (("J", J), ("P", P), ("Q", Q)):
            self.register_buffer(name, value, persistent=name == "J")

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: Mapping[str, int],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """A J file may have moved or changed since training: the saved J must be this one."""
        saved = state_dict.get(f"{prefix}J")
        if saved is not None and not torch.equal(saved.cpu(), self.J.cpu()):
            error_msgs.append("J is not the one that the network was trained with (model.J, model.J_file)")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def function(self, multipliers: Sequence[tuple[Tensor | float, Tensor | float]], dtype: torch.dtype) -> Tensor:
        """The matrix with multiplier (re, im) on mode k, (n, n). Multipliers may be floats or 0-d tensors with
        gradients, or tensors (N,) for N matrices (N, n, n)."""
        modes = (_times(re, P) + _times(im, Q) for (re, im), P, Q in zip(multipliers, self.P, self.Q, strict=True))
        return sum(modes, start=torch.zeros_like(self.J)).to(dtype)


def _times(factor: Tensor | float, matrix: Tensor) -> Tensor:
    return factor[:, None, None] * matrix if isinstance(factor, Tensor) and factor.dim() else factor * matrix


def _modes(J: Tensor) -> tuple[list[float], Tensor, Tensor]:
    """Distinct frequencies of a skew J (float64) with the projections and quarter turns of their planes."""
    eigenvalues, U = torch.linalg.eigh(1j * J.to(torch.complex128))
    size = max(float(eigenvalues.abs().max()), 1e-300)
    omegas: list[float] = []
    groups: list[list[int]] = []
    for i in torch.argsort(eigenvalues.abs(), descending=True).tolist():
        omega = abs(float(eigenvalues[i]))
        if omegas and abs(omegas[-1] - omega) <= 1e-9 * size:
            groups[-1].append(i)
        else:
            omegas.append(omega)
            groups.append([i])
    P = torch.stack([(U[:, g] @ U[:, g].mH).real for g in groups])
    Q = torch.stack([J @ p / w if w > 1e-9 * size else torch.zeros_like(p) for w, p in zip(omegas, P, strict=True)])
    return omegas, P, Q


def canonical(width: int) -> Tensor:
    """[[0, I], [-I, 0]] (width, width), the paper's J. Raises `BadInput` for an odd width."""
    if width % 2:
        raise BadInput(f"model.width: expected an even number for model.J=canonical, got {width}; or choose model.J=j2")
    half = width // 2
    J = torch.zeros(width, width, dtype=torch.float64)
    J[:half, half:] = torch.eye(half)
    J[half:, :half] = -torch.eye(half)
    return J


def j2(width: int) -> Tensor:
    """+1 above the diagonal, -1 below (width, width): the J2 of H-DNN; any width >= 2."""
    ones = torch.ones(width, width, dtype=torch.float64)
    return ones.triu(1) - ones.tril(-1)


def from_file(path: str | None, width: int) -> Tensor:
    """J from a .npy file or a text file of numbers. Raises `BadInput` unless it is skew and (width, width)."""
    if path is None:
        raise BadInput("model.J_file: expected a .npy or text file with the matrix for model.J=file, got nothing")
    return torch.from_numpy(skew_matrix("model.J_file", path, width))


def skew(kind: str, width: int, path: str | None = None) -> Skew:
    """The J named `canonical`, `j2` or `file`. Raises `BadInput` listing the choices."""
    if kind not in ("canonical", "j2", "file"):
        raise BadInput(f"model.J: expected canonical, j2 or file, got '{kind}'")
    J = from_file(path, width) if kind == "file" else canonical(width) if kind == "canonical" else j2(width)
    if not bool(J.any()):
        raise BadInput(f"model.J: expected a matrix that is not zero, got J={kind} with model.width={width}")
    return Skew(J)

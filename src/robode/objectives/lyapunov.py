"""The loss of a sample as a potential V of the state.

V_y(eta) = max(0, CE(psi(eta), y) - gamma), psi the head.
Source: Jimenez Rodriguez, Ames, Yue, "LyaNet", 2022, Eq. (10) and (11), and section 3.1 for the truncation gamma.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def potential(logits: Tensor, labels: Tensor, truncate: float = 0.0) -> Tensor:
    """V of each row: logits (M, classes), labels (M,) -> (M,)."""
    V = functional.cross_entropy(logits, labels, reduction="none")
    return (V - truncate).clamp_min(0) if truncate else V

"""Guarantees notice what breaks them; that families keep theirs is a contract of theirs (test_model_contract.py)."""

from __future__ import annotations

import pytest
import torch
from model_cases import make

from robode.ode.field import GradientField
from robode.ode.guarantees import BOUNDED, CONTRACTIVE, EXPANDING, HAMILTONIAN, NONEXPANSIVE


@pytest.mark.parametrize("broken", ["contractive", "hamiltonian", "nonexpansive", "bounded", "expanding"])
def test_a_broken_guarantee_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each promise, held against a family or a constant that does not keep it."""
    promise = {
        "contractive": CONTRACTIVE, "hamiltonian": HAMILTONIAN, "nonexpansive": NONEXPANSIVE, "bounded": BOUNDED,
        "expanding": EXPANDING,
    }  # fmt: skip
    network = make("chnode" if broken in ("hamiltonian", "expanding") else "hdnn", "euler")
    if broken == "bounded":
        monkeypatch.setattr(GradientField, "lipschitz", lambda field: 1e-3)
    with torch.no_grad():
        states = 2 * torch.randn(200, 4, dtype=torch.float64)
        assert promise[broken].violations(network.flow.exact(), states) != []

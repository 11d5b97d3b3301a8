"""What a family guarantees, on its fields and on its steps, with each integrator that its YAML lists."""

from __future__ import annotations

import pytest
import torch
from model_cases import IMAGES_ONLY, PAIRS, make

from robode.ode.flow import Constrained
from robode.ode.guarantees import BOUNDED, CONTRACTIVE, HAMILTONIAN, NONEXPANSIVE
from robode.ode.vector_field import GradientField


@pytest.mark.parametrize(("model", "integrator"), [pair for pair in PAIRS if pair[0] not in IMAGES_ONLY])
def test_the_family_keeps_its_guarantee_on_the_field_and_on_the_step(model: str, integrator: str) -> None:
    network = make(model, integrator)
    with torch.no_grad():
        for p in network.flow.parameters():
            p.mul_(1.5)
        if isinstance(network.flow, Constrained):
            network.flow.project_()
        states = 2 * torch.randn(200, 4, dtype=torch.float64)
        assert network.flow.guarantee.violations(network.flow.exact(), states) == []


@pytest.mark.parametrize("broken", ["contractive", "hamiltonian", "nonexpansive", "bounded"])
def test_a_broken_guarantee_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each promise, held against a family or a constant that does not keep it."""
    promise = {"contractive": CONTRACTIVE, "hamiltonian": HAMILTONIAN, "nonexpansive": NONEXPANSIVE, "bounded": BOUNDED}
    network = make("chnode" if broken == "hamiltonian" else "hdnn", "euler")
    if broken == "bounded":
        monkeypatch.setattr(GradientField, "lipschitz", lambda field: 1e-3)
    with torch.no_grad():
        states = 2 * torch.randn(200, 4, dtype=torch.float64)
        assert promise[broken].violations(network.flow.exact(), states) != []

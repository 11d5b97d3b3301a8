"""What a family claims (contractive, Hamiltonian, bounded), on its field and on its step, with each integrator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_cases import IMAGES_ONLY, PAIRS, make
from torch import Tensor

from robode.fields.hamiltonian import HamiltonianFlow
from robode.ode.flow import Constrained, Flow, to_columns
from robode.ode.integrators import ETD, IMEX, SymplecticEuler
from robode.ode.vector_field import GradientField


def contractive(flow: Flow, y: Tensor) -> None:
    """CH-NODE: no two solutions separate, and no step of a method that promises it expands."""
    fields, h = flow.bind(torch.float64)
    assert all(field.lognorm() < 0 for field in fields)
    if isinstance(flow.integrator, ETD | IMEX) or flow.integrator.name in ("euler", "rk4", "implicit_midpoint"):
        assert flow.certificate()["flow_discrete"] <= 1
        for A in flow.double().step_jacobians(y.double()):
            assert float(torch.linalg.matrix_norm(A, 2).max()) <= 1 + 1e-6


def conservative(flow: Flow, y: Tensor) -> None:
    """H-DNN: the field keeps the energy and the volume; symplectic Euler and the implicit midpoint rule keep J."""
    assert isinstance(flow, HamiltonianFlow)
    flow = flow.double()
    z = to_columns(y.double())
    for field in flow.bind()[0]:
        assert isinstance(field, GradientField)
        power = (field(0.0, z) * field.gradient(z)).sum(0)
        assert float(power.abs().max()) <= 1e-10 * float(field.gradient(z).square().sum(0).max())
        divergence = field.jacobian(0.0, z).diagonal(dim1=1, dim2=2).sum(1)
        assert float(divergence.abs().max()) <= 1e-10 * float(field.jacobian(0.0, z).abs().max())
    if isinstance(flow.integrator, SymplecticEuler) or flow.integrator.name == "implicit_midpoint":
        J = flow.skew.J
        for A in flow.step_jacobians(y.double()):
            assert float((A.mT @ J @ A - J).abs().max()) <= 1e-4 * float(A.square().sum((1, 2)).max())


def unconstrained(flow: Flow, y: Tensor) -> None:
    """ResNet and the vanilla NODE promise nothing but an honest certificate: fields stay below their constants."""
    z = to_columns(y)
    for field in flow.bind(torch.float64)[0]:
        A = field.jacobian(0.0, z.double())
        assert float(torch.linalg.matrix_norm(A, 2).max()) <= field.lipschitz() * (1 + 1e-9)
        assert float(torch.linalg.eigvalsh(0.5 * (A + A.mT)).max()) <= field.lognorm() + 1e-9


CLAIMS: dict[str, Callable[[Flow, Tensor], None]] = {
    "contractive": contractive, "hamiltonian": conservative, "bounded": unconstrained,
}  # fmt: skip


@pytest.mark.parametrize(("model", "integrator"), [pair for pair in PAIRS if pair[0] not in IMAGES_ONLY])
def test_the_family_keeps_its_claim_on_the_field_and_on_the_step(model: str, integrator: str) -> None:
    network = make(model, integrator)
    with torch.no_grad():
        for p in network.flow.parameters():
            p.mul_(1.5)
        if isinstance(network.flow, Constrained):
            network.flow.project_()
        CLAIMS[network.flow.claim](network.flow, 2 * torch.randn(200, 4))

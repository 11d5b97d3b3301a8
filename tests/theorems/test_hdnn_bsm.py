"""H-DNN: ||BSM|| >= 1, so gradients cannot vanish: for the ODE (any invertible J) and for symplectic Euler."""

import pytest
import torch
from problems import KINDS, fine_flow_jacobian, norm2, randn, random_field, skew_matrix

from robode.families.hdnn import HDNN
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.ode.sensitivity import bsm_norms


@pytest.mark.parametrize("kind", KINDS)
def test_the_ode_keeps_every_sensitivity_at_least_one(kind: str) -> None:
    J = skew_matrix(kind, 4, seed=1)
    for seed in (0, 10):
        field = random_field(4, seed, J=J, gamma=0.0, kappa=0.0)
        _, Phi = fine_flow_jacobian(field, 2 * randn(4, 100, seed=seed), 1.0, 300)
        assert float(torch.linalg.svdvals(Phi)[:, 0].min()) >= 1 - 1e-6
        # Phi J Phi^T = J: the reason, and the check that the integration is fine enough
        assert float((Phi @ J @ Phi.mT - J).abs().max()) <= 1e-5 * norm2(Phi) ** 2


@pytest.mark.parametrize("step", [0.05, 0.5, 2.0])
def test_symplectic_euler_keeps_it_for_every_step_and_layer(step: float) -> None:
    torch.manual_seed(3)
    flow = HDNN(8, 6, SymplecticEuler(), step=step, separable=True).double()
    bsm = bsm_norms(flow, randn(40, 8, seed=4))
    assert float(bsm.norms.min()) >= 1 - 1e-9
    assert float(bsm.step_norms.min()) >= 1 - 1e-9


def test_implicit_midpoint_keeps_it_for_h1() -> None:
    torch.manual_seed(3)
    flow = HDNN(4, 4, ImplicitMidpoint(tolerance=1e-12), step=0.3).double()
    bsm = bsm_norms(flow, randn(40, 4, seed=4))
    assert float(bsm.norms.min()) >= 1 - 1e-9

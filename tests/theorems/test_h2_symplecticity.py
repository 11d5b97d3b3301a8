"""H2 of H-DNN: symplectic Euler on a separable Hamiltonian is a symplectic map."""

import pytest
import torch
from problems import norm2, randn

from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.integrators.euler import Euler
from robode.integrators.symplectic_euler import SymplecticEuler


def h2_flow(width: int, seed: int, step: float = 0.5, depth: int = 3) -> HDNN:
    torch.manual_seed(seed)
    return HDNN(width, depth, SymplecticEuler(), step=step, separable=True).double()


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("step", [0.01, 0.5, 3.0])
def test_each_step_and_the_flow_preserve_the_symplectic_form(width: int, step: float) -> None:
    flow = h2_flow(width, seed=width, step=step)
    J = flow.skew.J
    product = torch.eye(width, dtype=torch.float64)
    for S in flow.step_jacobians(randn(50, width, seed=1)):
        size = norm2(S) ** 2
        assert float((S.mT @ J @ S - J).abs().max()) <= 1e-10 * max(size, 1)
        product = S @ product
    assert float((product.mT @ J @ product - J).abs().max()) <= 1e-10 * norm2(product) ** 2


def test_explicit_euler_is_not_symplectic() -> None:
    torch.manual_seed(0)
    flow = HDNN(4, 1, Euler(), step=0.5, separable=True).double()
    S, J = flow.step_jacobians(randn(5, 4, seed=1))[0], flow.skew.J
    assert float((S.mT @ J @ S - J).abs().max()) > 1e-3


def test_the_step_is_the_published_one() -> None:
    """q+ = q + h K_p^T tanh(K_p p + b_p);  p+ = p - h K_q^T tanh(K_q q+ + b_q)."""
    flow = h2_flow(4, seed=5, depth=1)
    y = randn(6, 4, seed=2)
    K, b = flow.K.detach()[0], flow.b.detach()[0, :, 0]
    q, p = y[:, :2], y[:, 2:]
    q = q + 0.5 * torch.tanh(p @ K[2:, 2:].T + b[2:]) @ K[2:, 2:]
    p = p - 0.5 * torch.tanh(q @ K[:2, :2].T + b[:2]) @ K[:2, :2]
    torch.testing.assert_close(flow(y), torch.cat([q, p], dim=1), rtol=1e-12, atol=1e-12)


def test_only_separable_hamiltonians_are_accepted() -> None:
    for build in (lambda: HDNN(4, 1, SymplecticEuler()), lambda: CHNode(4, 1, SymplecticEuler())):
        with pytest.raises(BadInput, match="separable"):
            build()
    with pytest.raises(BadInput, match="canonical"):
        HDNN(4, 1, SymplecticEuler(), separable=True, J="j2")


def test_a_trainable_L_does_not_break_separability() -> None:
    """L^T L couples q and p, so that the step would no longer be symplectic: refuse it or keep it block-diagonal."""
    try:
        flow = HDNN(4, 1, SymplecticEuler(), separable=True, trainable_L=True).double()
    except BadInput:
        return
    S, J = flow.step_jacobians(randn(20, 4, seed=1))[0], flow.skew.J
    assert float((S.mT @ J @ S - J).abs().max()) <= 1e-10 * norm2(S.detach()) ** 2

"""Remark 3 of the CH-NODE paper: H-DNN and ResNet are the same field with other constants."""

import pytest
import torch
from problems import randn

from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4


@pytest.mark.parametrize("integrator", [Euler(), ETD(), RK4(), ImplicitMidpoint()])
@pytest.mark.parametrize("J", ["canonical", "j2"])
def test_chnode_without_damping_is_hdnn(integrator: Integrator, J: str) -> None:
    torch.manual_seed(0)
    hdnn = HDNN(4, 3, integrator, step=0.1, J=J).double()
    chnode = CHNode(4, 3, integrator, step=0.1, J=J, kappa=1.0, gamma_start="zero").double()
    chnode.load_state_dict(hdnn.state_dict())  # K, b, and gamma = kappa = 0
    y = randn(20, 4, seed=1)
    torch.testing.assert_close(chnode(y), hdnn(y), rtol=0, atol=0)
    assert float(chnode.gamma) == float(chnode.kappa) == 0


def test_hdnn_under_euler_is_the_printed_layer() -> None:
    """x+ = x + h J K^T tanh(K x + b)."""
    torch.manual_seed(0)
    flow = HDNN(4, 1, Euler(), step=0.3).double()
    y = randn(4, 20, seed=1)
    expected = y + 0.3 * flow.skew.J @ flow.K[0].T @ torch.tanh(flow.K[0] @ y + flow.b[0])
    torch.testing.assert_close(flow(y.T).T, expected, rtol=1e-12, atol=1e-12)


def test_chnode_under_euler_is_the_printed_layer() -> None:
    """x+ = (I + kappa h F) x + h F K^T tanh(K x + b), F = J - gamma I."""
    torch.manual_seed(0)
    flow = CHNode(4, 1, Euler(), step=0.3, kappa=0.2).double()
    y, eye = randn(4, 20, seed=1), torch.eye(4, dtype=torch.float64)
    F = flow.skew.J - flow.gamma * eye
    expected = (eye + 0.2 * 0.3 * F) @ y + 0.3 * F @ flow.K[0].T @ torch.tanh(flow.K[0] @ y + flow.b[0])
    torch.testing.assert_close(flow(y.T).T, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_resnet_is_the_field_with_F_the_inverse_transpose_of_K(activation: str) -> None:
    """F K^T sigma(K x + b) with F = K^-T is sigma(K x + b): as a field and as a step."""
    torch.manual_seed(1)
    resnet = ResNet(4, 1, Euler(), step=0.5, activation=activation).double()
    twin = HDNN(4, 1, Euler(), step=0.5, activation=activation).double()
    twin.load_state_dict(resnet.state_dict() | {k: v for k, v in twin.state_dict().items() if k not in ("K", "b")})
    y = randn(4, 20, seed=2)
    resnet_field, gradient_field = resnet.bind()[0][0], twin.bind()[0][0]
    F = torch.linalg.inv(resnet.K[0].T)
    torch.testing.assert_close(F @ gradient_field.gradient(y), resnet_field(0.0, y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(resnet(y.T).T, y + 0.5 * F @ gradient_field.gradient(y), rtol=1e-9, atol=1e-9)

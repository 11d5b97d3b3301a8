"""The residual layer with two matrices: the published formula, its constants where neurons are many, and its kin."""

import pytest
import torch
from problems import eye, norm2, randn

from robode.errors import BadInput
from robode.families.gradient_flow import DescentField
from robode.families.residual import Residual, ResidualField
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4
from robode.linalg.activations import named_activation
from robode.linalg.skew import Skew, j2
from robode.ode.enclosure import Enclosure
from robode.ode.field import GradientField

TANH = named_activation("tanh")


def flow(width: int = 3, depth: int = 4, integrator: Integrator | None = None, step: float = 0.1, **keys) -> Residual:
    torch.manual_seed(0)
    return Residual(width, depth, integrator or Euler(), step=step, **keys).double()


@torch.no_grad()
def test_the_layers_are_the_lectures() -> None:
    """x + h A^T tanh(B x + b), written with rows here; one set of weights a layer, or one for all."""
    for shared in (False, True):
        net, x = flow(hidden=5, shared=shared), randn(7, 3, seed=1)
        assert net.A.shape == net.B.shape == (1 if shared else 4, 5, 3) and net.b.shape[1:] == (5, 1)
        y = x
        for j in range(4):
            A, B, b = (each[0 if shared else j] for each in (net.A, net.B, net.b))
            y = y + 0.1 * torch.tanh(y @ B.T + b[:, 0]) @ A
        torch.testing.assert_close(net(x), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "k"), [(3, 2), (4, 14), (13, 4), (12, 20)])
def test_jacobians_are_those_of_autograd_and_stay_below_the_constants(n: int, k: int) -> None:
    field = ResidualField(randn(k, n, seed=1), randn(k, n, seed=2), randn(k, 1, seed=3), TANH)
    y = torch.cat([1e-3 * randn(n, 20, seed=4), randn(n, 60, seed=5)], dim=1)
    J = field.jacobian(0.0, y)
    alone = torch.func.jacrev(lambda column: field(0.0, column[:, None])[:, 0])
    torch.testing.assert_close(J, torch.stack([alone(column) for column in y.T]), rtol=1e-9, atol=1e-12)
    assert norm2(J) <= field.lipschitz() <= norm2(field.A) * norm2(field.B) * (1 + 1e-9)
    largest = float(torch.linalg.eigvalsh(0.5 * (J + J.mT))[:, -1].max())
    bounds = field.lognorm_bounds()
    assert largest <= field.lognorm() and bounds.lower <= bounds.upper and largest <= bounds.upper
    assert norm2(eye(n) + 0.2 * J) <= field.euler_lipschitz(0.2) <= 1 + 0.2 * field.lipschitz() * (1 + 1e-9)


def test_with_B_the_negative_of_A_it_is_a_gradient_flow_and_with_A_turned_a_hamiltonian_system() -> None:
    W, b, y = randn(3, 3, seed=1), randn(3, 1, seed=2), randn(3, 9, seed=3)
    J = j2(3)
    gradient, turned = ResidualField(-W, W, b, TANH), ResidualField(W @ J.T, W, b, TANH)
    hamiltonian = GradientField(Skew(J), 0.0, W, b, 0 * eye(3), TANH, 1.0)
    for one, other in ((gradient, DescentField(W, b, TANH)), (turned, hamiltonian)):
        torch.testing.assert_close(one(0.0, y), other(0.0, y), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.jacobian(0.0, y), other.jacobian(0.0, y), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_boxes_hold_what_they_are_mapped_to() -> None:
    net, centre = flow(hidden=6), randn(3, 1, seed=6)
    z = Enclosure(centre, 0.05 * eye(3)[..., None], torch.zeros(3, 1, dtype=torch.float64))
    for step in net.steps():
        z = step.enclose(z)
    points = centre + 0.05 * (2 * torch.rand(3, 300, generator=torch.Generator().manual_seed(0)).double() - 1)
    assert bool(((net(points.T).T - z.centre).abs() <= z.radius).all())
    assert float(z.radius.max()) < 1


@torch.no_grad()
def test_other_methods_solve_its_ode() -> None:
    """RK4 with the weights of one field against many small Euler steps."""
    coarse, fine = flow(depth=1, integrator=RK4(), step=0.4), flow(depth=4000, step=0.0001, shared=True)
    fine.load_state_dict({**coarse.state_dict(), "h": fine.h})
    x = randn(6, 3, seed=2)
    torch.testing.assert_close(coarse(x), fine(x), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("keys", "said"), [
    ({"hidden": 0}, "model.hidden: expected auto or a whole number"), ({"hidden": "wide"}, "model.hidden"),
    ({"images": "patches"}, "model.images: expected pixels or vectors"), ({"activation": "cos"}, "model.activation"),
])  # fmt: skip
def test_bad_keys_are_named(keys: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        flow(**keys)

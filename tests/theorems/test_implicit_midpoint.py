"""The implicit midpoint rule is certified for the exact solution of its equation, which the step that runs misses by no
more than its tolerance allows; with a coarse tolerance it is certified for nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robode.errors import BadInput, JobFailed
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.resnet import ResNet
from robode.integrators.implicit_midpoint import CERTIFIED, ImplicitMidpoint
from robode.ode.flow import Flow

FAMILIES: dict[str, Callable[[ImplicitMidpoint], Flow]] = {
    "contracts": lambda method: CHNode(2, 1, method, step=5.0),
    "expands": lambda method: ResNet(2, 1, method, step=0.5),
}


def flow(family: str, tolerance: float) -> Flow:
    torch.manual_seed(3)
    return FAMILIES[family](ImplicitMidpoint(tolerance)).double()


def states(count: int) -> Tensor:
    """(count, 2) of several sizes."""
    draws = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return draws * torch.logspace(-1, 1, count, dtype=torch.float64)[:, None]


@torch.no_grad()
def alone(phi: Flow, y: Tensor) -> Tensor:
    """Each state in a batch of its own: the others of a batch make Newton go on."""
    return torch.cat([phi(each[None]) for each in y])


def error_bound(phi: Flow, tolerance: float, z: Tensor) -> Tensor:
    """2 share (1 + |z|), share = tolerance/(1 - h mu/2), with z before the last Newton step; for results z (B, n) after
    it, which moved them by share (1 + |z|) at most: hence the divisor."""
    (field,), h = phi.bind()
    share = tolerance / (1 - 0.5 * float(h) * field.lognorm())
    return 2 * share * (1 + z.norm(dim=1)) / (1 - share)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tolerance", [0.3, 0.01, CERTIFIED])
def test_a_step_is_as_near_to_the_exact_one_as_its_tolerance_says(family: str, tolerance: float) -> None:
    phi, y = flow(family, tolerance), states(60)
    z, together, exact = alone(phi, y), phi(y).detach(), flow(family, 1e-13)(y).detach()
    bound = error_bound(phi, tolerance, z)
    assert bool(((z - exact).norm(dim=1) <= bound).all()) and bool(((together - exact).norm(dim=1) <= bound).all())
    if tolerance == 0.3:  # the error is there, and it depends on the batch
        assert float((z - exact).norm(dim=1).max()) > 1e-3 < float((z - together).norm(dim=1).max())


def steepest(phi: Flow) -> float:
    """The largest quotient over four segments from 0, each halved again and again where it is steeper: down to 2e-4."""
    b = 7 * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    a = torch.zeros_like(b)
    za, zb = alone(phi, a), alone(phi, b)
    for _ in range(16):
        c = 0.5 * (a + b)
        zc = alone(phi, c)
        left = ((za - zc).norm(dim=1) > (zb - zc).norm(dim=1))[:, None]
        a, za = torch.where(left, a, c), torch.where(left, za, zc)
        b, zb = torch.where(left, c, b), torch.where(left, zc, zb)
    return float(((za - zb).norm(dim=1) / (a - b).norm(dim=1)).max())


def test_a_coarse_tolerance_has_no_certificate() -> None:
    exact = flow("contracts", 1e-13).certificate()["flow_discrete"]
    coarse, fine = flow("contracts", 0.3), flow("contracts", CERTIFIED)
    assert 0.5 < steepest(fine) <= exact and fine.certificate()["flow_discrete"] == exact <= 1
    assert steepest(coarse) > 10 * exact and coarse.certificate()["flow_discrete"] == math.inf
    assert coarse.certificate()["flow_ode"] <= 1


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.inf, math.nan])
def test_a_tolerance_is_a_positive_number(tolerance: float) -> None:
    with pytest.raises(BadInput, match=r"integrator.tolerance: expected a positive, finite number"):
        ImplicitMidpoint(tolerance)


@torch.no_grad()
def stretch(phi: Flow) -> float:
    """The largest quotient of pairs of states at a distance of about 0.1, in float32; 0 where the flow says that it
    has no solution."""
    y = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    d = 0.1 * torch.randn(500, 2, generator=torch.Generator().manual_seed(3))
    try:
        return float(((phi(y + d) - phi(y)).norm(dim=1) / d.norm(dim=1)).max())
    except JobFailed:
        return 0.0


@pytest.mark.parametrize("exponent", [0, 2, 6, 10, 15, 19, 20, 25, 30, 36, 160])
def test_nothing_is_certified_where_the_solve_is_not_verified(exponent: int) -> None:
    """The rounding floor overflowed at 1e19 and let any residual pass: certified at 1, a network stretched 12-fold."""
    torch.manual_seed(3)
    phi = CHNode(2, 1, ImplicitMidpoint(), step=10.0**exponent)
    certified = phi.certificate()["flow_discrete"]
    assert stretch(phi) <= certified * (1 + 1e-4)
    assert certified == math.inf if exponent >= 19 else certified <= 1


def test_a_field_that_contracts_too_little_for_rounding_has_no_certificate() -> None:
    """mu = 0: nothing damps what rounding leaves of a residual of the size h L."""
    field = HDNN(2, 1, ImplicitMidpoint(), init_std=1e-3).exact().fields()[0]
    short, long = (ImplicitMidpoint().step(field, 0.0, h / field.lipschitz()).lipschitz() for h in (1e-3, 1e6))
    assert 1 <= short < 1.01 and long == math.inf


def test_singular_newton_matrices_are_a_failed_job() -> None:
    torch.manual_seed(0)
    phi = HDNN(4, 1, ImplicitMidpoint(), step=1e20, activation="relu", init_std=0.1)
    with pytest.raises(JobFailed, match="did not converge"):
        phi(torch.randn(2000, 4))

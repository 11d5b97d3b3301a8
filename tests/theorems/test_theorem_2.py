"""Theorem 2 of the CH-NODE paper: ||d xi(T) / d xi(T - t)|| <= exp(-rho t / 2) for the ODE."""

import math

import pytest
import torch
from problems import fine_flow_jacobian, norm2, randn

from robode.families.chnode import CHNode
from robode.integrators.etd import ETD


def make_flow(seed: int, J: str, eta: float) -> CHNode:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CHNode(4, 3, ETD(), step=0.2, eta=eta, J=J).double()


@pytest.mark.parametrize("J", ["canonical", "j2"])
@pytest.mark.parametrize("eta", [0.05, 0.5, 0.95])
def test_sensitivity_of_the_ode_stays_below_the_printed_bound(J: str, eta: float) -> None:
    flow = make_flow(1, J, eta)
    fields, rho = flow.exact().bind()[0], flow.properties()["rho"]
    scales = torch.tensor([0.0, 0.1, 0.3, 1.0, 3.0, 10.0], dtype=torch.float64)
    y, steps = scales * randn(4, 6, seed=2), []
    for field in fields:
        y, Phi = fine_flow_jacobian(field, y, 0.2, 100)
        steps.append(Phi)
    product = torch.eye(4, dtype=torch.float64)
    for j, step in enumerate(reversed(steps), 1):
        product = product @ step
        assert norm2(product) <= math.exp(-rho / 2 * 0.2 * j) * (1 + 1e-9)
    assert norm2(product) <= flow.certificate()["flow_ode"] * (1 + 1e-9)


def test_robodes_own_certificate_is_never_weaker_than_the_printed_one() -> None:
    """The sharp rate nu of the class lies between rho/2 and rho (docs/theory.md, section 5)."""
    for eta in (0.01, 0.1, 0.5, 0.9):
        flow = make_flow(2, "canonical", eta)
        printed = math.exp(-flow.properties()["rho"] / 2 * flow.horizon)
        assert flow.certificate()["flow_ode"] <= printed * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_how_far_the_bound_is_above_what_is_measured(seed: int) -> None:
    """Not vacuous: over one layer the certificate is within a factor 4 of the largest sensitivity that was found."""
    flow = make_flow(seed, "canonical", 0.1)
    field = flow.exact().bind()[0][0]
    largest = norm2(fine_flow_jacobian(field, 2 * randn(4, 200, seed=seed), 0.2, 100)[1])
    bound = math.exp(0.2 * field.lognorm())
    assert largest <= bound * (1 + 1e-9)
    assert bound <= 4 * largest

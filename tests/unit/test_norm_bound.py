"""model.norm_bound: project_ keeps ||K_j|| within it, with the nearest such matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from problems import norm2, randn

from robode.errors import BadInput
from robode.families.antisymmetric import Antisymmetric
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.layered import LayeredFlow
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.integrators.verlet import Verlet
from robode.linalg.norms import clipped, largest_eigenvalue


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 8, 33])
def test_the_certified_norm_is_within_the_bound_and_a_second_call_changes_nothing(dtype: torch.dtype, n: int) -> None:
    for bound in (1e-3, 1.0, 0.7, 123.0):
        K = (bound * torch.logspace(-2, 3, 40, dtype=torch.float64)[:, None, None] * randn(40, n, n, seed=n)).to(dtype)
        once = clipped(K, bound)
        assert once.dtype == dtype and bool((largest_eigenvalue(once) <= bound**2).all())
        assert torch.equal(clipped(once, bound), once)
        inside = largest_eigenvalue(K) <= bound**2
        assert torch.equal(once[inside], K[inside]) and 0 < int((~inside).sum()) < 40
        assert norm2(once.double()) >= bound * (1 - 1e-5)  # on the bound, not far inside


def test_it_is_the_nearest_matrix_within_the_bound() -> None:
    K = 2 * randn(4, 4, seed=1)
    nearest = float((K - clipped(K, 1.0)).norm())
    others = randn(3000, 4, 4, seed=2) * 0.3 + clipped(K, 1.0)
    others = others / torch.linalg.matrix_norm(others, 2).clamp_min(1)[:, None, None]
    assert float((K - others).norm(dim=(1, 2)).min()) >= nearest
    assert float((K - K / norm2(K)).norm()) > 1.05 * nearest  # scaling gives up more


FLOWS: dict[str, Any] = {
    "chnode": lambda **o: CHNode(4, 3, ETD(), **o),
    "chnode shared, kappa auto, at gamma = 0": lambda **o: CHNode(
        4, 3, Euler(), step=0.1, shared=True, gamma_start="zero", **o
    ),
    "hdnn": lambda **o: HDNN(4, 3, Euler(), **o),
    "hdnn separable": lambda **o: HDNN(4, 3, SymplecticEuler(), separable=True, **o),
    "resnet": lambda **o: ResNet(4, 3, Euler(), **o),
    "antisymmetric": lambda **o: Antisymmetric(4, 3, Euler(), **o),
    "antisymmetric blocks": lambda **o: Antisymmetric(4, 3, Verlet(), blocks=True, **o),
}


@pytest.mark.parametrize("name", FLOWS)
def test_every_family_starts_and_stays_within_the_bound(name: str) -> None:
    torch.manual_seed(0)
    flow: LayeredFlow = FLOWS[name](norm_bound=0.5, init_std=1.0)
    free: LayeredFlow = FLOWS[name](init_std=1.0)
    assert flow.state_dict().keys() == free.state_dict().keys()
    assert bool((largest_eigenvalue(free.weights()) > 0.25).any())
    for _ in range(3):
        assert bool((largest_eigenvalue(flow.weights()) <= 0.25).all())
        with torch.no_grad():
            flow.K.add_(torch.randn_like(flow.K))
        flow.project_()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.project_()
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def test_gamma_follows_the_confined_weights() -> None:
    torch.manual_seed(0)
    flow = CHNode(4, 2, ETD(), kappa=4e-4, norm_bound=1.0, init_std=2.0)
    assert flow.properties()["c2"] == pytest.approx(1.0004, rel=1e-5)
    flow = CHNode(4, 2, ETD(), norm_bound=1.0, init_std=2.0)
    assert float(flow.kappa) == pytest.approx(0.1, rel=1e-5)  # kappa=auto is that of the confined weights too


@pytest.mark.parametrize("bound", [0, -1.0, math.inf, math.nan, "one", True])
def test_bounds_that_make_no_sense(bound: Any) -> None:
    with pytest.raises(BadInput, match="model.norm_bound"):
        ResNet(4, 1, Euler(), norm_bound=bound)


class Doubled(LayeredFlow):
    """A family of somebody's, whose weights are not its parameters."""

    def weights(self) -> torch.Tensor:
        return 2 * self.K

    def fields(self, context: Any = None) -> Any:
        raise AssertionError("nobody asks")


@pytest.mark.parametrize("init_std", [0.01, 0.1, 2.0])
def test_the_bound_is_that_of_the_weights_that_a_subclass_computes(init_std: float) -> None:
    torch.manual_seed(0)
    flow = Doubled(4, 3, Euler(), init_std=init_std, norm_bound=0.5)
    for _ in range(3):
        assert norm2(flow.weights().detach().double()) <= 0.5
        with torch.no_grad():
            flow.K.add_(init_std * torch.randn_like(flow.K))
        flow.project_()
        before = flow.K.detach().clone()
        flow.project_()
        assert torch.equal(flow.K, before)


def test_computed_weights_inside_the_bound_stay_as_they_are() -> None:
    """Each projection doubled them, until they met the bound."""
    flows = []
    for bound in (None, 0.5):
        torch.manual_seed(0)
        flows.append(Doubled(4, 1, Euler(), init_std=0.01, norm_bound=bound))
    assert torch.equal(flows[0].K, flows[1].K)

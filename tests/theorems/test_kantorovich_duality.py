"""W1 is the largest difference of means of a 1-Lipschitz function: no network's certified value exceeds it."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from robode.certificates.radius import pair_lipschitz
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.network import Network
from robode.objectives.kantorovich import Kantorovich
from robode.quantities.wasserstein import potential_of, w1
from robode.tasks.classification import Classification

INFO = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("0", "1")))


def test_w1_is_that_of_exact_enumeration_and_of_the_linear_programme():
    torch.manual_seed(0)
    a, b = torch.randn(6, 2).double(), torch.randn(6, 2).double() + 1
    cost = torch.cdist(a, b)
    best = min(float(cost[range(6), list(p)].mean()) for p in itertools.permutations(range(6)))
    assert w1(a, b) == pytest.approx(best, rel=1e-12)
    rows = [np.kron(np.eye(6), np.ones(6)), np.kron(np.ones(6), np.eye(6))]
    plan = linprog(cost.numpy().ravel(), A_eq=np.concatenate(rows), b_eq=np.full(12, 1 / 6))
    assert w1(a, b) == pytest.approx(plan.fun, rel=1e-9)
    assert w1(a, a + torch.tensor([3.0, 4.0])) == pytest.approx(5, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_no_network_proves_more_than_the_distance(seed):
    torch.manual_seed(seed)
    network = Network(INFO, CHNode(4, 3, ETD(), 0.5))
    a, b = torch.randn(40, 2).double(), 0.5 * torch.randn(40, 2).double() + torch.tensor([2.0, 0])
    L = float(pair_lipschitz(network)[1, 0])
    with torch.no_grad():
        f = potential_of(network.double(), torch.cat([a, b]), L)
    proven = abs(float(f[40:].mean() - f[:40].mean()))
    assert 0 < proven <= w1(a, b)


def test_a_linear_function_proves_all_of_a_translation():
    """From the other side: the bound is attained."""
    torch.manual_seed(0)
    a = torch.randn(30, 2).double()
    b = a + torch.tensor([3.0, 4.0])
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert float((b @ direction).mean() - (a @ direction).mean()) == pytest.approx(w1(a, b), rel=1e-12)


def test_the_objective_is_minus_the_difference_of_the_class_means():
    torch.manual_seed(0)
    network = Network(INFO, CHNode(4, 2, ETD(), 0.5))
    x, labels = torch.randn(30, 2), (torch.rand(30) < 0.3).long()
    logits = network(x)
    f = (logits[:, 1] - logits[:, 0]).detach() / 2**0.5
    (loss,) = Kantorovich()(network, x, labels).values()
    assert float(loss.detach()) == pytest.approx(float(f[labels == 0].mean() - f[labels == 1].mean()), rel=1e-5)
    assert torch.isfinite(Kantorovich()(network, x, torch.zeros(30).long())["kantorovich"])
    with pytest.raises(BadInput, match="same|as many"):
        w1(x[:3], x[:4])

"""objective=random_time_cross_entropy: the mean over the states that may be drawn, and what it refuses."""

import pytest
import torch
from torch.nn import functional

from robode.data.info import DatasetInfo
from robode.encoders import MLPControl, States
from robode.errors import BadInput
from robode.families.data_node import DataNode
from robode.families.mlp import MLP
from robode.heads import Identity
from robode.integrators.euler import Euler
from robode.network import Network
from robode.objectives.random_time import RandomTimeCrossEntropy
from robode.tasks.classification import Classification

INFO = DatasetInfo((3,), (0.0,) * 3, (1.0,) * 3, None, Classification(("a", "b")))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    flow = DataNode(2, 4, Euler(), hidden=5, box=2.0, dropout=0.0)
    return Network(INFO, flow, MLPControl((3,), States(2, True, 25), hidden=[6]), Identity(2, 2))


def test_every_state_but_the_first_is_drawn_equally_often(network):
    x, labels = torch.randn(7, 3), torch.arange(7) % 2
    expected = [float(functional.cross_entropy(each.detach(), labels)) for each in network.read_outs(x)]
    drawn = torch.tensor(
        [RandomTimeCrossEntropy()(network, x, labels)["random_time_cross_entropy"].item() for _ in range(400)]
    )
    counts = [int((drawn - each).abs().lt(1e-6).sum()) for each in expected]
    assert len(expected) == 5 and counts[0] == 0 and sum(counts) == 400 and min(counts[1:]) > 70


def test_it_trains_the_field_and_what_binds_it(network):
    torch.manual_seed(1)
    loss = RandomTimeCrossEntropy()(network, torch.randn(7, 3), torch.arange(7) % 2)["random_time_cross_entropy"]
    loss.backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in (network.flow.W1, network.encoder.last.weight))


def test_a_network_with_one_state_that_the_head_can_read_is_refused():
    with pytest.raises(BadInput, match="at least two states along the flow"):
        RandomTimeCrossEntropy().check(Network(INFO, MLP(3, 1, Euler(), hidden=[4])))

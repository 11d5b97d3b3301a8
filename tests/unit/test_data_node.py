"""The data-controlled neural ODE: its field against the published formula, written out with every corner."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from robode.data.info import DatasetInfo
from robode.encoders import MLPControl, ResNet18Control, States
from robode.errors import BadInput
from robode.families.data_node import CornerField, DataNode
from robode.heads import Identity
from robode.integrators.etd import ETD
from robode.integrators.runge_kutta import RK4
from robode.network import Network, states_of
from robode.tasks.classification import Classification


def flow(n: int = 10, **keys) -> DataNode:
    torch.manual_seed(3)
    return DataNode(n, 4, RK4(), **({"hidden": 6} | keys)).double().eval()


def bound(n: int = 10, samples: int = 5, **keys) -> CornerField:
    made = flow(n, **keys)
    field = made.fields(torch.randn(samples, made.context, dtype=torch.float64))[0]
    assert isinstance(field, CornerField)
    return field


def published(field: CornerField, y: Tensor) -> Tensor:
    """gain kappa (1/n sum_k p_k d_k) u with p = softmax_k((c_k - y) . u), every corner written out. y: (n, B)."""
    n = len(y)
    corners = field.s * (2 * torch.eye(n, dtype=y.dtype) - 1)  # a row each
    columns = []
    for b in range(y.shape[1]):
        prelu = torch.nn.functional.prelu
        a1 = prelu(field.W1 @ y[:, b] + field.b1[:, 0], field.slope)
        a2 = prelu(field.W[b] @ a1, field.slope)
        r = field.W2 @ a2 + field.b2[:, 0]
        u = r / r.norm()
        towards = corners - y[:, b]
        p = torch.softmax(towards @ u, 0)
        columns.append(field.speed * (p * towards.norm(dim=1)).mean() * u)
    return torch.stack(columns, 1)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_short_form_is_the_published_one(n: int) -> None:
    """p = softmax(2 s u), and distances without corners."""
    field, y = bound(n), 7 * torch.randn(n, 5, dtype=torch.float64)
    torch.testing.assert_close(field(0.0, y), published(field, y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "length"), [(10, 18.306), (100, 7.516)])
def test_the_speed_at_0_is_gain_kappa_s_over_root_n(n: int, length: float) -> None:
    field = bound(n, gain=2.0)
    at_0 = field(0.0, torch.zeros(n, 5, dtype=torch.float64)).norm(dim=0)
    exact = 2 * math.log(15 * math.sqrt(n)) * 15 / math.sqrt(n)
    torch.testing.assert_close(at_0, torch.full_like(at_0, exact), rtol=1e-12, atol=0)
    assert exact / 2 == pytest.approx(length, abs=5e-4)  # the figure by hand


def test_every_state_under_every_sample() -> None:
    """on_all is the field on each pair, gradients too."""
    field, y = bound(4), torch.randn(4, 7, dtype=torch.float64)
    together = field.on_all(0.0, y)
    assert together.shape == (5, 4, 7)
    for j in range(7):
        pair = field(0.0, y[:, j : j + 1].expand(-1, 5))
        torch.testing.assert_close(together[:, :, j].T, pair, rtol=1e-12, atol=1e-12)


def test_dropout_is_drawn_for_each_pair_while_training() -> None:
    made = flow(4, hidden=40)
    context = torch.randn(1, made.context, dtype=torch.float64).expand(3, -1)
    y = torch.randn(4, 1, dtype=torch.float64).expand(-1, 6)
    assert torch.equal(made.fields(context)[0].on_all(0.0, y), made.fields(context)[0].on_all(0.0, y))
    drawn = made.train().fields(context)[0].on_all(0.0, y).movedim(1, 2).flatten(0, 1)
    assert len(drawn.unique(dim=0)) == 18  # three samples and six states that are all alike


def test_corners_attract_along_their_ray() -> None:
    """There |f| is proportional to the distance: where u points to corner k, p_k = 1 and f = speed/n d_k u."""
    field = bound(3, samples=1)
    corner = torch.tensor([15.0, -15.0, -15.0], dtype=torch.float64)[:, None]
    u = corner / corner.norm()
    for share in (0.0, 0.5, 1.5):  # from 0, half way, beyond
        f = field._along(u, share * corner)
        expected = float(field.speed) / 3 * abs(1 - share) * corner.norm() * u
        torch.testing.assert_close(f, expected, rtol=1e-9, atol=1e-9)


def test_published_size() -> None:
    """19 577 931 numbers with ten classes of grey images: ResNet-18 with 16 384 outputs, two layers, one slope."""
    info = DatasetInfo((1, 28, 28), (0.5,), (0.5,), (0.0, 1.0), Classification(tuple("0123456789")))
    made = DataNode(10, 10, RK4(), hidden=128)
    network = Network(info, made, ResNet18Control(info.shape, states_of(made), base=64), Identity(10, 10))
    assert sum(p.numel() for p in network.parameters()) == 19_577_931


def test_the_encoder_is_torchvisions_resnet18() -> None:
    theirs = resnet18(num_classes=9).eval()
    theirs.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    ours = ResNet18Control((1, 28, 28), States(3, True, 9), base=64).eval()
    values = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(values)
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(ours.control(x), theirs(x))


def test_gain_is_saved() -> None:
    made, other = flow(gain=100.0), flow()
    made.gain.mul_(0.37)
    other.load_state_dict(made.state_dict())
    assert float(other.gain) == 37.0 and other.gain.dtype == torch.float64
    assert made.properties()["gain"] == 37.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: flow(box=0.0), r"model\.box: expected a number > 0, got 0"),
        (lambda: flow(kappa=-1.0), r"model\.kappa: expected a number > 0, got -1"),
        (lambda: flow(2, box=0.5), r"model\.kappa=auto"),  # log(s sqrt n) < 0
        (lambda: flow(gain=math.inf), r"model\.gain: expected a number > 0, got inf"),
        (lambda: flow(dropout=1.0), r"model\.dropout: expected a share in \[0, 1\), got 1"),
        (lambda: flow(hidden=0), r"model\.hidden: expected a whole number >= 1, got 0"),
        (lambda: DataNode(3, 2, ETD(), hidden=4), r"integrator=etd"),
        (lambda: flow().fields(None), r"context of model\.hidden\^2 = 36 numbers a sample, got none"),
        (lambda: flow().fields(torch.zeros(2, 5)), r"got \(5,\)"),
        (lambda: MLPControl((2,), States(2, True)), "and this model has none"),
        (lambda: MLPControl((2,), States(2, True, 4), hidden=[0]), r"encoder\.hidden: expected widths >= 1"),
        (lambda: ResNet18Control((2,), States(2, True, 4)), "expected images, got vectors"),
        (lambda: ResNet18Control((1, 8, 8), States(2, True, 4), base=0), r"encoder\.base: expected a whole number"),
    ],
)
def test_bad_input(make, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make()

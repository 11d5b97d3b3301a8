"""Within its certified L2 radius no answer changes: attacked from inside, attained where the constants are exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robode.certificates.radius import LOGIT_ROUNDING, certified_radii
from robode.data.info import DatasetInfo
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.network import Network
from robode.ode.flow import Flow
from robode.tasks.classification import Classification

IMAGES = DatasetInfo((2, 4, 4), (0.4, 0.5), (0.2, 0.3), (0.0, 1.0), Classification(tuple("abcd")))
POINTS = DatasetInfo((2,), (0.3, -0.2), (0.7, 0.7), None, Classification(tuple("abc")))
FLOWS: dict[str, Callable[[], Flow]] = {
    "chnode etd": lambda: CHNode(4, 3, ETD()),
    "chnode imex j2": lambda: CHNode(4, 2, IMEX(), J="j2"),
    "chnode euler, sub-stepped": lambda: CHNode(4, 2, Euler("auto"), kappa=0.1, norm_bound=1.0, step=0.5),
    "hdnn": lambda: HDNN(4, 2, Euler(), step=0.2),
    "resnet": lambda: ResNet(4, 2, Euler(), step=0.3),
}


def trained(info: DatasetInfo, flow: Flow, steps: int = 40) -> tuple[Network, Tensor, Tensor]:
    """A network in float64 that separates blobs, and 60 samples with its own answers as labels."""
    network = Network(info, flow).double()
    centres = torch.rand(info.task.outputs, *info.shape, dtype=torch.float64)
    labels = torch.arange(60) % info.task.outputs
    x = centres[labels] + 0.2 * torch.randn(60, *info.shape, dtype=torch.float64)
    adam = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(steps):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        adam.step()
        flow.project_()  # type: ignore[operator]
    with torch.no_grad():
        return network, x, network(x).argmax(1)


def flips(network: Network, x: Tensor, labels: Tensor, radius: Tensor, steps: int = 12) -> Tensor:
    """Which samples get another answer somewhere on the sphere of that radius, (B,) bool, as far as an attack finds it.

    Projected ascent along the gradient of logit_j - logit_label, the worst direction to first order.
    """
    classes = network.head.out_features
    others = torch.arange(classes).expand(len(x), classes)
    wide = x[:, None].expand(-1, classes, *x.shape[1:]).flatten(0, 1)
    y, j = labels.repeat_interleave(classes), others.flatten()
    reach = radius.repeat_interleave(classes).reshape(-1, *[1] * (x.dim() - 1))
    moved, best = wide.clone(), torch.full((len(wide),), torch.inf, dtype=torch.float64)
    for _ in range(steps):
        moved.requires_grad_()
        logits = network(moved)
        margin = (logits.gather(1, y[:, None]) - logits.gather(1, j[:, None]))[:, 0]
        best = torch.where(y == j, best, torch.minimum(best, margin.detach()))
        (gradient,) = torch.autograd.grad(margin.sum(), moved)
        step = (moved - wide).detach() - reach * direction(gradient)
        moved = wide + reach * direction(step)
    return best.reshape(len(x), classes).amin(1) < 0


def direction(d: Tensor) -> Tensor:
    norm = d.flatten(1).norm(dim=1).clamp_min(1e-300)
    return d / norm.reshape(-1, *[1] * (d.dim() - 1))


@pytest.mark.parametrize(
    ("info", "name"),
    [*((IMAGES, name) for name in FLOWS), (POINTS, "chnode etd")],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value.shape)),
)
def test_no_attack_inside_the_certified_radius_changes_an_answer(info: DatasetInfo, name: str) -> None:
    torch.manual_seed(3)
    network, x, labels = trained(info, FLOWS[name]())
    radii = certified_radii(network, x, labels)
    assert float(radii.min()) > 0
    assert not bool(flips(network, x, labels, 0.999 * radii).any())
    # the attack is no straw man, and the certificate not vacuous
    assert float(flips(network, x, labels, 30 * radii).float().mean()) > 0.5


def test_where_every_constant_is_exact_the_radius_is_the_distance_to_the_decision_boundary() -> None:
    """K = 0 makes each etd step a multiple of a rotation, so nothing is lost: 1.001 radii do flip every sample."""
    torch.manual_seed(3)
    flow = CHNode(2, 3, ETD(), init_std=0.0, kappa=0.4, step=0.5)
    network = Network(POINTS, flow).double()
    x = torch.randn(80, 2, dtype=torch.float64)
    with torch.no_grad():
        labels = network(x).argmax(1)
    radii = certified_radii(network, x, labels)
    assert len(labels.unique()) > 1 and 0 < float(radii.min()) and float(radii.max()) > 0.1
    assert not bool(flips(network, x, labels, 0.999 * radii).any())
    assert bool(flips(network, x, labels, 1.001 * radii).all())


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_sums_that_cancel_in_float32_are_not_certified(offset: float) -> None:
    """A bias that the next layer takes away again leaves rounding of its own size in logits of size one."""
    torch.manual_seed(0)
    first, last = nn.Linear(20, 20), nn.Linear(20, 3)
    with torch.no_grad():
        first.bias.fill_(offset)
        last.bias.copy_(-offset * last.weight.double().sum(1))
        network, x = nn.Sequential(first, last), torch.rand(2000, 20)
        labels = network(x).argmax(1)
        counted, proven = (certified_radii(network, x, labels, rounding=share) for share in (LOGIT_ROUNDING, 0.0))
        misclassified = torch.zeros(len(x), dtype=torch.bool)
        for _ in range(20):
            direction = nn.functional.normalize(torch.randn_like(x))
            misclassified |= network(x + 0.01 * torch.rand(len(x), 1) * direction).argmax(1) != labels
    assert not bool(misclassified[counted >= 0.0101].any())
    assert bool(misclassified[proven >= 0.0101].any()) == (
        offset == 1e6
    )  # without room for rounding some would be broken
    if offset == 0:
        assert int((counted >= 0.0101).sum()) >= int((proven >= 0.0101).sum()) - 2

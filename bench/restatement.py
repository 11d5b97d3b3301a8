"""The yardstick: a plain, frozen re-statement of the published MNIST experiment (Table I of Zakwan, Xu and
Ferrari-Trecate, "Robust Classification using Contractive Hamiltonian Neural ODEs", IEEE L-CSS 2023).

Every speed figure of robode is a ratio to this file, so it must stay what a competent author would publish:
one library call per layer operation, torchvision's MNIST with the customary transforms, a DataLoader,
scikit-image for the noise. It is neither slowed down nor tuned, it imports nothing from robode, and it is
frozen: a change here changes every figure that was ever reported.

Choices that the description leaves open were settled towards the faster of the ordinary styles:
a 1x1 `conv2d` for each product (`F.linear` on channels-last and a batched `matmul` are slower on a CPU), the
8x8 factors h F K^T and I + h kappa F multiplied out before they meet the image, gamma from `eigvalsh` rather
than a general eigen-solver. The DataLoader keeps its default of no worker processes; `workers` is there so
that a reader can ask what one more process would have bought.

As in the published script: images are normalised first and the noise is added to the normalised tensor;
`random_noise` finds negative values there and clips to [-1, 1]; the first forward pass has gamma = 0; the
smoothness term is added N - 1 times.

    python bench/restatement.py --data-root DATA --model chnode --depth 8 --batches 600
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from skimage.util import random_noise
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

CHANNELS = 8
STEP = 0.5
KAPPA = 0.02**2
BATCH_SIZE = 100
LEARNING_RATE = 0.04
DECAY_PER_EPOCH = 0.8
EPOCHS = 10
COPIES = 10
SEED = 1
RECIPES = {  # model: (weight decay, smoothness alpha)
    "chnode": (2e-4, 1e-3),
    "hdnn": (4e-3, 8e-3),
    "resnet": (2e-4, 1e-3),
}
NOISE_LEVELS = [
    ("gaussian", 0.05),
    ("gaussian", 0.2),
    ("s&p", 0.05),
    ("s&p", 0.2),
]


def canonical_J(n: int) -> Tensor:
    """[[0, I], [-I, 0]], (n, n)."""
    J = torch.zeros(n, n)
    J[: n // 2, n // 2 :] = torch.eye(n // 2)
    J[n // 2 :, : n // 2] = -torch.eye(n // 2)
    return J


def conv1x1(y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply an (n, n) matrix to the channels of every pixel of y (batch, n, H, W)."""
    return F.conv2d(y, weight[:, :, None, None], bias)


class Layers(nn.Module):
    """N layers of forward Euler with one (K, b) per layer, K, b ~ N(0, 1) at the start."""

    def __init__(self, depth: int, n: int = CHANNELS, h: float = STEP) -> None:
        super().__init__()
        self.depth, self.h = depth, h
        self.K = nn.Parameter(torch.randn(depth, n, n))
        self.b = nn.Parameter(torch.randn(depth, n))

    def update(self) -> None:
        """What has to happen after an optimiser step: nothing, except for CH-NODE."""


class ResNet(Layers):
    """y <- y + h tanh(K y + b)."""

    def forward(self, y: Tensor) -> Tensor:
        for j in range(self.depth):
            y = y + self.h * torch.tanh(conv1x1(y, self.K[j], self.b[j]))
        return y


class HDNN(Layers):
    """y <- y + h J K^T tanh(K y + b)."""

    J: Tensor

    def __init__(self, depth: int, n: int = CHANNELS, h: float = STEP) -> None:
        super().__init__(depth, n, h)
        self.register_buffer("J", canonical_J(n))

    def forward(self, y: Tensor) -> Tensor:
        for j in range(self.depth):
            K = self.K[j]
            y = y + conv1x1(torch.tanh(conv1x1(y, K, self.b[j])), self.h * self.J @ K.T)
        return y


class CHNODE(Layers):
    """y <- (I + kappa h F) y + h F K^T tanh(K y + b),  F = J - gamma I."""

    J: Tensor
    eye: Tensor

    def __init__(self, depth: int, n: int = CHANNELS, h: float = STEP, kappa: float = KAPPA) -> None:
        super().__init__(depth, n, h)
        self.kappa = kappa
        self.gamma = 0.0
        self.register_buffer("J", canonical_J(n))
        self.register_buffer("eye", torch.eye(n))

    def forward(self, y: Tensor) -> Tensor:
        F_ = self.J - self.gamma * self.eye
        A = self.eye + self.kappa * self.h * F_
        for j in range(self.depth):
            K = self.K[j]
            y = conv1x1(y, A) + conv1x1(torch.tanh(conv1x1(y, K, self.b[j])), self.h * F_ @ K.T)
        return y

    @torch.no_grad()
    def update(self) -> None:
        """gamma = 1 / sqrt(1 - alpha^2 - 1e-6), alpha = (c2 - c1)/(c2 + c1), from the largest eigenvalue
        of K^T K over the layers."""
        c1 = self.kappa
        c2 = max(torch.linalg.eigvalsh(K.T @ K)[-1].item() for K in self.K) + self.kappa
        alpha = (c2 - c1) / (c2 + c1)
        self.gamma = 1 / math.sqrt(1 - alpha**2 - 1e-6)


class Network(nn.Module):
    """conv 1 -> 8 (3x3), N layers on the 8 channels of each pixel, linear to the 10 classes."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, CHANNELS, kernel_size=3, stride=1, padding=1)
        self.layers = layers
        self.fc = nn.Linear(CHANNELS * 28 * 28, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(self.conv1(x))
        return self.fc(y.reshape(y.size(0), -1))


FAMILIES: dict[str, type[Layers]] = {"chnode": CHNODE, "hdnn": HDNN, "resnet": ResNet}


def smoothness(layers: Layers, alpha: float) -> Tensor:
    """alpha h 1/2 sum_j ( |K_{j+1} - K_j|^2 + |b_{j+1} - b_j|^2 )."""
    dK, db = layers.K[1:] - layers.K[:-1], layers.b[1:] - layers.b[:-1]
    return alpha * layers.h * 0.5 * (dK.square().sum() + db.square().sum())


def train(network: Network, batches: Iterable[Any], optimizer: torch.optim.Optimizer, alpha: float) -> None:
    """One pass over `batches` of (x, labels): forward, backward, Adam step, new gamma."""
    network.train()
    for x, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), labels)
        for _ in range(network.layers.depth - 1):
            loss = loss + smoothness(network.layers, alpha)
        loss.backward()
        optimizer.step()
        network.layers.update()


@torch.no_grad()
def accuracy(network: Network, loader: DataLoader[Any]) -> float:
    """Share of right answers over a loader, in [0, 1]."""
    network.eval()
    correct, total = 0, 0
    for x, labels in loader:
        correct += (network(x).argmax(dim=1) == labels).sum().item()
        total += len(labels)
    return correct / total


def customary(*extra: Callable[[Tensor], Tensor]) -> transforms.Compose:
    """ToTensor, Normalize with MNIST's mean and deviation, then whatever comes on top."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,)), *extra])


def noisy(mode: str, level: float) -> transforms.Compose:
    """Test transform with scikit-image noise on the normalised tensor. `level` is the variance
    (mode "gaussian") or the share of pixels (mode "s&p")."""
    setting = {"var": level} if mode == "gaussian" else {"amount": level}

    def add_noise(x: Tensor) -> Tensor:
        return torch.tensor(random_noise(x.numpy(), mode=mode, **setting), dtype=torch.float32)

    return customary(add_noise)


def mnist(root: str, train: bool, transform: Callable[[Any], Any]) -> Dataset[Any]:
    """torchvision's MNIST under root/MNIST/raw."""
    return datasets.MNIST(root, train=train, download=False, transform=transform)


def loader(data: Dataset[Any], shuffle: bool = False, workers: int = 0) -> DataLoader[Any]:
    """Batches of 100."""
    return DataLoader(data, batch_size=BATCH_SIZE, shuffle=shuffle, num_workers=workers)


def set_up(model: str, depth: int) -> tuple[Network, torch.optim.Optimizer, float]:
    """Network, Adam and smoothness weight of one row of Table I."""
    weight_decay, alpha = RECIPES[model]
    network = Network(FAMILIES[model](depth))
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay)
    return network, optimizer, alpha


def main() -> None:
    parser = argparse.ArgumentParser(description="Re-run one row of Table I the plain way.")
    parser.add_argument("--data-root", default="../shared/data")
    parser.add_argument("--model", choices=FAMILIES, default="chnode")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--copies", type=int, default=COPIES)
    parser.add_argument("--batches", type=int, default=None, help="stop each epoch after so many batches")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    network, optimizer, alpha = set_up(args.model, args.depth)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=DECAY_PER_EPOCH)
    train_loader = loader(mnist(args.data_root, True, customary()), shuffle=True)
    test_loader = loader(mnist(args.data_root, False, customary()))
    for epoch in range(args.epochs):
        train(network, itertools.islice(train_loader, args.batches), optimizer, alpha)
        scheduler.step()
        print(f"epoch {epoch}  test accuracy {accuracy(network, test_loader):.4f}", flush=True)
    for mode, level in NOISE_LEVELS:
        copies = loader(mnist(args.data_root, False, noisy(mode, level)))
        scores = [accuracy(network, copies) for _ in range(args.copies)]
        print(f"{mode} {level}: {sum(scores) / len(scores):.4f} over {len(scores)} noisy copies")


if __name__ == "__main__":
    main()

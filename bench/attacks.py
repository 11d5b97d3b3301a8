"""robode's PGD-40 and APGD-100 against foolbox and pyautoattack: wall time and robust accuracy.

One process, the same network with frozen parameters, the same images and batches; the two sides take turns, who
begins alternates, and every turn has random starts of its own. eps is chosen so that robust accuracy is in the middle.
"only" are the images, over all turns, that one side alone fools, and p is the chance of so uneven a split where both
attacks are equally strong (sign test). Needs the packages foolbox and pyautoattack.

    python bench/attacks.py --network cnn --images 500 --turns 5
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import foolbox
import pyautoattack.autopgd_base as public
import torch
from torch import Tensor, nn

from robode.attacks import apgd, pgd
from robode.attacks.losses import fallen
from robode.corruptions.noise import Draws
from robode.data.info import DatasetInfo
from robode.data.vision import MNIST5k
from robode.families.chnode import CHNode
from robode.integrators.one_step import ETD
from robode.network import Network

BOUNDS = (0.0, 1.0)
TARGET = 0.45  # robust accuracy
STEPS = {"pgd": 40, "apgd": 100}
Attack = Callable[[Tensor, Tensor, int, int], Tensor]
"""(x, labels, place of the first image, seed of the random starts) -> x'."""


@dataclass(frozen=True)
class Pair:
    """The same attack of both sides."""

    title: str
    eps: float
    ours: Attack
    theirs: Attack


def trained(name: str, info: DatasetInfo, x: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A small network after a few epochs of Adam, in eval mode, its parameters frozen."""
    torch.manual_seed(0)
    network: nn.Module
    if name == "cnn":
        network = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10),
        )  # fmt: skip
    else:
        network = Network(info, CHNode(8, 4, ETD(), step=0.1))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), labels[rows]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def right(network: nn.Module, moved: Tensor, labels: Tensor) -> Tensor:
    return ~fallen(network(moved), labels)


def robust(network: nn.Module, moved: Tensor, labels: Tensor) -> float:
    return float(right(network, moved, labels).float().mean())


def middle_eps(network: nn.Module, x: Tensor, labels: Tensor, norm: str) -> float:
    """Where a short attack leaves about `TARGET`, by bisection."""
    low, high = 0.0, {"linf": 0.5, "l2": 10.0}[norm]
    for _ in range(8):
        eps = (low + high) / 2
        above = robust(network, pgd(network, x, labels, eps=eps, norm=norm, steps=10, bounds=BOUNDS), labels) > TARGET
        low, high = (eps, high) if above else (low, eps)
    return high


def pairs(network: nn.Module, x: Tensor, labels: Tensor) -> Iterator[Pair]:
    for norm, theirs in (("linf", foolbox.attacks.LinfPGD), ("l2", foolbox.attacks.L2PGD)):
        eps = middle_eps(network, x, labels, norm)
        yield Pair(f"PGD-{STEPS['pgd']} {norm}", eps, _our_pgd(network, eps, norm), _foolbox(network, eps, theirs))
        for loss in ("ce", "dlr"):
            ours, other = _our_apgd(network, eps, norm, loss), _public_apgd(network, eps, norm, loss)
            yield Pair(f"APGD-{STEPS['apgd']}-{loss} {norm}", eps, ours, other)


def _draws(x: Tensor, first: int, seed: int) -> Draws:
    return Draws((seed,), range(first, first + len(x)))


def _our_pgd(network: nn.Module, eps: float, norm: str) -> Attack:
    how = {"eps": eps, "norm": norm, "steps": STEPS["pgd"], "bounds": BOUNDS}
    return lambda x, labels, first, seed: pgd(network, x, labels, draws=_draws(x, first, seed), **how)


def _our_apgd(network: nn.Module, eps: float, norm: str, loss: str) -> Attack:
    how = {"eps": eps, "norm": norm, "loss": loss, "steps": STEPS["apgd"], "bounds": BOUNDS}
    return lambda x, labels, first, seed: apgd(network, x, labels, draws=_draws(x, first, seed), **how)


def _foolbox(network: nn.Module, eps: float, kind: type) -> Attack:
    model = foolbox.PyTorchModel(network, bounds=BOUNDS, device="cpu")
    attack = kind(steps=STEPS["pgd"], rel_stepsize=2.5 / STEPS["pgd"], random_start=True)

    def run(x: Tensor, labels: Tensor, first: int, seed: int) -> Tensor:
        torch.manual_seed(1000 * seed + first)
        return attack.run(model, x, labels, epsilon=eps)

    return run


def _public_apgd(network: nn.Module, eps: float, norm: str, loss: str) -> Attack:
    attack = public.APGDAttack(
        network, n_iter=STEPS["apgd"], norm={"linf": "Linf", "l2": "L2"}[norm], n_restarts=1, eps=eps, seed=0,
        loss=loss, device="cpu",
    )  # fmt: skip

    def run(x: Tensor, labels: Tensor, first: int, seed: int) -> Tensor:
        attack.seed = 1000 * seed + first
        return attack.perturb(x, labels)

    return run


def one_turn(attack: Attack, x: Tensor, labels: Tensor, batch_size: int, seed: int) -> tuple[float, Tensor]:
    """Seconds, and x' of all images."""
    begin, found = time.perf_counter(), []
    for first in range(0, len(x), batch_size):
        part = slice(first, first + batch_size)
        found.append(attack(x[part], labels[part], first, seed).detach())
    return time.perf_counter() - begin, torch.cat(found)


def compare(pair: Pair, network: nn.Module, x: Tensor, labels: Tensor, batch_size: int, turns: int) -> str:
    """A line: medians of both sides, the median of the ratios of each turn with its extremes, robust accuracies over
    all turns, the images that one side alone fools, and p."""
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    left: dict[str, list[Tensor]] = {"ours": [], "theirs": []}
    for turn in range(turns):
        sides = [("ours", pair.ours), ("theirs", pair.theirs)]
        for side, attack in sides if turn % 2 == 0 else reversed(sides):
            seconds, moved = one_turn(attack, x, labels, batch_size, turn)
            spent[side].append(seconds)
            left[side].append(right(network, moved, labels))
    ratios = [theirs / ours for ours, theirs in zip(spent["ours"], spent["theirs"], strict=True)]
    ours, theirs = (torch.cat(left[side]) for side in ("ours", "theirs"))
    only = int((~ours & theirs).sum()), int((ours & ~theirs).sum())
    return (
        f"{pair.title:18} {pair.eps:8.4f} {median(spent['ours']):8.2f} {median(spent['theirs']):8.2f} "
        f"{median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {float(ours.float().mean()):7.2%} "
        f"{float(theirs.float().mean()):7.2%}  {only[0]:4} {only[1]:4}  {sign_test(*only):.2f}"
    )


def sign_test(first: int, second: int) -> float:
    """Two-sided: the chance of so uneven a split of first + second throws of a fair coin."""
    n = first + second
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("cnn", "chnode"), default="cnn")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = MNIST5k()
    train, test = source.load()
    x, labels = test.x[: args.images].float() / 255, test.target[: args.images]
    network = trained(args.network, source.info, train.x.float() / 255, train.target, args.epochs)
    print(f"{args.network}, {len(x)} images, batches of {args.batch_size}, {args.threads} thread(s)", end=", ")
    print(f"clean accuracy {robust(network, x, labels):.1%}; paired with foolbox (PGD) and pyautoattack (APGD)")
    print("attack                  eps   robode    other  ratio (of the turns)   robust: robode, other", end="")
    print("  only: robode, other  p", flush=True)
    for pair in pairs(network, x, labels):
        print(compare(pair, network, x, labels, args.batch_size, args.turns), flush=True)


if __name__ == "__main__":
    main()

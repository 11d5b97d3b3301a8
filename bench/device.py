"""Evaluation under noise and PGD-40, a CPU beside a GPU in one process: seconds, and what stays right on either.

One network, trained on the CPU, the same images, noise and random starts; the first turn on a GPU, which loads its
libraries, is not timed. Where there is no GPU, only the CPU runs.

    python bench/device.py --images 1000 --epochs 5
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from robode.attacks.perturbations import PGD
from robode.certificates.radius import Certified
from robode.corruptions.perturbation import Clean, Gaussian, SaltAndPepper
from robode.corruptions.protocols import Sound
from robode.data.batches import in_units
from robode.data.info import DatasetInfo
from robode.data.vision import MNIST5k
from robode.evaluation.suite import Suite, evaluate_suite
from robode.families.chnode import CHNode
from robode.integrators.one_step import ETD
from robode.network import Network

SUITES: dict[str, Suite] = {
    "noise, 10 copies": {
        "clean": Clean(), "gaussian": Gaussian([0.05, 0.2]), "salt_and_pepper": SaltAndPepper([0.05, 0.2])
    },
    "PGD-40": {"pgd_linf": PGD([0.05, 0.1], steps=40)},
    "certified": {"certified": Certified([0.05, 0.1])},
}  # fmt: skip


def trained(info: DatasetInfo, x: Tensor, labels: Tensor, epochs: int) -> Network:
    """A CH-NODE of four layers."""
    torch.manual_seed(0)
    network = Network(info, CHNode(8, 4, ETD()))
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(100):
            adam.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            adam.step()
            network.flow.project_()  # type: ignore[operator]
    return network


def measured(network: Network, x: Tensor, labels: Tensor, suite: Suite, batch_size: int) -> tuple[float, list[Any]]:
    """Seconds, and the rows, on the device where network and samples lie."""
    begin = time.perf_counter()
    rows = evaluate_suite(
        network, x, labels, suite=suite, protocol=Sound(), info=network.info, repeats=10, seed=0,
        batch_size=batch_size,
    )  # fmt: skip
    return time.perf_counter() - begin, rows


def mean_scores(rows: list[Any]) -> dict[str, float]:
    """Over the copies, by level."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(f"{row['perturbation']} {row['severity']:g}", []).append(row["score"])
    return {name: sum(scores) / len(scores) for name, scores in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = MNIST5k()
    train, test = source.load()
    # the test set has 500 images: the others are taken from the training set, which does without them
    mixed = torch.randperm(len(train.target), generator=torch.Generator().manual_seed(0))
    more = max(args.images - len(test.target), 0)
    extra, kept = mixed[:more], mixed[more:]
    network = trained(source.info, in_units(train.x[kept]), train.target[kept], args.epochs).eval()
    x = torch.cat([test.x, train.x[extra]])[: args.images]
    labels = torch.cat([test.target, train.target[extra]])[: args.images]
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    names = [torch.cuda.get_device_name() if each == "cuda" else f"CPU, {args.threads} thread(s)" for each in devices]
    print(f"{len(x)} images in batches of {args.batch_size}; {' beside '.join(names)}")
    if len(devices) == 1:
        print("torch sees no GPU: only the CPU is measured")
    for title, suite in SUITES.items():
        found = {}
        for device in devices:
            place = copy.deepcopy(network).to(device), x.to(device), labels.to(device)
            if device == "cuda":
                measured(*place, suite, args.batch_size)
            found[device] = measured(*place, suite, args.batch_size)
        print(f"\n{title}: " + ", ".join(f"{device} {seconds:.2f} s" for device, (seconds, _) in found.items()))
        scores = {device: mean_scores(rows) for device, (_, rows) in found.items()}
        for level in scores["cpu"]:
            print(f"  {level:24} " + "  ".join(f"{device} {scores[device][level]:7.2%}" for device in devices))


if __name__ == "__main__":
    main()

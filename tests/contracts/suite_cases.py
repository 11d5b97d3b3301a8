"""Every suite of conf/suite under every protocol and for every kind of data, with a network and samples."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from robode.data.batches import in_units
from robode.data.facts import DataFacts
from robode.fields.hdnn import HDNN
from robode.instantiate import build, build_each
from robode.network import Network
from robode.ode.integrators import Euler
from robode.robustness.corruptions import Batch, Perturbation
from robode.robustness.noise import Draws, base_noise
from robode.robustness.protocols import EvaluationProtocol
from robode.robustness.quantities import Quantity
from robode.robustness.suite import evaluate_suite, levels
from robode.tasks.classification import Classification

CONF = Path(__file__).parents[2] / "conf"
ALL = sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))
PUBLIC = find_spec("pyautoattack")
PROTOCOLS = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))
FACTS = {
    "grey": DataFacts((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c"))),
    "colour": DataFacts((3, 4, 4), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (0.0, 1.0), Classification(("a", "b", "c"))),
    "vectors": DataFacts((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b", "c"))),
}
N, REPEATS, SEED = 117, 3, 5
# Perturbations of the other suites with other settings.
AGAIN = {"curve_l2", "gap", "lecture_curve"}


@functools.cache
def composed(group: str, name: str):
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return compose(overrides=[f"+{group}={name}"])[group]


def perturbations_of(name: str) -> dict[str, Perturbation]:
    """A copy of its own for whoever asks: composing and building take longer than most of the tests."""
    return copy.deepcopy(_built(name))


@functools.cache
def _built(name: str) -> dict[str, Perturbation]:
    """The entries of a suite but the quantities, which have nothing to do with these contracts; attacks that need the
    extra robode[attacks] only where it is."""
    entries = composed("suite", name)
    if PUBLIC is None:
        entries = {key: node for key, node in entries.items() if not key.startswith("autoattack")}
    built = build_each(entries)
    return {key: hurried(each) for key, each in built.items() if not isinstance(each, Quantity)}


def hurried(perturbation: Perturbation) -> Perturbation:
    """An attack with hardly any steps keeps the same promises, and so does smoothing with few draws."""
    if perturbation.attacks:
        perturbation.severities = perturbation.severities[:1]
    for count, few in {"steps": 3, "queries": 4, "targets": 1, "restarts": 1, "n0": 10, "n": 60}.items():
        if hasattr(perturbation, count):
            setattr(perturbation, count, few)
    return perturbation


SUITES = [name for name in ALL if name == "clean" or set(perturbations_of(name)) != {"clean"}]


class Case:
    """One suite under one protocol on one kind of data, with a network and samples."""

    def __init__(self, suite: str, protocol: str, kind: str) -> None:
        self.facts = FACTS[kind]
        self.suite = perturbations_of(suite)
        self.protocol: EvaluationProtocol = build(composed("protocol", protocol))
        generator = torch.Generator().manual_seed(3)
        shape = (N, *self.facts.shape)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.x = pixels if self.facts.bounds else torch.randn(shape, generator=generator)
        self.labels = torch.randint(0, 3, (N,), generator=generator)
        torch.manual_seed(7)
        self.network = Network(self.facts, HDNN(4, 2, Euler()))

    def perturbations(self) -> Iterator[tuple[Perturbation, float]]:
        for level in levels(self.suite, self.protocol, self.facts):
            yield level.perturbation, level.severity

    def moved(
        self, perturbation: Perturbation, severity: float, start: int = 0, stop: int = N, repeat: int = 0, seed=SEED
    ) -> Tensor:
        """x' of the samples start, ..., stop - 1, in the protocol's space."""
        noise = perturbation.noise and base_noise(perturbation.noise, seed, repeat, start, stop, self.facts.shape)
        x, labels = in_units(self.x[start:stop]), self.labels[start:stop]
        draws = Draws((seed, repeat, 2), range(start, stop))
        if perturbation.in_data_units:
            batch = Batch(x, labels, noise, self.facts.bounds, draws)
        else:
            batch = Batch(self.protocol.encode(x, self.facts), labels, noise, self.protocol.bounds(self.facts), draws)
        batch = replace(batch, prepared=perturbation.prepare(self.network, self.facts.shape))
        before = replace(batch, x=batch.x.clone(), targets=labels.clone(), noise=copy.deepcopy(noise))
        (result,) = perturbation.perturbed(self.network, self.facts.task, batch, [severity])
        assert torch.equal(batch.x, before.x) and torch.equal(batch.targets, before.targets)
        assert noise is None or torch.equal(noise, before.noise)
        return result

    def rows(self, **options):
        options = {"repeats": REPEATS, "seed": SEED, **options}
        return evaluate_suite(
            self.network, self.x, self.labels, suite=self.suite, protocol=self.protocol, facts=self.facts, **options
        )


def speaks_of(protocol: str, kind: str) -> bool:
    return protocol != "chnode_2022" or kind != "vectors"


CASES = [(s, p, k) for s in SUITES for p in PROTOCOLS for k in FACTS if speaks_of(p, k)]

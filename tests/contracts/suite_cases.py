"""Every suite of conf/suite under every protocol and for every kind of data, with a network and samples."""

from __future__ import annotations

import copy
import functools
from importlib.util import find_spec
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from small_runs import build_each

from robode.config.instantiate import build
from robode.contracts.perturbations import INFO, REPEATS, SEED, hurried, scene_for
from robode.corruptions.perturbation import Perturbation
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan, levels
from robode.quantities.quantity import Quantity

CONF = Path(__file__).parents[2] / "conf"
ALL = sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))
PUBLIC = find_spec("pyautoattack")
PROTOCOLS = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))
# Perturbations of the other suites with other settings.
AGAIN = {
    "attacks_quick",
    "curve_l2",
    "gap",
    "lecture_curve",
    "lyanet_ablations",
    "lyanet_autoattack",
    "lyanet_data_space",
    "stable_node_attacks",
    "stable_node_designs",
    "worst_error",
}


@functools.cache
def composed() -> DictConfig:
    """Every suite and every protocol under its group and its name, at once."""
    words = [
        f"+{group}@{group}.{name}={name}"
        for group, names in (("suite", ALL), ("protocol", PROTOCOLS))
        for name in names
    ]
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return compose(overrides=words)


def perturbations_of(name: str) -> dict[str, Perturbation]:
    """A copy of its own for whoever asks: composing and building take longer than most of the tests."""
    return copy.deepcopy(_built(name))


@functools.cache
def _built(name: str) -> dict[str, Perturbation]:
    """The entries of a suite but the quantities, which have nothing to do with these contracts; attacks that need the
    extra robode[attacks] only where it is."""
    entries = composed().suite[name]
    if PUBLIC is None:
        entries = {key: node for key, node in entries.items() if not key.startswith("autoattack")}
    built = build_each(entries)
    return {key: hurried(each) for key, each in built.items() if not isinstance(each, Quantity)}


SUITES = [name for name in ALL if name == "clean" or set(perturbations_of(name)) != {"clean"}]


class Case:
    """One suite under one protocol on one kind of data, with a network and samples."""

    def __init__(self, suite: str, protocol: str, kind: str) -> None:
        self.suite = perturbations_of(suite)
        self.scene = scene_for(kind, build(composed().protocol[protocol]))
        self.info, self.network, self.protocol = self.scene.info, self.scene.network, self.scene.protocol
        self.x, self.labels = self.scene.x, self.scene.targets

    def perturbations(self) -> list[Perturbation]:
        """Those that make sense here, and those that the protocol adds."""
        return list(dict.fromkeys(level.perturbation for level in levels(self.suite, self.protocol, self.info)))

    def rows(self, **options):
        return evaluate_suite(self.network, self.x, self.labels, self.plan, **options)

    @property
    def plan(self) -> Plan:
        return Plan(self.suite, self.protocol, self.info, REPEATS, SEED)


def speaks_of(protocol: str, kind: str) -> bool:
    return protocol == "data_space" or kind != "vectors"


def worth_it(suite: str, protocol: str) -> bool:
    """Whether another protocol makes another case: not of a suite whose perturbations other suites have too, and which
    all act in data units whatever the protocol is."""
    in_data_units = all(each.in_data_units for each in perturbations_of(suite).values() if each.corrupts)
    return protocol == "data_space" or suite not in AGAIN or not in_data_units


CASES = [(s, p, k) for s in SUITES for p in PROTOCOLS for k in INFO if speaks_of(p, k) and worth_it(s, p)]

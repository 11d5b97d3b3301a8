"""What every suite in conf/suite promises, under every protocol in conf/protocol and for every kind of data."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from robode.data.batches import in_units
from robode.data.facts import DataFacts
from robode.errors import BadInput
from robode.fields.hdnn import HDNN
from robode.instantiate import build, build_each
from robode.network import Network
from robode.ode.integrators import Euler
from robode.report.records import COLUMNS
from robode.robustness.corruptions import Batch, Perturbation
from robode.robustness.noise import Draws, base_noise
from robode.robustness.protocols import EvaluationProtocol
from robode.robustness.quantities import Quantity
from robode.robustness.suite import evaluate_suite, levels, plan

CONF = Path(__file__).parents[2] / "conf"
ALL = sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))
PUBLIC = find_spec("pyautoattack")
PROTOCOLS = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))
FACTS = {
    "grey": DataFacts((1, 4, 4), 3, (0.1307,), (0.3081,), (0.0, 1.0), ("a", "b", "c")),
    "colour": DataFacts((3, 4, 4), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (0.0, 1.0), ("a", "b", "c")),
    "vectors": DataFacts((2,), 3, (0.0, 0.0), (1.0, 1.0), None, ("a", "b", "c")),
}
PROMISED = (
    "perturbation suite norm severity severity_unit space protocol evaluation repeat n correct correct_finer accuracy "
    "seconds"
).split()
N, REPEATS, SEED = 117, 3, 5
CUTS = (0, 1, 50, 73, N)  # on and beside the edges of the noise blocks


@functools.cache
def composed(group: str, name: str):
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return compose(overrides=[f"+{group}={name}"])[group]


def perturbations_of(name: str) -> dict[str, Perturbation]:
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
        before = replace(batch, x=batch.x.clone(), labels=labels.clone(), noise=copy.deepcopy(noise))
        result = perturbation.perturb(self.network, batch, severity)
        assert torch.equal(batch.x, before.x) and torch.equal(batch.labels, before.labels)
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


@pytest.fixture(params=CASES, ids="-".join)
def case(request) -> Case:
    return Case(*request.param)


def test_the_published_and_the_sound_protocol_are_there():
    assert set(PROTOCOLS) >= {"sound", "chnode_2022"} and set(SUITES) >= {"clean", "noise"}


@pytest.mark.parametrize("suite", SUITES)
def test_data_that_a_protocol_does_not_speak_of_are_refused(suite):
    with pytest.raises(BadInput, match="protocol=chnode_2022"):
        Case(suite, "chnode_2022", "vectors").rows()


def test_entries_are_perturbations_named_by_their_keys(case):
    assert case.suite
    for name, perturbation in case.suite.items():
        assert isinstance(perturbation, Perturbation) and perturbation.name == name
        assert perturbation.severities and perturbation.suite
    assert any(not perturbation.corrupts for perturbation in case.suite.values()), "no clean row to compare with"


def test_perturbed_batches_keep_shape_and_type_and_stay_inside_the_bounds(case):
    for perturbation, severity in case.perturbations():
        inside = perturbation.in_data_units
        bounds = case.facts.bounds if inside else case.protocol.bounds(case.facts)
        moved = case.moved(perturbation, severity)
        assert moved.shape == case.x.shape and moved.dtype == torch.float32
        assert bool(moved.isfinite().all())
        decoded = moved if inside else case.protocol.decode(moved, case.facts)
        assert decoded.shape == case.x.shape and decoded.dtype == torch.float32
        if perturbation.corrupts and bounds is not None:
            assert bounds[0] <= float(moved.min()) and float(moved.max()) <= bounds[1]
        if perturbation.stochastic and severity > 0:
            assert not torch.equal(moved, case.protocol.encode(in_units(case.x), case.facts))


def test_perturbed_samples_are_a_function_of_seed_repeat_and_index(case):
    for perturbation, severity in case.perturbations():
        if perturbation.attacks:  # rounding decides where a search goes: its rows are compared below
            continue
        torch.manual_seed(1)
        whole = case.moved(perturbation, severity)
        torch.manual_seed(2)
        parts = [case.moved(perturbation, severity, a, b) for a, b in zip(CUTS, CUTS[1:], strict=False)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)  # sums round with the batch's length
        for other in ({"repeat": 1}, {"seed": SEED + 1}):
            assert torch.equal(case.moved(perturbation, severity, **other), whole) != perturbation.stochastic


def test_the_split_into_batches_changes_no_row(case):
    def known(rows):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert known(case.rows(batch_size=1)) == known(case.rows(batch_size=1000))


def test_rows_computed_in_pieces_are_the_rows_computed_at_once(case):
    def key(row):
        return row["perturbation"], row["severity"], row["repeat"]

    def known(rows):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    at_once: dict[tuple, Tensor] = {}
    whole = case.rows(finished=lambda rows, right: at_once.update(zip(map(key, rows), right, strict=True)))
    pieces, bits = [], {}
    for turn in range(3):  # every third row, then every third of the others …
        wanted = {key(row) for row in whole[turn::3]}

        def keep(rows, right):
            assert [int(each.sum()) for each in right] == [row["correct"] for row in rows]
            bits.update(zip(map(key, rows), right, strict=True))

        pieces += case.rows(known=lambda row: key(row) not in wanted, finished=keep)  # noqa: B023 - called at once
    place = {key(row): index for index, row in enumerate(whole)}
    assert known(sorted(pieces, key=lambda row: place[key(row)])) == known(whole)
    assert bits.keys() == at_once.keys() and all(torch.equal(bits[each], at_once[each]) for each in bits)


def test_a_perturbation_set_up_otherwise_is_another_evaluation_and_its_levels_are_not(case):
    def evaluation(perturbation):
        (found,) = {row["evaluation"] for level, row in asked(case, perturbation) if level.perturbation is perturbation}
        return found

    for perturbation in {perturbation for perturbation, _ in case.perturbations()} - set(case.protocol.extras):
        other, fewer = copy.copy(perturbation), copy.copy(perturbation)
        other.suite, fewer.severities = "mine", (0.125,)
        assert evaluation(fewer) == evaluation(perturbation) != evaluation(other)
    assert len({row["evaluation"] for row in case.rows()}) == len({row["perturbation"] for row in case.rows()})
    here, elsewhere = ({row["evaluation"] for row in case.rows(data_digest=digest)} for digest in "ab")
    assert here.isdisjoint(elsewhere)


def asked(case, perturbation):
    return plan({perturbation.name: perturbation}, case.protocol, case.facts, 1)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_mutated(case, training):
    case.network.train(training)
    x, labels, state = case.x.clone(), case.labels.clone(), copy.deepcopy(case.network.state_dict())
    generator = torch.get_rng_state()
    case.rows()
    assert torch.equal(case.x, x) and torch.equal(case.labels, labels)
    after = case.network.state_dict()
    assert after.keys() == state.keys() and all(torch.equal(after[key], state[key]) for key in state)
    assert all(module.training == training for module in case.network.modules())
    assert all(p.grad is None and p.requires_grad for p in case.network.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_rows_carry_what_is_promised(case):
    untouched = {name for name, each in case.suite.items() if not each.corrupts or each.in_data_units}
    for row in case.rows():
        assert sorted(row) == sorted(PROMISED)
        assert row["protocol"] == case.protocol.name and row["n"] == N and row["seconds"] >= 0
        assert 0 <= row["correct"] <= N and row["accuracy"] == row["correct"] / N
        assert row["space"] == ("data" if row["perturbation"] in untouched else case.protocol.space)
    assert set(PROMISED) <= set(COLUMNS)


def test_a_stochastic_level_has_a_row_for_each_repeat_and_a_deterministic_one_has_one(case):
    found: dict[tuple[str, float], list[int]] = {}
    for row in case.rows():
        found.setdefault((row["perturbation"], row["severity"]), []).append(row["repeat"])
    expected = {
        (perturbation.name, severity): list(range(REPEATS)) if perturbation.stochastic else [0]
        for perturbation, severity in case.perturbations()
    }
    assert found == expected

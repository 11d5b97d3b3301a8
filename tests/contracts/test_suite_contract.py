"""What every suite in conf/suite promises, under every protocol in conf/protocol and for every kind of data."""

from __future__ import annotations

import copy

import pytest
import torch
from suite_cases import AGAIN, PROTOCOLS, SEED, SUITES, N, perturbations_of

from robode.data.batches import in_units
from robode.robustness.corruptions import Perturbation

CUTS = (0, 1, 50, 73, N)  # on and beside the edges of the noise blocks


def test_the_published_and_the_sound_protocol_are_there():
    assert set(PROTOCOLS) >= {"sound", "chnode_2022"} and set(SUITES) >= {"clean", "noise"}


def test_suites_that_only_slow_tests_try_bring_no_perturbation_of_their_own():
    kinds = {name: {type(each) for each in perturbations_of(name).values()} for name in SUITES}
    assert set(kinds) > AGAIN
    assert set().union(*(kinds[name] for name in AGAIN)) <= set().union(*(kinds[name] for name in kinds.keys() - AGAIN))


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

"""What every suite in conf/suite promises, under every protocol in conf/protocol and for every kind of data."""

from __future__ import annotations

import copy

import pytest
import torch
from suite_cases import AGAIN, PROTOCOLS, SUITES, perturbations_of

from robode.contracts import perturbations
from robode.contracts.findings import held
from robode.contracts.perturbations import CONTRACTS
from robode.corruptions.perturbation import Perturbation


def test_the_published_and_the_sound_protocol_are_there():
    assert set(PROTOCOLS) >= {"data_space", "chnode_2022", "lyanet_2022"} and set(SUITES) >= {"clean", "noise"}


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


def test_every_contract_of_perturbations_is_kept(case):
    for perturbation in case.perturbations():
        assert held(CONTRACTS, perturbations.Case(perturbation, case.scene)) == [], perturbation.name


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

"""What the rows of every suite in conf/suite promise, under every protocol in conf/protocol and for every data."""

from __future__ import annotations

import copy

import pytest
import torch
from suite_cases import REPEATS, SUITES, Case
from torch import Tensor

from robode.contracts.perturbations import N, rows
from robode.errors import BadInput
from robode.evaluation.suite import plan
from robode.runs.records import COLUMNS

PROMISED = (
    "perturbation suite norm severity severity_unit space protocol evaluation repeat n score score_finer seconds"
).split()


@pytest.mark.parametrize("suite", SUITES)
def test_data_that_a_protocol_does_not_speak_of_are_refused(suite):
    with pytest.raises(BadInput, match="protocol=chnode_2022"):
        Case(suite, "chnode_2022", "vectors").rows()


def test_the_split_into_batches_changes_no_row(case):
    assert rows(case.scene, case.suite, batch_size=1) == rows(case.scene, case.suite, batch_size=1000)


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

        def keep(rows, scores):
            assert [float(each.double().sum()) / N for each in scores] == [row["score"] for row in rows]
            assert {(each.dtype, each.device.type, each.shape) for each in scores} == {(torch.float32, "cpu", (N,))}
            bits.update(zip(map(key, rows), scores, strict=True))

        pieces += case.rows(known=lambda row: key(row) not in wanted, finished=keep)  # noqa: B023 - called at once
    place = {key(row): index for index, row in enumerate(whole)}
    assert known(sorted(pieces, key=lambda row: place[key(row)])) == known(whole)
    assert bits.keys() == at_once.keys() and all(torch.equal(bits[each], at_once[each]) for each in bits)


def test_a_perturbation_set_up_otherwise_is_another_evaluation_and_its_levels_are_not(case):
    def evaluation(perturbation):
        (found,) = {row["evaluation"] for level, row in asked(case, perturbation) if level.perturbation is perturbation}
        return found

    case.x, case.labels = case.x[:5], case.labels[:5]  # what a row is called does not depend on what it finds
    for perturbation in set(case.perturbations()) - set(case.protocol.extras):
        other, fewer = copy.copy(perturbation), copy.copy(perturbation)
        other.suite, fewer.severities = "mine", (0.125,)
        assert evaluation(fewer) == evaluation(perturbation) != evaluation(other)
    rows = case.rows(repeats=1)
    assert len({row["evaluation"] for row in rows}) == len({row["perturbation"] for row in rows})
    here, elsewhere = ({row["evaluation"] for row in case.rows(repeats=1, data_digest=digest)} for digest in "ab")
    assert here.isdisjoint(elsewhere)


def asked(case, perturbation):
    return plan({perturbation.name: perturbation}, case.protocol, case.info, 1)


def test_rows_carry_what_is_promised(case):
    attacks = [level.perturbation.name for level, _ in plan(case.suite, case.protocol, case.info, 1)
               if level.perturbation.attacks]  # fmt: skip
    rescored = {"clean", *attacks} if attacks else set()
    untouched = {name for name, each in case.suite.items() if not each.corrupts or each.in_data_units}
    for row in case.rows():
        assert sorted(row) == sorted(PROMISED)
        assert row["protocol"] == case.protocol.name and row["n"] == N and row["seconds"] >= 0
        assert 0 <= row["score"] <= 1
        assert row["space"] == ("data" if row["perturbation"] in untouched else case.protocol.space)
        assert (row["score_finer"] is not None) == (row["perturbation"] in rescored)
    assert set(PROMISED) <= set(COLUMNS)


def test_a_stochastic_level_has_a_row_for_each_repeat_and_a_deterministic_one_has_one(case):
    found: dict[tuple[str, float], list[int]] = {}
    for row in case.rows():
        found.setdefault((row["perturbation"], row["severity"]), []).append(row["repeat"])
    expected = {
        (perturbation.name, severity): list(range(REPEATS)) if perturbation.stochastic else [0]
        for perturbation in case.perturbations()
        for severity in perturbation.severities
    }
    assert found == expected

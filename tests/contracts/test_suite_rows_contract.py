"""What the rows of every suite in conf/suite promise, under every protocol in conf/protocol and for every data."""

from __future__ import annotations

import copy

import pytest
import torch
from suite_cases import PROTOCOLS, REPEATS, SUITES, Case, speaks_of
from torch import Tensor

from robode.contracts.perturbations import N, rows
from robode.errors import BadInput
from robode.evaluation.measure import answered
from robode.evaluation.suite import Plan
from robode.runs.results import COLUMNS

PROMISED = (
    "perturbation suite norm severity severity_unit space protocol evaluation repeat n score score_reference seconds"
).split()


@pytest.mark.parametrize("protocol", [each for each in PROTOCOLS if not speaks_of(each, "vectors")])
@pytest.mark.parametrize("suite", SUITES)
def test_data_that_a_protocol_does_not_speak_of_are_refused(suite, protocol):
    with pytest.raises(BadInput, match=f"protocol={protocol}: speaks of normalised images only"):
        Case(suite, protocol, "vectors").rows()


def test_the_split_into_batches_changes_no_row(case):
    assert rows(case.scene, case.suite, batch_size=1) == rows(case.scene, case.suite, batch_size=1000)


def test_rows_computed_in_pieces_are_the_rows_computed_at_once(case):
    def key(row):
        return row["perturbation"], row["severity"], row["repeat"]

    def known(rows):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    def found(work) -> list[tuple[dict, Tensor]]:
        parts = answered(case.network, case.x, case.labels, case.plan, work)
        return [answer for part in parts for answer in part.values()]

    at_once = {key(row): scores for row, scores in found(case.plan.rows())}
    pieces, bits = [], {}
    for turn in range(3):  # every third row, then every third of the others …
        for row, scores in found(case.plan.rows()[turn::3]):
            assert float(scores.double().sum()) / N == row["score"]
            assert (scores.dtype, scores.device.type, scores.shape) == (torch.float32, "cpu", (N,))
            pieces.append(row)
            bits[key(row)] = scores
    place = {key(row): index for index, (_, row) in enumerate(case.plan.rows())}
    assert known(sorted(pieces, key=lambda row: place[key(row)])) == known(case.rows())
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
    rows = [row for _, row in case.plan.rows()]
    assert len({row["evaluation"] for row in rows}) == len({row["perturbation"] for row in rows})
    here, elsewhere = ({row["evaluation"] for _, row in case.plan.rows(digest)} for digest in "ab")
    assert here.isdisjoint(elsewhere)


def asked(case, perturbation):
    return Plan({perturbation.name: perturbation}, case.protocol, case.info, 1).rows()


def test_rows_carry_what_is_promised(case):
    attacks = [level.perturbation.name for level, _ in case.plan.rows()
               if level.perturbation.attacks]  # fmt: skip
    rescored = {"clean", *attacks} if attacks else set()
    untouched = {name for name, each in case.suite.items() if not each.corrupts or each.in_data_units}
    for row in case.rows():
        assert sorted(row) == sorted(PROMISED)
        assert row["protocol"] == case.protocol.name and row["n"] == N and row["seconds"] >= 0
        assert 0 <= row["score"] <= 1
        assert row["space"] == ("data" if row["perturbation"] in untouched else case.protocol.space)
        assert (row["score_reference"] is not None) == (row["perturbation"] in rescored)
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

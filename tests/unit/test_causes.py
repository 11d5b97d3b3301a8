"""`robode check` says one cause once."""

import pytest

from robode.contracts.check import _print, causes
from robode.contracts.findings import Finding


def test_contracts_with_one_cause_share_a_line():
    lines = [f"contract {number}: no memory" for number in range(4)] + ["model/m.yaml: expected a name", "odd"]
    assert causes(lines) == (
        "contract 0, contract 1 and 2 more: no memory", "model/m.yaml: expected a name", "odd"
    )  # fmt: skip
    assert causes(()) == ()


def test_a_second_part_with_the_same_causes_points_to_the_first(capsys: pytest.CaptureFixture[str]):
    broken = ("a: no memory", "b: no memory")
    _print([Finding("model=m", 2, broken), Finding("model=n", 2, broken), Finding("model=o", 2)])
    said = capsys.readouterr().out
    assert said.count("no memory") == 1 and "a, b: no memory" in said and "the same as model=m" in said
    assert "check: 3 checked, 2 with a broken contract" in said

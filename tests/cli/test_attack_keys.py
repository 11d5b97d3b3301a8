"""Settings of an attack on the command line, without a plus: they are words like any other."""

from collections.abc import Callable

import pytest
from command_line import Answer, Jobs


@pytest.mark.parametrize(
    "word",
    [
        "attacks_quick suite.pgd_linf.restarts=3",
        "attacks_quick suite.pgd_l2.loss=margin",
        "attacks_quick suite.pgd_l2.step_size=0.2",
        "attacks_standard suite.ensemble_linf.targets=4",
        "curve_l2 suite.fmn_l2.restarts=2",
        "table1_attacks suite.apgd_dlr_l2.targets=3",
    ],
)
def test_a_setting_arrives(word: str, robode: Callable[..., Answer], jobs: Jobs) -> None:
    suite, setting = word.split()
    answer = robode("train", f"suite={suite}", setting)
    assert answer.code == 0, answer.err
    dotted, value = setting.split("=")
    _, entry, key = dotted.split(".")
    assert str(jobs.configs[0].suite[entry].arguments[key]) == value


def test_a_plus_before_a_key_that_is_there_is_explained(robode: Callable[..., Answer]) -> None:
    answer = robode("train", "suite=attacks_quick", "+suite.pgd_linf.restarts=3")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "suite.pgd_linf.restarts is a key already; write it without the +" in answer.err

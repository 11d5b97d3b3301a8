"""Words that a task cannot serve, and words that look like others, are refused in one line before torch is there."""

from collections.abc import Callable

import pytest
from command_line import Answer, Jobs


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=pendulum", "objective=adversarial"], "objective=adversarial and data=pendulum: expected data with"),
        (
            ["data=pendulum", "objective=jacobian_penalty"],
            "objective=jacobian_penalty: no term of the loss looks at the target; "
            "add one: objective=[mean_squared_error,jacobian_penalty]",
        ),
        (
            ["data=mnist5k", "objective=[jacobian_penalty,weight_smoothness]"],
            "objective=jacobian_penalty,weight_smoothness: no term of the loss looks at the target; "
            "add one: objective=[cross_entropy,jacobian_penalty,weight_smoothness]",
        ),
        (["suite.gaussian.std=0.1"], "unknown key 'suite.gaussian.std': did you mean 'suite.gaussian.var'"),
        (["suite=attacks_quick", "suite.pgd_linf.eps=8/x"], "suite.pgd_linf.eps=8/x: expected a number"),
    ],
)  # fmt: skip
def test_refused_for_its_task(words: list[str], expected: str, robode: Callable[..., Answer], jobs: Jobs) -> None:
    answer = robode("train", *words)
    assert answer.code == 2 and answer.line.startswith(expected)
    assert jobs.configs == []


@pytest.mark.parametrize(
    "words",
    [
        ["data=pendulum", "objective=[mean_squared_error,jacobian_penalty]"],
        ["data=pendulum"],
        ["data=mnist5k", "objective=[cross_entropy,weight_smoothness]"],
        ["data=mnist5k", "suite=attacks_quick", "suite.pgd_linf.eps=[2/255,8/255]"],
    ],
)
def test_what_fits_is_not(words: list[str], robode: Callable[..., Answer], jobs: Jobs) -> None:
    answer = robode("train", *words)
    assert answer.code == 0, answer.err
    assert len(jobs.configs) == 1


@pytest.mark.parametrize("words", [
    "data=pendulum suite=corruptions", "data=double_moons suite=autoattack", "data=pendulum suite=smoothing",
    "data=pendulum suite=[clean,gradient_masking]",
])  # fmt: skip
def test_a_dry_run_refuses_a_suite_that_the_data_cannot_serve(words: str, robode: Callable[..., Answer]) -> None:
    if "autoattack" in words:
        pytest.importorskip("pyautoattack")
    answer = robode("train", *words.split(), "--dry-run")
    assert answer.code == 2 and answer.line.startswith("suite."), answer

"""Words that a task cannot serve, and words that look like others, are refused in one line before torch is there."""

from collections.abc import Callable
from pathlib import Path

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


OTHER_DT = "horizon (depth*step): expected {}, the time from a state to its target in these data, got {}; leave step"
ITERATED = "model=sympnet data=oscillator suite=trajectory suite.trajectory"
SYMPLECTIC = {
    "model=sympnet data=sparse_regression": "model.width: expected an even number, d positions and d momenta, got 1",
    "model=sympnet data=oscillator step=0.05 depth=4": OTHER_DT.format(0.1, 0.2),
    "model=sympnet data=oscillator data.source.dt=0.3 horizon=0.1": OTHER_DT.format(0.3, 0.1),
    "model=sympnet data=oscillator_paths": "model: SympNet maps over one time, and each of these samples says its own",
    "model=sympflow data=oscillator": "model: SympFlow needs samples that say their time",
    "model=residual data=oscillator_paths encoder=time": "encoder=time: expected a model that is bound to a time",
    f"{ITERATED}.time=0.25": "suite.trajectory: expects a time that is a multiple of dt = 0.1, got 0.25",
    f"{ITERATED}.invariants=[mass]": "suite.trajectory: knows no invariant mass of these data; they have energy",
    f"{ITERATED}.start=[1]": "suite.trajectory: expects a start of 2 numbers, got 1",
    "data=double_moons suite=trajectory": "suite.trajectory: needs data that are flow maps, such as oscillator, and",
}


@pytest.mark.parametrize("words", SYMPLECTIC)
def test_flow_maps_and_networks_that_do_not_fit_are_refused(
    words: str, robode: Callable[..., Answer], folder: Path
) -> None:
    answer = robode("train", *words.split(), "--dry-run")
    assert answer.code == 2 and answer.line.startswith(SYMPLECTIC[words]), answer
    assert list(folder.iterdir()) == []

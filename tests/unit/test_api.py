"""`robode.api`: what the command line does, from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robode.api import load, train
from robode.data.toy import SixPoints
from robode.errors import BadInput, JobFailed
from robode.runs.checkpoints import read_checkpoint
from robode.runs.run import find

SMALL = {
    "model": "chnode", "data": "six_points", "depth": 2, "model.width": 2, "epochs": 2, "callbacks": "none",
    "suite": ["clean"], "repeats": 1, "trainer.threads": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_is_trained_found_again_and_loaded() -> None:
    first = train(**SMALL, run="mine")
    again = train(**SMALL, run="mine")
    assert first.run == again.run == find("mine")[0].folder and first.report.is_file()
    assert (first.reused, again.reused) == (False, True)
    assert first.score is not None and 0 <= first.score <= 1 and first.flow_discrete <= 1
    network, x = load("mine"), SixPoints().load()[1].x
    assert not network.training and load(first.run / "last.ckpt")(x).shape == (6, 2)
    right = network(x).argmax(1) == SixPoints().load()[1].target
    assert int(right.sum()) / len(x) == first.score
    saved = read_checkpoint(first.run / "last.ckpt")["state_dict"]
    assert torch.equal(saved["network.flow.K"], network.flow.K)


def test_bytes_that_were_not_scaled_are_refused() -> None:
    train(**SMALL, run="mine")
    with pytest.raises(BadInput, match=r"^x: expected data units as floating-point numbers \(images: x / 255\), got "):
        load("mine")(torch.ones(3, 2, dtype=torch.uint8))


@pytest.mark.parametrize(("overrides", "says"), [
    ({"depth": 0}, "depth=0"), ({"model": "nothing"}, "nothing"), ({"nonsense": 1}, "nonsense"),
    ({"model.gamma": "magic"}, "model.gamma=magic"), ({"run": "a b"}, "run: expected a name"),
    ({"seeds": 3}, "seeds=3"),
])  # fmt: skip
def test_what_the_command_line_refuses_is_bad_input(overrides: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as error:
        train(**{**SMALL, **overrides})
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not Path("outputs").exists()


def test_a_training_that_fails_is_a_failed_job() -> None:
    with pytest.raises(JobFailed, match="smaller lr"):
        train(**{**SMALL, "model": "hdnn", "optimizer": "sgd", "lr": 1e30, "epochs": 20, "step": 0.5})


@pytest.mark.parametrize(("words", "says"), [
    ({"run": "nowhere"}, "run=nowhere"), ({"run": "mine", "checkpoint": "third"}, "checkpoint=third"),
    ({"run": "mine", "device": "tpu"}, "device=tpu"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_one_line(words: dict[str, str], says: str) -> None:
    train(**SMALL, run="mine")
    with pytest.raises(BadInput, match=says):
        load(**words)  # type: ignore[arg-type]

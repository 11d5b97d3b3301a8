"""Bad input that only assembling can see: training called from Python, and a resumed run, whose data are its own."""

import pytest

from robode.config.compose import Request, compose_trainings
from robode.config.config import TrainConfig
from robode.errors import BadInput
from robode.training.assembly import assemble

SMALL = ("data=six_points", "model.width=2", "depth=1", "callbacks=none", "trainer.threads=1")


def composed(*words: str) -> TrainConfig:
    return compose_trainings(Request("train", (*SMALL, *words)))[0]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("callbacks=early_stopping", "data.validation=0 holds nothing out"),
        ("optimizer.interval=foo", "optimizer.interval=foo: choose one of: epoch, step"),
        ("data.limit_train=2.5", "data.limit_train=2.5"),
        ("data.limit_train=7", "data.limit_train=7: expected 1 to 6"),
        ("logger=tensorboard", "needs the package tensorboard"),
        ("logger.csv=5", "logger.csv=5: expected a node"),
        ("logger.csv._target_=robode.training.nothing.Log", "no such class"),
    ],
)
def test_assembling_refuses(word: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robode.config.validate.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=expected):
        assemble(composed(word))


def test_assembling_what_is_good() -> None:
    parts = assemble(composed())
    assert not parts.data.has_validation
    assert parts.module.config.optimizer.interval == "epoch"

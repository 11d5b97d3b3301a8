"""Every word in conf/paper is one that `robode train` and `robode evaluate` understand."""

from pathlib import Path

import pytest

from robode.config.compose import Request, compose_evaluations, compose_trainings
from robode.config.validate import check
from robode.papers.spec import items


def compose_all(asked: set[tuple[str, tuple[str, ...]]]) -> None:
    for experiment, words in sorted(asked):
        (cfg,) = compose_trainings(Request("train", (f"experiment={experiment}", *words, "seed=1")))
        check(cfg)
        assert cfg.experiment == experiment


def test_a_row_of_every_item_composes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at every variant, with the words of one size."""
    asked = set()
    for item in items().values():
        words = (*item.rows[-1].words, *next(iter(item.sizes.values())).words)
        asked |= {(experiment, words) for experiment in item.experiment.values()}
    compose_all(asked)


@pytest.mark.slow
def test_every_row_of_our_papers_composes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compose_all({
        (experiment, (*row.words, *size.words))
        for item in items().values()
        for experiment in item.experiment.values()
        for row in item.rows
        for size in item.sizes.values()
    })  # fmt: skip


@pytest.mark.slow
def test_our_evaluations_compose(folder: Path) -> None:
    words = {
        (*each, *size.evaluate)
        for item in items().values()
        for each in item.evaluations
        for size in item.sizes.values()
    }
    for each in sorted(words):
        (cfg,) = compose_evaluations(Request("evaluate", each))
        assert set(cfg.suite) > {"clean"} or cfg.split == "train", each

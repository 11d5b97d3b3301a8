"""Several seeds of one command: the runs are those of separate trainings."""

from pathlib import Path

import pytest
import torch
from small_runs import SMALL, composed, train

from robode.config.seeds import chosen, one_each
from robode.errors import BadInput, JobFailed
from robode.runs.run import Run
from robode.runs.checkpoints import read_checkpoint
from robode.verbs import train as train_module
from robode.api.training import run_training


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


def together(*words):
    return [Run(Path(folder)) for folder in run_training(composed(*SMALL, *words), words)["runs"]]


def test_seeds_by_number_or_by_name():
    assert chosen(3) == [1, 2, 3] and chosen([5, 1, 5]) == [5, 1]
    for wrong in (0, "x", [], True, [1.5], [-1]):
        with pytest.raises(BadInput, match="expected how many"):
            chosen(wrong)
    cfg = composed(*SMALL, "seeds=[4,7]")
    assert [(each.seed, each.seeds) for each in one_each(cfg)] == [(4, None), (7, None)] and cfg.seed == 0
    assert one_each(composed(*SMALL)) == [composed(*SMALL)]


def test_a_run_among_several_seeds_is_that_of_its_seed_alone(tmp_path, monkeypatch):
    first, second = together("epochs=2", "seeds=[1,2]")
    assert all(run.trained and run.status()["status"] == "done" for run in (first, second))
    assert train("epochs=2", "seed=2") == second, "found again, not trained again"
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    alone = train("epochs=2", "seed=2")
    assert alone.id == second.id
    one, two = (read_checkpoint(path)["state_dict"] for path in (alone.last, tmp_path / second.last))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_only_missing_seeds_are_trained():
    alone = train("epochs=1", "seed=1")
    stamp = alone.last.stat().st_mtime_ns
    first, second = together("epochs=1", "seeds=2")
    assert first == alone and alone.last.stat().st_mtime_ns == stamp and second.trained


def test_a_seed_that_fails_does_not_stop_the_others(monkeypatch):
    def fails(trainer, module, *rest, fit=train_module.fit):
        if module.config["seed"] == 1:
            raise JobFailed("loss is nan")
        fit(trainer, module, *rest)

    monkeypatch.setattr(train_module, "fit", fails)
    with pytest.raises(JobFailed, match="^seed 1: loss is nan$"):
        together("epochs=1", "seeds=2")
    assert train("epochs=1", "seed=2").trained

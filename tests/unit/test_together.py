"""Several seeds in one process: the runs are those of separate trainings."""

from pathlib import Path

import pytest
import torch
from small_runs import SMALL, composed, train

from robode.errors import BadInput
from robode.runs import Run
from robode.seeds import chosen, one_each
from robode.train import run_training
from robode.training.checkpoints import read_checkpoint


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.evaluate.draw_figures", lambda folder: [])


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


def test_runs_trained_together_are_those_of_separate_trainings(tmp_path, monkeypatch):
    first, second = together("epochs=2", "seeds=[1,2]")
    assert all(run.trained and run.status()["status"] == "done" for run in (first, second))
    assert train("epochs=2", "seed=2") == second, "found again, not trained again"
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    alone = train("epochs=2", "seed=2")
    assert alone.id == second.id
    one, two, other = (
        read_checkpoint(path)["state_dict"] for path in (alone.last, tmp_path / second.last, tmp_path / first.last)
    )
    assert one.keys() == two.keys()
    for name in one:  # float32, six steps of Adam
        assert torch.allclose(one[name].double(), two[name].double(), rtol=1e-3, atol=1e-4), name
    assert not torch.equal(
        one["network.flow.K"], read_checkpoint(tmp_path / first.last)["state_dict"]["network.flow.K"]
    )


def test_a_batch_trains_only_what_is_missing():
    alone = train("epochs=1", "seed=1")
    stamp = alone.last.stat().st_mtime_ns
    first, second = together("epochs=1", "seeds=2")
    assert first == alone and alone.last.stat().st_mtime_ns == stamp and second.trained

"""Several seeds of one command: the runs are those of separate trainings."""

import pytest
import torch
from small_runs import SMALL, train

from robode.api import training as train_module
from robode.api import work
from robode.config.compose import Request, compose_jobs, compose_trainings
from robode.config.jobs import run_each
from robode.errors import BadInput, JobFailed
from robode.runs.checkpoints import read_checkpoint
from robode.runs.run import Run


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


def together(*words):
    """The outcomes of the jobs that the words make."""
    return run_each(compose_jobs(Request("train", (*SMALL, *words))), work)


def runs(*words):
    return [Run(outcome.result.run) for outcome in together(*words)]


def test_seeds_by_number_or_by_name():
    assert [config.seed for config in several("seeds=3")] == [1, 2, 3]
    assert [config.seed for config in several("seeds=[5,1]")] == [5, 1]
    for wrong in ("0", "x", "[]", "true", "[1.5]", "[-1]"):
        with pytest.raises(BadInput, match="expected how many"):
            several(f"seeds={wrong}")
    with pytest.raises(BadInput, match=r"^seeds=\[5, 1, 5\]: names a seed twice"):
        several("seeds=[5,1,5]")
    with pytest.raises(BadInput, match="^seed=9 and seeds=3: give one of them$"):
        several("seeds=3", "seed=9")
    for name in ("run=mine", "resume=mine"):
        with pytest.raises(BadInput, match="names one run, and seeds=3 asks for several"):
            several("seeds=3", name)


def several(*words):
    return compose_trainings(Request("train", (*SMALL, *words)))


def test_what_refers_to_the_seed_follows_it():
    first, second = several("seeds=[4,7]", "batch_size=${seed}")
    assert (first.batch_size, second.batch_size) == (4, 7)


@pytest.mark.slow
def test_a_run_among_several_seeds_is_that_of_its_seed_alone(tmp_path, monkeypatch):
    first, second = runs("epochs=2", "seeds=[1,2]")
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
    first, second = runs("epochs=1", "seeds=2")
    assert first == alone and alone.last.stat().st_mtime_ns == stamp and second.trained


def test_a_seed_that_fails_does_not_stop_the_others(monkeypatch):
    def fails(trainer, module, *rest, fit=train_module.fit):
        if module.config.seed == 1:
            raise JobFailed("loss is nan")
        fit(trainer, module, *rest)

    monkeypatch.setattr(train_module, "fit", fails)
    first, second = together("epochs=1", "seeds=2")
    assert (first.code, first.error, first.overrides[-1]) == (1, "loss is nan", "seed=1")
    assert second.state == "done" and train("epochs=1", "seed=2").trained

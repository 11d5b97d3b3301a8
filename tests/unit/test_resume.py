"""A run that was stopped and continued is the run that was never stopped."""

import functools
import math
import re

import pytest
import torch
from small_runs import composed, train

from robode.api.training import run_training
from robode.errors import BadInput, JobFailed
from robode.files import replace_by_copy
from robode.runs.checkpoints import read_checkpoint
from robode.runs.results import newest, read_rows, summarise
from robode.runs.run import Run, find
from robode.runs.table import METRICS
from robode.tasks.measure import percent
from robode.training import checkpoints
from robode.training.module import Training


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Runs go into tmp_path; figures have tests of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """Runs to compare with, each trained once: words -> Run, to be read only."""

    @functools.cache
    def trained(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("whole"))
            patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
            return Run(train(*words, "run=whole").folder.resolve())

    return trained


def states_of(checkpoint):
    """Everything that decides what comes next, as named tensors."""
    content = torch.load(checkpoint, weights_only=True)
    optimiser = {
        f"{i}.{name}": torch.as_tensor(value)
        for i, state in content["optimizer_states"][0]["state"].items()
        for name, value in state.items()
    }
    rest = {
        "lr": torch.tensor(content["optimizer_states"][0]["param_groups"][0]["lr"], dtype=torch.float64),
        "scheduler": torch.tensor(content["lr_schedulers"][0]["last_epoch"]),
        "step": torch.tensor(content["global_step"]),
        "rng": content["rng"]["cpu"],
    }
    return content["state_dict"] | optimiser | rest


def assert_same(first, second):
    a, b = states_of(first), states_of(second)
    assert a.keys() == b.keys() and len(a) > 15
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert "network.flow.gamma" in a


@pytest.mark.parametrize("cut", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_resumed_run_is_bit_identical(cut, never_stopped):
    whole = never_stopped("epochs=4", "optimizer=adam_decay")
    parted = train(f"epochs={cut}", "optimizer=adam_decay", "run=parted")
    before = METRICS.read(parted.folder / "metrics.csv")
    assert train("resume=parted", "epochs=4") == parted
    assert_same(whole.last, parted.last)
    after = METRICS.read(parted.folder / "metrics.csv")
    assert len(before) < len(after)
    names = ["train/loss", "validation/accuracy", "flow/gamma", "lr"]
    expected = METRICS.read(whole.folder / "metrics.csv")
    for name in names:
        one, two = (frame[frame["name"] == name] for frame in (expected, after))
        assert one["step"].tolist() == two["step"].tolist(), name
        assert one["value"].tolist() == two["value"].tolist(), name
    assert (whole.folder / "bsm.csv").read_text().splitlines()[-2:] == (
        parted.folder / "bsm.csv"
    ).read_text().splitlines()[-2:]
    ended = {"status": "done", "trained": True, "epoch": 4, "step": 12, "warnings": [], "error": None}
    assert ended.items() <= parted.status().items()


def interrupt_at(monkeypatch, step, error):
    """Raise `error` in the training step before optimiser step `step`, once."""
    original = Training.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            monkeypatch.setattr(Training, "training_step", original)
            raise error
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", training_step)


@pytest.mark.slow
def test_interrupted_in_mid_epoch_and_resumed(monkeypatch, never_stopped):
    whole = never_stopped("epochs=3", "optimizer=adam_decay")
    interrupt_at(monkeypatch, 7, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train("epochs=3", "run=cut", "optimizer=adam_decay")
    cut, _ = find("cut")
    assert cut.status()["status"] == "interrupted"
    assert cut.status()["epoch"] == 2
    train("resume=cut")
    assert_same(whole.last, cut.last)
    assert cut.status()["status"] == "done"
    assert math.isclose(
        read_rows(cut.folder / "results.csv")["score"].iloc[-1],
        read_rows(whole.folder / "results.csv")["score"].iloc[-1],
    )


def test_interrupted_before_first_checkpoint_cannot_be_resumed(monkeypatch):
    interrupt_at(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train("run=cut")
    with pytest.raises(BadInput, match="first epoch"):
        train("resume=cut")


@pytest.mark.slow
def test_the_same_command_trains_once_and_measures_what_is_missing():
    """Three noise levels, one training: evaluations are no part of what a run is."""
    first = train("epochs=2", "suite=[clean,noise]", "suite.gaussian.var=0.1", "~suite.salt_and_pepper")
    saved, stamp = first.last.read_bytes(), first.last.stat().st_mtime_ns
    for var in (0.2, 0.1):
        again = train("epochs=2", "suite=[clean,noise]", f"suite.gaussian.var={var}", "~suite.salt_and_pepper")
        assert again == first
    assert (first.last.read_bytes(), first.last.stat().st_mtime_ns) == (saved, stamp)
    rows = (first.folder / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 3, "clean, 0.1 and 0.2 once each"


@pytest.mark.slow
def test_the_same_command_goes_on_where_it_was_cut_off(monkeypatch, never_stopped):
    whole = never_stopped("epochs=3", "optimizer=adam_decay")
    interrupt_at(monkeypatch, 7, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train("epochs=3", "optimizer=adam_decay")
    cut = train("epochs=3", "optimizer=adam_decay")
    assert_same(whole.last, cut.last)
    assert cut.trained and cut.status()["status"] == "done"


def test_force_trains_anew_and_keeps_the_old_run(run_of_one_epoch):
    first = run_of_one_epoch
    stamp = first.last.stat().st_mtime_ns
    assert train("epochs=1", "force=true") == first and first.last.stat().st_mtime_ns > stamp
    assert len(list((first.folder.parent / ".replaced").glob("*/last.ckpt"))) == 1


@pytest.mark.slow
def test_the_report_of_a_resumed_run_is_of_the_resumed_network():
    words = ("data.validation=0", "suite=[noise,clean]")
    run = train("epochs=1", "repeats=3", *words)
    old = set(read_rows(run.folder / "results.csv")["weights"])
    train(f"resume={run.id}", "epochs=3", "repeats=1")
    rows = read_rows(run.folder / "results.csv")
    (new,) = set(rows["weights"]) - old
    mine = rows[rows["weights"] == new]
    assert len(old) == 1 and len(rows) == 3 * (len(mine) - 1) + 1 + len(mine)
    shown = summarise(newest(rows))
    assert shown["score"].tolist() == mine["score"].tolist() and set(shown["repeats"]) == {1}
    table = (run.folder / "report.html").read_text().split("<h2>Results")[1].split("</table>")[0]
    assert re.findall(r">([\d.]+ %)<", table) == [percent(value) for value in mine["score"]]


@pytest.mark.slow
@pytest.mark.parametrize("fatal", [1, 2])
def test_best_checkpoint_lost_between_two_writes_is_made_again(monkeypatch, fatal, never_stopped):
    """The disk refuses best.ckpt when last.ckpt already knows of it."""
    whole = never_stopped("epochs=5")
    calls = []

    def refuse(source, target):
        calls.append(target)
        if len(calls) == fatal:
            raise JobFailed(f"cannot write {target}")
        return replace_by_copy(source, target)

    monkeypatch.setattr(checkpoints, "replace_by_copy", refuse)
    with pytest.raises(JobFailed, match="best.ckpt"):
        train("epochs=5", "run=cut")
    cut, _ = find("cut")
    assert cut.best.exists() == (fatal > 1)
    lost = read_checkpoint(cut.last)["global_step"]
    monkeypatch.setattr(Training, "validation_step", lambda *args: None)  # nothing better comes
    train("resume=cut")
    assert read_checkpoint(cut.best)["global_step"] == lost < read_checkpoint(cut.last)["global_step"]
    assert_same(whole.last, cut.last)


def test_resume_keeps_the_runs_own_configuration():
    run = train("epochs=1", "model.kappa=0.5")
    train(f"resume={run.id}", "epochs=2")
    assert run.config().model.arguments["kappa"] == 0.5
    assert run.status()["epoch"] == 2


@pytest.mark.slow
def test_a_run_whose_tensors_have_the_names_of_an_earlier_version_goes_on():
    """A lift and a readout are an encoder and a head now, for Lightning too."""
    run = train("epochs=1", "run=old")
    plain = train("epochs=2", "run=whole")
    content = torch.load(run.last, weights_only=True)
    earlier = {"network.encoder.": "network.lift.", "network.head.": "network.readout."}
    for now, before in earlier.items():
        content["state_dict"] = {key.replace(now, before): value for key, value in content["state_dict"].items()}
    assert any("readout" in key for key in content["state_dict"])
    torch.save(content, run.last)
    run_training(composed("resume=old", "epochs=2"), ["resume=old", "epochs=2"])
    one, two = (read_checkpoint(path)["state_dict"] for path in (run.last, plain.last))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)

"""However a training ends, or goes on, one line says when, why and what to do about it."""

import math
import os
import shutil
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from small_runs import composed, train

from robode.api.training import run_training
from robode.errors import BadInput, Busy, JobFailed
from robode.families.chnode import CHNode
from robode.ode.flow import Flow
from robode.runs import lock
from robode.runs.run import Run, find
from robode.runs.table import BSM_NORMS, METRICS
from robode.training import callbacks, watchdog
from robode.training.module import Training, blown_up
from robode.training.watchdog import Watchdog


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Runs go into tmp_path; figures have tests of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.linalg.LinAlgError("did not converge\nat all"), "_LinAlgError: did not converge"),
        (AssertionError("underflow in dt 0.0"), "AssertionError: underflow in dt"),
        (MemoryError(), "MemoryError"),
        (OverflowError("math range error"), "OverflowError: math range error"),
    ],
)
def test_whatever_a_family_raises_is_one_line_with_its_class_and_the_epoch(monkeypatch, error, said):
    calls, forward = [], Flow.forward

    def fails(self, y, context=None):
        calls.append(1)
        if self.training and len(calls) > 9:
            raise error
        return forward(self, y, context)

    monkeypatch.setattr(CHNode, "forward", fails, raising=False)
    with pytest.raises(JobFailed) as failure:
        train("epochs=5", "run=broken")
    line = str(failure.value)
    assert "\n" not in line and f"robode.families.chnode.CHNode failed ({said}" in line
    assert "(epoch " in line and "lr=0.0" in line and "ROBODE_DEBUG=1" in line
    assert ("smaller batch_size" if isinstance(error, MemoryError) else "smaller lr, step or horizon") in line
    run, _ = find("broken")
    assert run.status()["status"] == "failed" and run.status()["error"] == line


def test_what_a_part_refuses_in_the_middle_of_a_training_says_when(monkeypatch):
    """The message of an adaptive solver named neither the epoch nor lr."""
    original = Flow.forward

    def gives_up(self, y, context=None):
        if self.training and float(self.gamma) != before.setdefault("gamma", float(self.gamma)):
            raise JobFailed("integrator=dopri5: over 1000 steps; try a smaller lr")
        return original(self, y, context)

    before = {}
    monkeypatch.setattr(CHNode, "forward", gives_up, raising=False)
    with pytest.raises(JobFailed, match=r"^step 1 \(epoch 1, lr=0.05\): integrator=dopri5: over 1000 steps; try a"):
        train("epochs=5")


def test_a_loss_that_is_not_finite_is_blamed_on_the_data_where_they_are():
    network = SimpleNamespace(normalise=lambda x: x, flow=None, named_parameters=list)
    network.normalise = torch.nn.Identity()
    network.normalise.std = torch.ones(2)
    x = torch.zeros(4, 2)
    x[2, 1] = math.nan
    message = str(blown_up(network, x, math.nan, step=0, epoch=1, lr=0.1))
    assert "the data are not finite (sample 2 of the batch)" in message and "smaller lr" not in message
    network.normalise.std = torch.tensor([1.0, 0.0])
    message = str(blown_up(network, torch.zeros(4, 2), math.nan, step=0, epoch=1, lr=0.1))
    assert "a standard deviation of the data is 0" in message and "smaller lr" not in message


@pytest.mark.slow
def test_early_stopping_says_why_and_what_lets_a_run_go_on(capsys):
    words = ("callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1", "run=early")
    run = train("epochs=50", *words)
    done = run.status()["epoch"]
    assert done < 50
    why = "validation/accuracy has not improved for 1 epochs (early stopping, patience 1)"
    assert f"stopped after epoch {done} of 50: {why}" in capsys.readouterr().out
    run_training(composed("resume=early", "epochs=60"), ["resume=early", "epochs=60"])
    said = capsys.readouterr().out
    assert f"goes on, but {why}: unless it improves now, the run ends again; callbacks=[default,early_stopping]" in said
    assert "stopped after epoch" in said
    done = run.status()["epoch"]
    more = ["resume=early", f"epochs={done + 2}", words[0], "callbacks.early_stopping.patience=50"]
    run_training(composed(*more), more)
    said = capsys.readouterr().out
    assert run.status()["epoch"] == done + 2 and "stopped after" not in said and "goes on, but" not in said


def steps(dog, module, monkeypatch, seconds, device="cpu"):
    """What the watchdog says of steps that took so long, with a pause of an hour between them."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    now = deque([0.0])
    monkeypatch.setattr(watchdog.time, "perf_counter", lambda: now[-1])
    for number, each in enumerate(seconds):
        trainer = SimpleNamespace(strategy=strategy, global_step=number, is_last_batch=False)
        now.append(now[-1] + 3600)
        dog.on_train_batch_start(trainer, module, None, number)
        now.append(now[-1] + each)
        dog.on_before_optimizer_step(trainer, module, None)


def test_a_step_that_takes_a_hundred_times_the_median_is_named_once(monkeypatch, capsys):
    said = []
    run = SimpleNamespace(warn=lambda text: said.append(text) or True)
    module = SimpleNamespace(run=run, place="step 30 (epoch 2, lr=10)")
    steps(Watchdog(Console()), module, monkeypatch, [90.0, *[0.05] * 20, 4.9, *[0.05] * 20])
    assert not said, "neither the first step nor one of 98 times the median"
    steps(Watchdog(Console()), module, monkeypatch, [0.05] * 12 + [5.1, 0.05, 7.0])
    (line,) = said
    assert line.startswith("step 30 (epoch 2, lr=10) took 5.1 s, 102 times the median: ") and "smaller lr" in line
    assert "warning: step 30" in capsys.readouterr().out
    steps(Watchdog(Console()), module, monkeypatch, [0.001] * 12 + [0.5])
    assert len(said) == 1, "half a second is nobody's worry"
    queued = [5.0, *([0.001] * 49 + [4.0]) * 15]  # a GPU works off 50 steps while it is asked for a value
    steps(Watchdog(Console()), module, monkeypatch, queued, "cuda")
    assert len(said) == 1
    steps(Watchdog(Console()), module, monkeypatch, [*queued, *[0.001] * 49, 1000.0], "cuda")
    assert len(said) == 2


@pytest.mark.slow
def test_the_watchdog_watches_real_steps_without_their_callbacks(monkeypatch):
    seen = []
    monkeypatch.setattr(Watchdog, "_warn", lambda self, module, seconds, times: seen.append((seconds, times)))
    monkeypatch.setattr(watchdog, "LEAST", 0.2)
    original, bsm = Training.training_step, callbacks.BSMLogger._log

    def slow(self, batch, batch_idx):
        if self.global_step == 22:
            time.sleep(4.0)
        return original(self, batch, batch_idx)

    def slow_callback(self, step, module):
        if step == 20:
            time.sleep(1.0)
        return bsm(self, step, module)

    monkeypatch.setattr(Training, "training_step", slow)
    monkeypatch.setattr(callbacks.BSMLogger, "_log", slow_callback)
    monkeypatch.setattr(watchdog, "TIMES", 20)
    train("epochs=9")
    ((seconds, times),) = seen
    assert 4 <= seconds < 5 and times > 20


def test_a_job_of_a_shared_sweep_does_not_wait_for_anothers_evaluation(run_of_one_epoch, monkeypatch):
    """It was trained here, another process measures it: the next job is taken, and this one comes back."""
    run = run_of_one_epoch
    config = run.config()
    monkeypatch.setattr(lock, "POLL", 0.01)
    before = run.status()
    with lock.held(run.folder / ".evaluation.lock"):
        with pytest.raises(Busy, match="is being evaluated by another process"):
            run_training(config, (), wait=False)
        after = run.status()
    assert before | {key: after[key] for key in ("owner", "heartbeat")} == after
    assert run_training(config, (), wait=False).reused


def test_a_resume_that_is_refused_leaves_a_finished_run_finished(run_of_one_epoch, monkeypatch):
    run = run_of_one_epoch
    before = {name: (run.folder / name).read_bytes() for name in ("config.yaml", "last.ckpt", "environment.json")}

    def refuses(group, run):
        raise BadInput("logger: needs a package that is not installed")

    monkeypatch.setattr("robode.api.training.build_loggers", refuses)
    with pytest.raises(BadInput, match="logger"):
        run_training(composed(f"resume={run.id}", "epochs=2"), [f"resume={run.id}", "epochs=2"])
    assert run.state == "done" and run.trained and not run.status()["error"]
    assert {name: (run.folder / name).read_bytes() for name in before} == before


def test_a_last_checkpoint_that_is_damaged_leaves_the_run_as_it_was(run_of_one_epoch):
    run = run_of_one_epoch
    run.last.write_bytes(run.last.read_bytes()[:1000])
    with pytest.raises(BadInput, match="damaged"):
        run_training(composed(f"resume={run.id}", "epochs=2"), [f"resume={run.id}", "epochs=2"])
    assert run.state == "done" and run.config().epochs == 1


@pytest.mark.slow
def test_the_last_rows_of_the_sensitivities_are_there_before_the_last_epoch_counts(monkeypatch):
    """A kill between last.ckpt and the end of the training cost them for ever."""

    class Killed(BaseException):
        """No exception that anybody handles."""

    def killed(self, trainer, module):
        raise Killed

    monkeypatch.setattr("robode.training.stopping.Stopping.on_train_end", killed)
    with pytest.raises(Killed):
        train("epochs=3", "run=cut")
    run, _ = find("cut")
    assert run.last.is_file() and run.status()["epoch"] == 3
    assert sorted(set(BSM_NORMS.read(run.folder / "bsm.csv")["step"])) == [0, 2, 4, 6, 8, 9]
    monkeypatch.undo()


@pytest.mark.slow
def test_logs_of_a_run_that_went_on_repeat_no_row(monkeypatch):
    original = Training.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == 8:
            monkeypatch.setattr(Training, "training_step", original)
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", interrupted)
    words = ("epochs=3", "callbacks=[default,robustness_sweep]", "run=cut")
    with pytest.raises(KeyboardInterrupt):
        train(*words)
    run, _ = find("cut")
    sweep = run.folder / "robustness_sweep.csv"
    assert len(text := sweep.read_text().splitlines()) == 3
    sweep.write_text("\n".join([*text, text[-1], ""]))  # as of a kill between a row and last.ckpt
    train(*words)
    for table, name in ((METRICS, "metrics.csv"), (BSM_NORMS, "bsm.csv")):
        lines = (run.folder / name).read_text().splitlines()
        assert len(lines) == len(set(lines)) == 1 + len(table.read(run.folder / name)), name
    assert len(sweep.read_text().splitlines()) == 1 + 3


def test_what_killed_writers_leave_is_removed_and_what_others_write_stays(run_of_one_epoch):
    run = run_of_one_epoch
    nobody = 2**22 + 1  # above the largest process number of Linux
    old, new, live, other = (
        run.folder / name
        for name in (f".last.ckpt.{nobody}.1", f".best.ckpt.{nobody}.1", f".last.ckpt.{os.getpid()}.1", ".notes.txt")
    )
    for path in (old, new, live, other):
        path.write_text("half")
    for path in (old, live, other):
        os.utime(path, (1, 1))
    with lock.turn(Run(run.folder), Console(quiet=True)):
        assert [path.exists() for path in (old, new, live, other)] == [False, True, True, True]


def test_a_folder_that_is_deleted_during_the_training_fails_the_job(monkeypatch):
    original = Training.training_step

    def deleted(self, batch, batch_idx):
        if self.global_step == 4:
            shutil.rmtree(self.run.folder)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", deleted)
    with pytest.raises(JobFailed, match="cannot write"):
        train("epochs=3", "run=gone")
    assert not list(Path("outputs/default/gone").glob("*"))

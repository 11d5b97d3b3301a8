"""One process at a time, a heartbeat while it works, and an honest status however it ends."""

import threading
import time

import pytest
from rich.console import Console
from small_runs import composed

from robode.errors import BadInput, Busy, JobFailed
from robode.runs import lock as module
from robode.runs.lock import Watch, job, machine, turn
from robode.runs.run import Run, create

CONFIG = composed("seed=3")
CONSOLE = Console(quiet=True)


@pytest.fixture
def run(tmp_path):
    return create(Run(tmp_path / "run"), CONFIG)


@pytest.mark.parametrize(
    ("error", "status", "seen"),
    [
        (KeyboardInterrupt(), "interrupted", KeyboardInterrupt),
        (SystemExit(143), "interrupted", SystemExit),
        (JobFailed("loss is nan"), "failed", JobFailed),
        (OSError(28, "No space left on device"), "failed", JobFailed),
        (KeyError("bug"), "failed", KeyError),
    ],
)
def test_status_tells_how_a_job_ended(run, error, status, seen):
    with pytest.raises(seen), job(run, CONSOLE):
        assert run.status()["status"] == "running"
        raise error
    assert run.status()["status"] == status
    with job(run, CONSOLE):
        pass
    found = run.status()
    assert found["owner"] == {"machine": machine(), "pid": found["owner"]["pid"]} and found["heartbeat"] > 0
    assert {key: found[key] for key in ("status", "error", "epoch")} == {"status": "done", "error": None, "epoch": 0}


def test_one_process_at_a_time(run):
    with turn(run, CONSOLE), pytest.raises(Busy, match="another process"), turn(Run(run.folder), CONSOLE, wait=False):
        pass
    assert issubclass(Busy, BadInput)


def test_a_job_waits_for_its_turn(run, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.01)
    order = []

    def second():
        with turn(Run(run.folder), CONSOLE):
            order.append("second")

    with turn(run, CONSOLE):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.05)
        order.append("first")
    waiting.join(5)
    assert order == ["first", "second"]


def test_the_heart_beats_only_while_the_job_works(run, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    with job(run, CONSOLE):
        began = run.status()["heartbeat"]
        deadline = time.monotonic() + 5
        while run.status()["heartbeat"] == began and time.monotonic() < deadline:
            time.sleep(0.01)
        assert run.status()["heartbeat"] > began
    last = run.status()["heartbeat"]
    time.sleep(0.05)
    assert run.status()["heartbeat"] == last


def test_a_run_that_was_taken_over_is_left_to_its_new_owner(run, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    other = {"machine": "elsewhere", "pid": 1}
    with pytest.raises(JobFailed, match="taken over"), job(run, CONSOLE):
        run.update(owner=other)
        for _ in range(500):  # one long sleep would not be woken
            time.sleep(0.01)
    assert run.status()["owner"] == other and run.status()["status"] == "running"


def test_another_machine_is_believed_alive_while_its_heart_beats(run, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.05)
    watch = Watch()
    run.update(status="running", owner={"machine": "elsewhere", "pid": 1}, heartbeat=time.time())
    assert not watch.silent(run)
    time.sleep(0.06)
    run.update(heartbeat=time.time())
    assert not watch.silent(run)
    time.sleep(0.06)
    assert watch.silent(run)
    run.update(owner={"machine": machine(), "pid": 1}, heartbeat=time.time())
    assert Watch().silent(run), "on this machine the lock has the say"


@pytest.mark.parametrize("alive", [True, False])
def test_who_does_not_wait_takes_over_from_a_machine_that_went_down(run, monkeypatch, alive):
    """A task that a cluster queues again on another node comes before the old heartbeat has grown old."""
    monkeypatch.setattr(module, "SILENCE", 0.3)
    monkeypatch.setattr(module, "POLL", 0.01)
    run.update(status="running", owner={"machine": "elsewhere", "pid": 1}, heartbeat=time.time())
    if alive:
        threading.Timer(0.1, lambda: run.update(heartbeat=time.time() + 1)).start()
        with pytest.raises(Busy), turn(run, CONSOLE, wait=False):
            pass
        return
    with turn(run, CONSOLE, wait=False):
        assert run.status()["owner"]["machine"] == "elsewhere"

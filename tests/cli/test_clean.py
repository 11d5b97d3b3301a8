"""`robode clean`: shows before it deletes, and deletes what it has shown and nothing else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer
from small_tables import run_folder

from robode.errors import JobFailed
from robode.runs.code import training_code
from robode.runs.lock import held
from robode.runs.removal import Item, remove
from robode.runs.run import Run, checkpoint_path, set_aside

SWEEP = Path("outputs/sweep")
Robode = Callable[..., Answer]


def made(seed: int, status: str = "done", days: float = 0.0, code: str = "", **changes: object) -> Run:
    """A run with both checkpoints and a page, last worked on some days ago."""
    run = Run(run_folder(SWEEP, seed, 90, **changes))
    digest = code or training_code(run.config().plain())
    (run.folder / "environment.json").write_text(json.dumps({"code_digest": digest, "data_digest": "d"}))
    for name in ("best.ckpt", "last.ckpt", "report.html"):
        (run.folder / name).write_bytes(b"x" * 1000)
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "a.png").write_bytes(b"x" * 500)
    run.update(status=status, trained=status == "done", heartbeat=time.time())
    at = time.time() - 86400 * days
    os.utime(run.folder / "status.json", (at, at))
    return run


def files() -> set[str]:
    return {
        path.as_posix() for path in Path("outputs").rglob("*") if path.is_file() and not path.name.endswith(".lock")
    }


def gone(robode: Robode, *words: str) -> set[str]:
    """What a call deletes: first nothing, then with --yes what it has shown."""
    before = files()
    shown = robode("clean", *words)
    assert shown.code == 0 and files() == before
    answer = robode("clean", *words, "--yes")
    assert answer.code == 0, answer.out
    deleted = before - files()
    assert ("nothing is deleted without --yes" in shown.out) == bool(deleted)
    return deleted


def test_checkpoints_best_stays_and_the_run_can_still_be_measured(robode: Robode) -> None:
    run, without, cut = made(1), made(2), made(3, "interrupted")
    without.best.unlink()
    assert gone(robode, "what=checkpoints") == {run.last.as_posix()}
    assert run.begun and run.trained and checkpoint_path(run, "best") == run.best
    assert not cut.trained and cut.begun
    assert robode("clean", "what=checkpoints").out == "0 to delete, 0 B\n"


def test_failed_runs_go_as_a_whole_and_trained_ones_stay(robode: Robode) -> None:
    failed, measured = made(1, "failed"), made(2, "failed")
    measured.update(trained=True)
    made(3), made(4, "interrupted")
    deleted = gone(robode, "what=failed")
    assert {Path(each).parts[2] for each in deleted} == {failed.id} and not failed.folder.exists()
    assert not (SWEEP / ".replaced").exists()


def test_age_and_conditions_choose(robode: Robode) -> None:
    old, new = made(1, "failed", days=8), made(2, "failed", days=6)
    assert f"{old.folder}/" in robode("clean", "what=failed", "older=7d").out
    assert "0 to delete" in robode("clean", "what=failed", "older=7d", "where=seed=2").out
    gone(robode, "what=failed", "older=7d")
    assert not old.folder.exists() and new.folder.exists()


def test_superseded_are_runs_of_other_code_that_were_done_again(robode: Robode) -> None:
    made(1, lr=0.1)
    other = made(2, code="0" * 12)  # nothing of today's has its seed
    again = run_twin(made(1, lr=0.3, code="0" * 12))
    aside = made(5)
    set_aside(aside)
    deleted = gone(robode, "what=superseded")
    assert {Path(each).parts[2] for each in deleted} == {again.id, ".replaced"}
    assert other.folder.exists()


def run_twin(run: Run) -> Run:
    """Another run of the same training by today's code, beside it, and finished. Returns the old one."""
    twin = Run(run.folder.with_name(f"{run.id}-2"))
    twin.folder.mkdir()
    for path in run.folder.iterdir():
        if path.is_file():
            (twin.folder / path.name).write_bytes(path.read_bytes())
    about = {"code_digest": training_code(run.config().plain()), "data_digest": "d"}
    (twin.folder / "environment.json").write_text(json.dumps(about))
    return run


def test_a_twin_that_is_not_done_supersedes_nothing(robode: Robode) -> None:
    old = run_twin(made(1, code="0" * 12))
    Run(old.folder.with_name(f"{old.id}-2")).update(status="interrupted")
    assert gone(robode, "what=superseded") == set()


def test_drafts_of_killed_processes(robode: Robode) -> None:
    run = made(1)
    long_ago, dead = time.time() - 1000, 2**22 + 7
    for name, process in ((".status.json", dead), ("scores/.a.npy", dead), (".results.csv", os.getpid())):
        path = run.folder / f"{name}.{process}.1"
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        os.utime(path, (long_ago, long_ago))
    assert gone(robode, "what=drafts") == {
        f"{run.folder}/.status.json.{dead}.1",
        f"{run.folder}/scores/.a.npy.{dead}.1",
    }


def test_pages_weights_and_whole_runs_by_name(robode: Robode) -> None:
    one, two = made(1), made(2)
    assert gone(robode, "what=pages", "where=seed=1") == {
        f"{one.folder}/{each}" for each in ("report.html", "figures/a.png")
    }
    assert gone(robode, "what=weights", "where=seed=1") == {one.best.as_posix(), one.last.as_posix()}
    gone(robode, "what=runs", "where=seed=2")
    assert one.folder.exists() and not two.folder.exists()


def test_without_a_kind_all_that_is_safe_is_counted(robode: Robode) -> None:
    made(1), made(2, "failed")
    out = robode("clean").out
    assert "3 to delete" in out and "failed" in out and "best.ckpt," not in out and "pages" in out


def test_a_run_that_a_process_works_on_is_not_touched(robode: Robode) -> None:
    running, locked = made(1, "running"), made(2, "failed")
    for kind in ("what=runs", "what=weights"):
        assert f"{running.folder}" not in robode("clean", kind, "where=state=running").out
    with held(locked.folder / ".lock"):
        answer = robode("clean", "what=failed", "--yes")
    assert answer.code == 1 and "being trained by another process" in answer.out and locked.best.is_file()
    running.update(owner={"machine": "another", "pid": 1})
    with pytest.raises(JobFailed, match="another process"):
        remove(Item("runs", running.folder, (), "", 0))


def test_links_are_not_followed(robode: Robode, folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "kept.png").write_text("kept")
    linked, inside = made(1), made(2)
    for path in (linked.folder / "figures").iterdir():
        path.unlink()
    (linked.folder / "figures").rmdir()
    (linked.folder / "figures").symlink_to(folder / "elsewhere", target_is_directory=True)
    (inside.folder / "figures" / "more").symlink_to(folder / "elsewhere", target_is_directory=True)
    (folder / "outputs" / "away").symlink_to(folder / "elsewhere", target_is_directory=True)
    answer = robode("clean", "what=pages,runs", "where=seed>=1", "--yes")
    assert answer.code == 1 and "is a link" in answer.out
    assert linked.folder.exists() and not inside.folder.exists()
    assert (folder / "elsewhere" / "kept.png").read_text() == "kept"


def test_a_link_instead_of_the_shelf_is_refused(robode: Robode, folder: Path) -> None:
    run = made(1, "failed")
    (folder / "elsewhere").mkdir()
    (SWEEP / ".replaced").symlink_to(folder / "elsewhere", target_is_directory=True)
    answer = robode("clean", "what=failed", "--yes")
    assert answer.code == 1 and run.best.is_file() and list((folder / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--yes",), "expected what="),
        (("what=fialed",), "expected some of drafts"),
        (("older=7",), "expected an age"),
        (("older=7 days",), "expected an age"),
        (("what=runs",), "expected where="),
        (("what=weights", "--yes"), "where="),
        (("failed",), "expected where=…, what=…"),
        (("what=failed", "where=sede=1"), "did you mean 'seed'"),
    ],
)
def test_refused_in_a_line(words: tuple[str, ...], expected: str, robode: Robode) -> None:
    made(1)
    before = files()
    answer = robode("clean", *words)
    assert answer.code == 2 and expected in answer.line and files() == before


@pytest.mark.parametrize(
    "condition", ["model!==chnode", "model==chnode", "depth!=>4", "model=!chnode", "model!=hdnn,=chnode"]
)
def test_a_sign_too_many_means_no_run(condition: str, robode: Robode) -> None:
    made(1)
    before = files()
    answer = robode("clean", "what=runs", f"where={condition}", "--yes")
    assert answer.code == 2 and f"where={condition}: expected a value after" in answer.line and files() == before

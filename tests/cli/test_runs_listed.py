"""`robode runs`: every run once, with what its files say; which are asked for, in what order; what is damaged."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer
from rich.console import Console
from small_tables import result_row, run_folder

from robode.report.listing import listing
from robode.runs import results
from robode.runs.code import network_code, training_code
from robode.runs.lock import turn
from robode.runs.run import Run, folders
from robode.runs.summary import summaries
from robode.runs.table import METRICS
from robode.runs.where import conditions
from robode.verbs.runs import run_runs

SWEEP = Path("outputs/sweep")


def made(seed: int, correct: int = 90, **changes: object) -> Run:
    """A finished run of a sweep, with a log."""
    run = Run(run_folder(SWEEP, seed, correct, **changes))
    METRICS.append(
        run.folder / "metrics.csv",
        [
            {"epoch": epoch, "step": epoch, "name": f"validation/{name}", "value": value}
            for epoch, (loss, accuracy) in enumerate(((0.3, 0.7), (0.2, (80 + seed) / 100), (0.4, 0.6)))
            for name, value in (("loss", loss), ("accuracy", accuracy))
        ],
    )
    return run


def listed(robode: Callable[..., Answer], *words: str) -> list[dict[str, object]]:
    answer = robode("runs", "--json", *words)
    assert (answer.code, answer.err) == (0, "")
    return json.loads(answer.out)


def names(robode: Callable[..., Answer], *words: str) -> list[str]:
    return [str(each["run"]) for each in listed(robode, *words)]


def test_nothing_yet(robode: Callable[..., Answer]) -> None:
    assert robode("runs").out == "0 runs; 0 B\n"
    assert listed(robode) == []


def test_a_line_says_what_the_files_say(robode: Callable[..., Answer]) -> None:
    run = made(1)
    (run.folder / "certificate.json").write_text(
        json.dumps(
            {
                "weights": "0a1b",
                "end_to_end": 2.5,
                "certified": [{"severity": 0.5, "score": 0.25}, {"severity": 0.1, "score": 0.5}],
            }
        )
    )
    run.update(epoch=3)
    old = time.time() - 3 * 86400
    os.utime(run.folder / "status.json", (old, old))
    (run.folder / "link").symlink_to("/dev/zero")
    (found,) = listed(robode)
    size = sum(path.lstat().st_size for path in run.folder.rglob("*") if path.is_file() and not path.is_symlink())
    assert found["state"] == "done" and found["epoch"] == 3 and found["epochs"] == run.config().epochs
    assert (found["validation"], found["test"]) == (0.81, 0.95)  # the best epoch, and the clean row of the test set
    assert (found["lipschitz"], found["certified"], found["size"]) == (2.5, {"0.1": 0.5, "0.5": 0.25}, size)
    assert 3 * 86400 - 1 <= found["age"] < 3 * 86400 + 60  # type: ignore[operator]
    out = robode("runs").out
    assert "81.0 %" in out and "95.0 %" in out and "50.0 % at 0.1" in out and " 3 d " in out
    assert "never by test scores" in out and f"best by validation: 81.0 %, {run.folder}" in out


def test_a_certificate_of_weights_that_are_gone_is_not_shown(robode: Callable[..., Answer]) -> None:
    run = made(1)
    (run.folder / "certificate.json").write_text(json.dumps({"weights": "of before", "end_to_end": 2.5}))
    assert listed(robode)[0]["lipschitz"] is None


def test_only_overrides_that_differ_are_told(robode: Callable[..., Answer]) -> None:
    for seed, lr in ((1, 0.1), (2, 0.1), (1, 0.2)):
        made(seed, lr=lr)
    made(3, model={"width": 16})
    told = [each["overrides"] for each in listed(robode, "sort=seed")]
    assert all(set(each) == {"seed", "lr", "model.width"} for each in told)  # type: ignore[arg-type]
    assert listed(robode, "where=seed=1 lr=0.1")[0]["overrides"] == {}
    assert {"lr": 0.2} in [each["overrides"] for each in listed(robode, "where=seed=1")]


def test_of_two_models_what_both_have_apart_is_not_told(robode: Callable[..., Answer]) -> None:
    made(1)
    other = {"_target_": "robode.families.residual.Residual", "name": "residual", "activation": "relu"}
    made(2, model=other)
    told = listed(robode, "sort=seed")[1]["overrides"]
    assert told == {"model": "residual", "seed": 2}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("seed=2,3", {2, 3}), ("seed!=2", {1, 3}), ("seed>=2 lr<0.2", {2}), ("model=chnode", {1, 2, 3}),
        ("model=hdnn", set()), ("state=done", {1, 2, 3}), ("validation>81.5%", {2, 3}), ("test=0.95", {1, 2, 3}),
        ("age<1h size>1kB", {1, 2, 3}), ("age>1d", set()), ("model.width=8", {1, 2, 3}), ("run=null", set()),
        ("horizon=null", {1, 2, 3}), ("certified@0.5>0", set()), ("experiment=sweep", {1, 2, 3}),
        ("model.J_file!=x", {1, 2, 3}),
    ],
)  # fmt: skip
def test_conditions(where: str, expected: set[int], robode: Callable[..., Answer]) -> None:
    for seed in (1, 2, 3):
        made(seed, lr=0.3 if seed == 3 else 0.1)
    assert {int(name.split("-")[1]) for name in names(robode, f"where={where}")} == expected


def test_several_conditions_must_all_hold(robode: Callable[..., Answer]) -> None:
    for seed in (1, 2, 3):
        made(seed)
    assert len(names(robode, "where=seed>1", "where=seed<3")) == 1


def test_order(robode: Callable[..., Answer]) -> None:
    runs = [made(seed).id for seed in (2, 1, 3)]
    for age, name in enumerate(runs):  # the second is the oldest
        at = time.time() - (100, 300, 200)[age]
        os.utime(SWEEP / name / "status.json", (at, at))
    by_seed = sorted(runs)
    assert names(robode, "sort=seed") == names(robode, "sort=-validation") == by_seed
    assert names(robode, "sort=validation") == names(robode, "sort=-seed") == by_seed[::-1]
    assert names(robode) == names(robode, "sort=-age") == [runs[1], runs[2], runs[0]]
    assert names(robode, "limit=1") == [runs[0]] and names(robode, "limit=1", "sort=-age") == [runs[1]]
    assert "2 more are not shown" in robode("runs", "limit=1").out


def test_an_error_is_best_where_it_is_least(robode: Callable[..., Answer]) -> None:
    for seed, error in ((1, 0.5), (2, 0.1), (3, 0.3)):
        run = made(seed)
        row = result_row(
            perturbation="clean", severity=0.0, checkpoint="last", weights="new", score=error, score_low=error,
            score_high=error, task="regression: error in rad (lower is better)",
        )  # fmt: skip
        results.append_rows(run.folder / "results.csv", [row])
    assert [each["test"] for each in listed(robode, "sort=test")] == [0.1, 0.3, 0.5]


def test_a_damaged_run_costs_no_other_its_place(robode: Callable[..., Answer]) -> None:
    run, other = made(1), made(2)
    (run.folder / "config.yaml").write_text("model: ${oc.env:HOME}\ndata: 1\ndepth: 2\nseed: 3\n")
    damaged, whole = listed(robode, "sort=run")
    assert (damaged["state"], whole["state"]) == ("damaged", "done")
    assert "references" in str(damaged["problem"])
    assert str(run.folder) in robode("runs").out.splitlines()[-1]
    (other.folder / "results.csv").write_text("run,checkpoint\nx,best\n")
    assert [each["state"] for each in listed(robode)] == ["damaged", "damaged"]


def test_a_torn_line_is_none(robode: Callable[..., Answer]) -> None:
    run = made(1)
    for name in ("results.csv", "metrics.csv"):
        with (run.folder / name).open("a") as file:
            file.write("torn,validation/acc")
    assert (listed(robode)[0]["state"], listed(robode)[0]["test"]) == ("done", 0.95)


def test_states(robode: Callable[..., Answer]) -> None:
    run = made(1)
    run.update(status="running", heartbeat=time.time())
    with turn(run, Console(), wait=False):
        assert listed(robode)[0]["state"] == "running"
    for status in ("failed", "queued", "interrupted"):
        run.update(status=status)
        assert listed(robode, f"where=state={status}")[0]["state"] == status
    run.update(status="running", heartbeat=time.time() - 1000)
    assert listed(robode)[0]["state"] == "interrupted"


def test_a_text_that_no_run_has_is_answered_with_the_nearest_that_one_has(robode: Callable[..., Answer]) -> None:
    made(1)
    for where, said in (("state=don", "did you mean 'done'?"), ("depth=77", "no run has depth=77")):
        answer = robode("runs", f"where=epoch>=0 {where}")
        assert answer.code == 0 and said in answer.out and "0 runs" in answer.out
    assert "no run has" not in robode("runs", "where=state=done").out


def test_what_today_s_code_measured_goes_first_as_on_pages(robode: Callable[..., Answer]) -> None:
    run = made(1)
    today, other = f"{network_code(run.config().plain())}.123", "0123456789ab.123"
    clean = {"perturbation": "clean", "severity": 0.0, "checkpoint": "best"}
    rows = [
        result_row(70, code=today, **clean),
        result_row(60, code=other, **clean),
        result_row(8, code=today, n=10, evaluation="limited", **clean),
    ]
    results.append_rows(run.folder / "results.csv", rows)
    shown = results.current(run.folder / "results.csv")
    assert 0.7 in set(shown[shown["checkpoint"] == "best"]["score"]) and 0.6 not in set(shown["score"])
    assert listed(robode)[0]["test"] == 0.7


def test_weights_of_other_code_are_marked(robode: Callable[..., Answer]) -> None:
    own, other = made(1), made(2)
    for run, digest in ((own, training_code(own.config().plain())), (other, "0123456789ab")):
        (run.folder / "environment.json").write_text(json.dumps({"code_digest": digest}))
    assert [run.of_other_code(run.config().plain()) for run in (own, other)] == [False, True]
    assert [each["other_code"] for each in listed(robode, "sort=seed")] == [False, True]
    assert "† trained by other code than this" in robode("runs").out


def test_links_and_what_was_set_aside_are_no_runs(robode: Callable[..., Answer], folder: Path) -> None:
    run = made(1)
    (folder / "elsewhere").mkdir()
    (folder / "outputs" / "link").symlink_to(run.folder.parent.resolve(), target_is_directory=True)
    (SWEEP / ".replaced").mkdir()
    (SWEEP / ".replaced" / "old").symlink_to(run.folder.resolve(), target_is_directory=True)
    (folder / "outputs" / "loop").symlink_to(folder / "outputs", target_is_directory=True)
    assert list(folders(Path("outputs"))) == [str(run.folder)]


def test_a_run_that_has_not_changed_is_not_read_again(folder: Path) -> None:
    runs, known = [made(seed) for seed in (1, 2)], {}
    first = summaries(known=known)
    runs[0].update(epoch=7)
    second = summaries(known=known)
    assert second[0].epoch == 7 and second[1] is first[1]
    results.append_rows(
        runs[1].folder / "results.csv", [result_row(50, perturbation="clean", severity=0.0, checkpoint="last")]
    )
    assert [line.test for line in listing(summaries(known=known), sort="run").lines] == [0.95, 0.5]


def opened(number: int) -> tuple[int, int]:
    """Files that a listing opens, and its lines."""
    for seed in range(number):
        made(seed)
    seen: list[str] = []

    def count(event: str, about: tuple[object, ...]) -> None:
        if event == "open" and counting and "outputs" in str(about[0]):
            seen.append(str(about[0]))

    counting = False
    sys.addaudithook(count)
    counting = True
    lines = listing(summaries(), conditions(["seed>=0"]), "validation").lines
    counting = False
    return len(seen), len(lines)


def test_each_file_is_opened_once_however_many_runs_there_are(folder: Path) -> None:
    for number in (3, 9):
        files, lines = opened(number)
        assert lines == number and files <= 7 * number
        for path in SWEEP.iterdir():
            subprocess.run(["rm", "-r", path], check=True)


def test_neither_torch_nor_pandas_is_imported(folder: Path) -> None:
    made(1)
    words = "['runs', 'sort=validation', 'where=depth>=1']"
    look = "assert not {'torch', 'pandas'} & sys.modules.keys()"
    code = f"import sys; from robode.cli.main import main; main({words}); {look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "1 run: 1 done" in done.stdout


def test_watching_draws_what_there_is_now_and_ends_with_ctrl_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200, height=20)
    monkeypatch.setattr("robode.verbs.runs.Console", lambda: screen)
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt
        made(2)

    made(1)
    monkeypatch.setattr("robode.verbs.runs.time.sleep", look)
    assert run_runs(watch=True) == 0
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    assert drawn.index("1 run: 1 done") < drawn.index("2 runs: 2 done")


@pytest.mark.parametrize("verb", ["runs", "clean"])
def test_without_runs_a_column_that_none_could_have_is_refused(verb: str, robode: Callable[..., Answer]) -> None:
    answer = robode(verb, "where=foo=3")
    assert answer.code == 2 and answer.line.startswith("'foo': expected a key of the runs or one of run, experiment")
    assert "did you mean 'depth'?" in robode(verb, "where=dept=3").line
    assert "did you mean 'model'?" in robode("runs", "sort=modle.width").line
    for possible in ("depth=3", "model.anything=3", "validation>0.5", "certified@0.5>0"):  # of a family of the user's
        assert robode(verb, f"where={possible}").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sort=validtion",), "did you mean 'validation'?"),
        (("where=model.widht=8",), "did you mean 'model.width'?"),
        (("where=depth>four",), "expected a number"),
        (("where=depth",), "expected KEY=VALUE"),
        (("where=",), "expected conditions"),
        (("where='",), "where='"),
        (("limit=0",), "expected a whole number >= 1"),
        (("sweep",), "expected where=…, sort=…, limit=…"),
        (("--watch", "--json"), "got both"),
        (("--watch",), "expected a terminal"),
        (("--wach",), "--wach"),
    ],
)  # fmt: skip
def test_refused_in_a_line(words: tuple[str, ...], expected: str, robode: Callable[..., Answer]) -> None:
    made(1)
    answer = robode("runs", *words)
    assert answer.code == 2 and expected in answer.line


@pytest.mark.parametrize("word", ["where=certified@x>0", "sort=certified@abc", "where=certified@nan>0", "sort=run@1"])
def test_a_radius_is_a_number(word: str, robode: Callable[..., Answer]) -> None:
    made(1)
    answer = robode("runs", word)
    assert answer.code == 2 and "expected a" in answer.line and "@" in answer.line


def test_a_damaged_status_is_not_called_a_run_that_has_not_started(robode: Callable[..., Answer]) -> None:
    run = made(1)
    for content in (b"{", b"\xff", b"[]", b'{"status": 3}'):
        (run.folder / "status.json").write_bytes(content)
        (found,) = listed(robode)
        assert found["state"] == "damaged" and "status.json: is damaged" in str(found["problem"])
    (run.folder / "status.json").unlink()
    assert listed(robode)[0]["state"] == "not started"

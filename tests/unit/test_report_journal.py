"""Logs that are only ever appended to: what survives a kill, a full disk and a folder that cannot be made."""

import errno
import itertools
import os
import signal
import time

import numpy as np
import pytest
from small_tables import result_row as row

from robode.errors import BadInput, JobFailed
from robode.runs import results
from robode.runs.lock import held
from robode.runs.results import Store
from robode.runs.table import Table, texts


def test_a_file_cut_at_any_byte_is_read_and_repaired(tmp_path):
    path = tmp_path / "log.csv"
    table = Table({"step": int, "value": str}, key=("step",))
    table.append(path, [{"step": 1, "value": 0.25}, {"step": 2, "value": "a,b"}])
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = max(whole[:cut].count(b"\n") - 1, 0)
        assert len(texts(path)) == complete
        table.append(path, [{"step": 3}])
        frame = texts(path)
        assert frame["step"].tolist() == ["1", "2"][:complete] + ["3"]
        assert frame["value"].tolist() == ["0.25", "a,b"][:complete] + [""]


def test_repair_finds_the_last_line_of_a_long_file(tmp_path):
    path, table = tmp_path / "log.csv", Table({"text": str}, key=("text",))
    table.append(path, [{"text": "x" * 70_000}])
    with path.open("a") as file:
        file.write("y" * 200_000)
    table.append(path, [{"text": "z"}])
    assert [len(text) for text in texts(path)["text"]] == [70_000, 1]


def test_a_full_disk_fails_in_one_line_and_leaves_the_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    results.append_rows(path, [row()])
    before = path.read_bytes()
    write = os.write

    def half_then_full(descriptor: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) - 50])

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(JobFailed, match=r"^cannot write .*results\.csv: No space left on device$"):
        results.append_rows(path, [row(repeat=repeat) for repeat in range(5)])
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_fails_the_job(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JobFailed, match="cannot write"):
        results.append_rows(tmp_path / "file" / "results.csv", [row()])


def test_a_file_of_an_earlier_version_gets_todays_columns_once_whoever_appends_first(tmp_path):
    old, new = Table({"a": str}, key=("a",)), Table({"a": str, "b": int}, key=("a",), added=frozenset("b"))
    old.append(tmp_path / "t.csv", [{"a": "0"}])
    together(3, lambda number: [new.append(tmp_path / "t.csv", [{"a": f"{number}.{i}", "b": i}]) for i in range(20)])
    frame = new.read(tmp_path / "t.csv")
    assert set(frame["a"]) == {"0", *(f"{number}.{i}" for number in range(3) for i in range(20))}
    assert frame["b"].isna().tolist() == [True] + [False] * 60
    with pytest.raises(BadInput, match="other columns"):
        old.append(tmp_path / "t.csv", [{"a": "1"}])


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_finished_row_of_several_writers(tmp_path):
    """Two processes add rows with their scores and note each that was added; both are killed, again and again."""
    generator, folder = np.random.default_rng(0), tmp_path / "run"
    folder.mkdir()

    def adds(number: int) -> None:
        added = os.open(tmp_path / f"added{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for i in itertools.count(int(time.time_ns() % 10**9)):
            with held(folder / ".evaluation.lock"):
                one = row(correct=i % 101, noise_seed=10 * i + number, evaluation="e" * (i % 7))
                Store(folder).add([one], [np.arange(100) < i % 101])
            os.write(added, f"{10 * i + number} {i % 101}\n".encode())

    kills, lines = 0, []
    while kills < 12 or len(lines) < 20:
        writers = [fork(adds, number) for number in range(2)]
        time.sleep(0.1 + 0.3 * generator.random())
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        kills += len(writers)
        notes = [path.read_text() for path in tmp_path.glob("added*")]
        lines = [line.split() for text in notes for line in text.splitlines()]
    store = Store(folder)
    rows = {each["noise_seed"]: each for each in store}
    assert {int(seed) for seed, _ in lines} <= set(rows)
    assert len(rows) <= len(lines) + kills, "at most one row a kill was written and not noted"
    for seed, correct in lines:
        assert int(store.scores(rows[int(seed)]).sum()) == int(correct)
    assert not list((folder / "scores").glob(".*")), "what was half-written is gone"


def fork(work, *arguments) -> int:
    """The id of a process that does this and ends."""
    process = os.fork()
    if process == 0:
        try:
            work(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return process


def together(count, work) -> None:
    """Several processes at once; all end well."""
    for process in [fork(work, number) for number in range(count)]:
        assert os.waitpid(process, 0)[1] == 0

"""Logs that are only ever appended to: what survives a kill, a full disk and a folder that cannot be made."""

import errno
import os

import pytest
from small_tables import result_row as row

from robode.errors import JobFailed
from robode.runs import results
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

"""For all tests; also makes the helper modules of this folder importable from the others.

What takes seconds to import is imported late: the process that hands out the tests to others needs none of it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robode.runs.run import Run

for name in ("ROBODE_CONFIG_PATH", "ROBODE_DATA", "ROBODE_DEBUG", "ROBODE_TRUST"):
    os.environ.pop(name, None)  # what the user's shell says is not what is tested


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """A shell that starts the tests in the background has told them to ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_collection() -> None:
    """What is imported and collected lives to the end; searching it for garbage as it grows costs a fifth of that."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Small matrices: more threads only cost time, and results must not depend on them. Half a million objects of the
    imported libraries live to the end; searching them for garbage costs a tenth."""
    import torch

    torch.set_num_threads(1)
    gc.freeze()


def pytest_runtestloop() -> None:
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def words_are_composed_once() -> Iterator[None]:
    from composed_once import composed_once

    with composed_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def fonts_of_pdfs() -> Iterator[int]:
    """How robode embeds fonts, which takes a fifth of a second a figure: none of the tests but one looks at them. Nor
    does one cut the power, so that none waits for the disk."""
    from robode.report.style import STYLE

    with pytest.MonkeyPatch.context() as patch:
        shipped = STYLE["pdf.fonttype"]
        patch.setitem(STYLE, "pdf.fonttype", 3)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield shipped


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `train("epochs=1")` was run."""
    from small_runs import train

    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
        train("epochs=1")
    return place


@pytest.fixture
def run_of_one_epoch(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What `train("epochs=1")` leaves in the current folder, tmp_path; a copy, to be changed at will."""
    from robode.runs.run import Run

    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    (config,) = Path("outputs").glob("*/*/config.yaml")
    return Run(config.parent)

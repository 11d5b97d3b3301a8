"""The command in processes of its own: the only tests that start it the way a shell does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("robode")
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "robode"]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=cwd, capture_output=True, text=True, timeout=60)


def children_seconds() -> float:
    """Of a processor, by all processes that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.slow
@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.3), (["train", "--help"], 1.5)])
def test_help_is_fast_and_does_not_import_torch(words: list[str], limit: float, tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):  # the best of three, and not by the clock: others are at work beside this test
        start = children_seconds()
        assert run(*words, cwd=tmp_path).returncode == 0
        seconds.append(children_seconds() - start)
    assert min(seconds) < limit
    code = f"import sys; from robode.cli.main import main; main({words}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_bad_input_is_found_without_torch_and_leaves_nothing(tmp_path: Path) -> None:
    done = run("train", "dept=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "robode: unknown key 'dept': did you mean 'depth'?\n"
    assert list(tmp_path.iterdir()) == []
    code = "import sys; from robode.cli.main import main; print(main(['train', 'depth=0']), 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout == "2 False\n"

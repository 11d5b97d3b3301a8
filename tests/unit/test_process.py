"""What a process is told before torch starts."""

import ctypes
import os
import subprocess
import sys

import pytest

from robode import process

FAULTS = """
import resource
from robode.process import prepare
prepare()
import numpy as np
def step():
    kept = [np.ones(600_000, np.float32) for _ in range(16)]
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="of the GNU C library")
def test_freed_memory_is_kept_for_the_next_step():
    """Without it half of these processes, by where their heap happens to end, have 93 000 faults."""
    without = {name: value for name, value in os.environ.items() if name not in process.SAID}
    for _ in range(6):
        done = subprocess.run([sys.executable, "-c", FAULTS], env=without, capture_output=True, text=True, check=True)
        assert int(done.stdout) < 1000


@pytest.mark.parametrize(
    ("said", "calls"), [
        ({}, 2), ({"MALLOC_ARENA_MAX": "2"}, 2), ({"MALLOC_TOP_PAD_": "0"}, 0),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}, 0),
    ],
)  # fmt: skip
def test_what_the_environment_says_already_is_left_alone(monkeypatch, said, calls):
    asked = []
    for name in process.SAID:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**said, "GOMP_SPINCOUNT": "7"}.items():
        monkeypatch.setenv(name, value)
    library = type("Library", (), {"mallopt": lambda self, *words: asked.append(words)})
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: library())
    process.prepare()
    assert len(asked) == calls and os.environ["GOMP_SPINCOUNT"] == "7"

"""What a process that trains is told before torch starts in it. Standard library only."""

from __future__ import annotations

import ctypes
import os

TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of the GNU C library's mallopt
SAID = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Environment variables that say how much of freed memory is kept."""
KEPT, OWN_PAGES = 256 << 20, 32 << 20  # bytes; the second is the most that mallopt takes


def prepare() -> None:
    """Threads that wait spin briefly, and memory that is freed is kept for the next step.

    Threads that spin for long while they wait starve each other where another process wants a core (a 2 s epoch took
    33 s); short spinning costs a few per cent on an idle machine. Batches' states of a few megabytes go back to the
    system whenever they are freed, and every page of theirs is a fault when the next step asks for it again: 1 500
    faults a step of CH-NODE, and up to a quarter of its flow's time. What the environment already says about
    either is left alone.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if any(name in os.environ for name in SAID):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None  # the GNU library has it
    if mallopt is not None:
        mallopt(TRIM, KEPT)
        mallopt(MMAP, OWN_PAGES)

"""Which samples a network got right, one file of bits beside each row of results.csv: what paired tests need."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robode.errors import JobFailed
from robode.report.style import write_whole

FOLDER = "correct"


def correct_path(run: Path | str, row: Mapping[str, Any]) -> Path:
    """The file of a row of results.csv in the folder of its run; rows of equal weights, by one code, share it."""
    level = f"{row['severity']:g}"
    if float(level) != row["severity"]:  # two severities must never share a file
        level = repr(float(row["severity"]))
    about = (row["evaluation"], row["weights"], row["split"], f"n{row['noise_seed']}", level, f"r{row['repeat']}")
    code = [row["code"]] if row.get("code") else []  # earlier versions kept none
    return Path(run) / FOLDER / f"{'-'.join(map(str, [*about, *code]))}.npy"


def write_correct(run: Path | str, row: Mapping[str, Any], right: np.ndarray) -> None:
    """Write right (n,) bool, eight samples a byte. To be called before its row is written: no row is without its bits.

    Raises:
        JobFailed: the disk refuses.
    """

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.packbits(right))
            file.flush()
            os.fsync(file.fileno())

    write_whole(correct_path(run, row), write)


def read_correct(run: Path | str, row: Mapping[str, Any]) -> np.ndarray:
    """Which samples of its split a row of results.csv counts as right, (n,) bool in the order of the data.

    run: the folder of the row's run; row: with evaluation, weights, split, noise_seed, severity, repeat, n, correct.

    Raises:
        JobFailed: the file is missing or damaged, or does not belong to the row.
    """
    path = correct_path(run, row)
    try:
        bits = np.load(path, allow_pickle=False)
        right = np.unpackbits(bits, count=int(row["n"])).astype(bool)
    except (OSError, ValueError, TypeError, EOFError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise JobFailed(f"cannot read {path}: {why}; remove it and evaluate again") from error
    if bits.size != -(-int(row["n"]) // 8) or int(right.sum()) != row["correct"]:
        claim = f"{row['correct']} of {row['n']} right"
        raise JobFailed(f"{path} does not say the same as its row ({claim}); remove it and evaluate again")
    return right

"""The score of each sample, a file for each row of results.csv, in the folder of its run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from robode.errors import JobFailed
from robode.files import make_folder, write_bytes
from robode.runs.table import Row
from robode.tasks.measure import mean_score, measure_named

SCORES, OLD_SCORES = "scores", "correct"  # folders; the second of runs that were measured when all scores were bits
SAME = 1e-6  # relative: what the mean of a file of scores and its row may differ by, since sums round

AGAIN = "robode evaluate writes it again with the suite, protocol and seed that measured it"


def scores_path(run: Path | str, row: Row) -> Path:
    """The file of a row of results.csv in the folder of its run; rows of equal weights, by one code, share it."""
    level = f"{row['severity']:g}"
    if float(level) != row["severity"]:  # two severities must never share a file
        level = repr(float(row["severity"]))
    about = (row["evaluation"], row["weights"], row["split"], f"n{row['noise_seed']}", level, f"r{row['repeat']}")
    code = [row["code"]] if row.get("code") else []  # earlier versions kept none
    path = Path(run) / SCORES / f"{'-'.join(map(str, [*about, *code]))}.npy"
    old = Path(run) / OLD_SCORES / path.name
    return old if old.is_file() and not path.is_file() else path


def write_scores(run: Path | str, row: Row, scores: np.ndarray) -> None:
    """Write scores (n,) of a row, before the row itself: none is without its scores. Where they are 0 or 1 they are
    kept as bits, eight samples a byte, others in float32.

    Raises:
        ValueError: scores of shares that are not 0 or 1.
        JobFailed: the disk refuses.
    """
    shares = measure_named(row["task"]).shares
    if shares and not np.isin(scores, (0, 1)).all():
        raise ValueError("expected scores 0 or 1 where their mean is a share of samples")
    kept = np.packbits(scores.astype(bool)) if shares else scores.astype(np.float32)
    path = Path(run) / SCORES / scores_path(run, row).name
    content = io.BytesIO()
    np.save(content, kept)
    make_folder(path.parent, parents=False)
    write_bytes(path, content.getvalue())


def read_scores(run: Path | str, row: Row) -> np.ndarray:
    """The score of each sample of its split, (n,) float32 in the order of the data.

    run: the folder of the row's run; row: with evaluation, weights, split, noise_seed, severity, repeat, n, score.

    Raises:
        JobFailed: the file is missing or damaged, or does not belong to the row.
    """
    path, n = scores_path(run, row), int(row["n"])
    try:
        kept = np.load(path, allow_pickle=False)
        size = -(-n // 8) if kept.dtype == np.uint8 else n
        scores = np.unpackbits(kept, count=n) if kept.dtype == np.uint8 else kept
        scores = scores.astype(np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        why = (
            error.strerror if isinstance(error, OSError) and error.strerror else "no scores of samples; is it damaged?"
        )
        raise JobFailed(f"cannot read {path}: {why}; {AGAIN}") from error
    if kept.shape != (size,) or not np.isclose(mean_score(scores), row["score"], rtol=SAME, atol=0.0):
        claim = f"mean score {row['score']:.6g} of {n}"
        raise JobFailed(f"{path} does not say the same as its row ({claim}); {AGAIN}")
    return scores

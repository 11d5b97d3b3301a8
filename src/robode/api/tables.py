"""What runs have measured, as one table."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from robode.api.loading import named
from robode.errors import BadInput
from robode.runs.results import RESULTS, read_rows
from robode.runs.run import OUTPUTS, REPLACED, Run, find

MAGIC = frozenset("*?[")
PLACE = "folder"


def results(runs: str | Path | Iterable[str | Path] = f"{OUTPUTS}/**") -> pd.DataFrame:
    """Every row of results.csv of one or several runs, one row for each perturbation, level and noisy copy.

    runs: a run's folder or name, a list of them, or a pattern of folders ("outputs/default/*", "**" for every depth);
    without it all runs below outputs/. What a pattern finds without measurements has no rows; without any run the
    table is empty, with its columns.

    Columns: folder (of the run); run, checkpoint, weights (digest), experiment, model, data, split, depth, integrator,
    params (trainable numbers), seed (of the training); protocol, noise_seed, evaluation (digest of what was measured);
    suite, perturbation, norm, severity with severity_unit and space, solver, repeat (which noisy copy); n (samples),
    task, score (an accuracy as a fraction, or the mean error in the unit that `task` names), score_reference (with the
    reference solver), score_low, score_high (its 95 % interval); flow_ode, flow_discrete, end_to_end (certified
    Lipschitz constants; nan where there is none, inf where nothing is certified); seconds, commit, code (digest),
    engine. Whole numbers are Int64, texts str ("" = not given), the rest float64.

    Raises:
        BadInput: no run of that name, or a damaged table.
        JobFailed: a table that cannot be read.
    """
    several = [runs] if isinstance(runs, str | Path) else list(runs)
    found = dict.fromkeys(run.folder for each in several for run in _those(each))
    tables = [read_rows(folder / "results.csv").assign(**{PLACE: str(folder)}) for folder in found]
    rows = [table for table in tables if len(table)] or [RESULTS.read(OUTPUTS / "results.csv").assign(**{PLACE: ""})]
    table = pd.concat(rows, ignore_index=True)
    return table[[PLACE, *(name for name in table if name != PLACE)]]


def _those(runs: str | Path) -> list[Run]:
    """The run of that name, or all that a pattern finds. Raises `BadInput` for a name of none."""
    pattern = named(runs)
    if not MAGIC & set(pattern) or Run(Path(pattern).expanduser()).exists:  # a folder may be called [a]
        return [find(pattern)[0]]
    folders = sorted(map(Path, glob.glob(str(Path(pattern).expanduser()), recursive=True)))
    found = [Run(folder) for folder in folders if Run(folder).exists and REPLACED not in folder.parts]
    if not found and pattern != f"{OUTPUTS}/**":
        raise BadInput(f"runs={pattern}: expected a pattern of run folders, for example '{OUTPUTS}/default/*'")
    return found

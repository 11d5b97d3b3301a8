"""Whether a run belongs to this code and to these data. Where it does not, nothing is done with it unasked.

Other code may be used all the same (`code=any`): the weights are what they are, and † says so. Other data may not: what
would be measured is no property of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from robode.errors import BadInput
from robode.files import read_json
from robode.runs.code import RECORD, recorded, training_code
from robode.runs.run import Run

OTHER_CODE = "†"  # beside what other code has trained
SAME: Literal["same"] = "same"
ANY: Literal["any"] = "any"
CODES = (SAME, ANY)  # what the word `code` may be
# What a user can do instead of code=any.
FORCE, START = "force=true trains it again (run=NAME beside it)", "leave resume out to train it anew"


def check_code(run: Run, code: str, *ways: str) -> str:
    """What to say of a run before it is used: one line with † if other code made it and that was allowed, else "".

    code: one of `CODES`. ways: what a user can do besides code=any, for a complaint: FORCE, START.

    Raises:
        BadInput: other code made the run, or a version of robode that kept no digest of it, and code is "same".
    """
    plain = run.config().plain()
    if not run.of_other_code(plain):
        return ""
    there, here = recorded(run.folder), training_code(plain)
    made = (
        f"run {run.id} was trained by other code (digest {there}, this code has {here})"
        if there
        else f"run {run.id} was made by a version of robode that kept no digest of this kind (this code has {here})"
    )
    if code == ANY:
        return f"{OTHER_CODE} {made}"
    raise BadInput(f"{made}; {', '.join(['code=any uses it all the same', *ways])}")


def check_data(run: Run, digest: str) -> None:
    """Refuse data that are not those of the run. digest: `DataModule.digest` of what is there now. A run that wrote
    down none, because nothing was trained yet or an early version made it, is let through.

    Raises:
        BadInput: with both digests.
    """
    there = data_of(run.folder) if run.begun else ""
    if there and there != digest:
        raise BadInput(
            f"run {run.id} was trained on other data (digest {there}, the files have {digest} now); "
            "put the files back, or train a run of another name"
        )


def data_of(folder: Path) -> str:
    """The digest of the data that a run was trained on; empty where it was not kept."""
    return str(read_json(folder / RECORD).get("data_digest") or "")

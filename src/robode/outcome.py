"""How a job ended, as an exit code and one line."""

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robode.errors import BadInput, JobFailed


@dataclass(frozen=True)
class Outcome:
    """``code`` as a process would return it, one line of ``error`` if that is not 0."""

    overrides: tuple[str, ...] = ()
    code: int = 0
    error: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


def failure(error: Exception, overrides: Sequence[str] = ()) -> Outcome:
    """An exception as an exit code and one line; the traceback is shown where ROBODE_DEBUG=1."""
    if os.environ.get("ROBODE_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, BadInput):
        code, text = 2, str(error)
    elif isinstance(error, JobFailed):
        code, text = 1, str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        code, text = 1, f"cannot use '{error.filename}': {error.strerror}"
    elif isinstance(error, OSError) and error.strerror is not None:
        code, text = 1, error.strerror
    else:
        code, text = 1, f"unexpected {type(error).__name__}: {error} (ROBODE_DEBUG=1 shows the traceback)"
    return Outcome(tuple(overrides), code, " ".join(text.split()))

"""Somebody else's code, called by robode: whatever it raises becomes one line that says whose it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from robode.errors import BadInput, JobFailed


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Raises `BadInput` ("<what> (<reason>)") for anything that the body raises, SystemExit too: somebody's sys.exit is
    no reason to end robode without a word. Ctrl-C passes."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise BadInput(f"{what} ({reason(error)})") from error


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Like `blamed`, around code that may be robode's too: what that refuses (`BadInput`, `JobFailed`) says itself why,
    and is `BadInput` as it stands."""
    try:
        yield
    except JobFailed as error:
        raise BadInput(str(error)) from error
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(f"{what} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """The kind of an error and the first line of its message; all of a message of robode's own."""
    if isinstance(error, BadInput):
        return str(error)
    line = (str(error).splitlines() or [""])[0]
    return (f"{type(error).__name__}: {line}" if line else type(error).__name__)[:160]

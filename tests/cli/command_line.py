"""What the tests of the command line see of one call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("robode: ")
        return lines[0].removeprefix("robode: ")


@dataclass
class Jobs:
    """The jobs that reached the stand-in for what does the work; `effect` is called with each configuration."""

    configs: list[Any] = field(default_factory=list)
    argv: list[list[str]] = field(default_factory=list)
    effect: Callable[[Any], object] = lambda cfg: None

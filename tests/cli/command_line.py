"""What the tests of the command line see of one call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from robode.cli.main import main


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


def calling(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command line, with what each call of it prints alone."""

    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call

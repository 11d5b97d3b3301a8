"""What is printed ends no job: not for a letter that the terminal lacks, nor for a reader that has gone (`| head`)."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Unheard(io.FileIO):
    """A file descriptor; once nobody reads what is written there any more, it goes nowhere."""

    def write(self, data: "ReadableBuffer") -> int:
        """How many bytes were taken, all of them where nobody reads any more."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for other writers too, such as libraries in C
            os.close(nowhere)
            return len(memoryview(data))


@contextmanager
def forgiving() -> Iterator[None]:
    """Standard output and error as `Unheard`; what their encoding cannot show is replaced by "?"."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_forgiving(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _forgiving(stream: TextIO) -> TextIO:
    buffer = stream.buffer if isinstance(stream, io.TextIOWrapper) else None
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        return stream  # no file: of a test, of a notebook
    stream.flush()
    file = io.BufferedWriter(Unheard(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, "replace", line_buffering=stream.line_buffering,
                            write_through=stream.write_through)  # fmt: skip

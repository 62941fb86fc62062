"""Standard output and error that may be closed, full or gone, and do no harm to the work."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TextIO

_ERRORS = (OSError, ValueError)  # the latter: a stream that is closed


class SteadyStream:
    """A text stream for people to read: what cannot be written to it is left out, without a word.

    A reader that goes away, a terminal that is closed and a full disk must not end a training run
    that only wanted to say how it goes.

    Args:
        stream: where the text goes; None, as `sys.stderr` may be, takes nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """The encoding of the stream beneath."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write `text` if possible; characters that the encoding lacks become escapes."""
        if self._stream is not None:
            with contextlib.suppress(*_ERRORS):
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    plain = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
                    self._stream.write(plain)
        return len(text)

    def flush(self) -> None:
        """Pass on what is held back, if possible."""
        if self._stream is not None:
            with contextlib.suppress(*_ERRORS):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        if self._stream is not None:
            with contextlib.suppress(*_ERRORS):
                return self._stream.isatty()
        return False

    def fileno(self) -> int:
        """The number of the stream beneath.

        Raises:
            OSError: it has none.
        """
        if self._stream is None:
            raise OSError("there is no stream")
        return self._stream.fileno()


def with_standard_streams(work: Callable[[], None]) -> None:
    """Do `work` so that no standard stream that is closed changes what is written or returned.

    Where standard input, output or error is closed, the next file that is opened would get its
    number, and what a library prints would go into that file; so the null device takes the place.
    Afterwards, what a stream still holds and cannot write is dropped, as Python would make 120
    of the exit status for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    try:
        work()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                _settle(stream)


def _settle(stream: TextIO) -> None:
    try:
        stream.flush()
    except _ERRORS:
        with contextlib.suppress(*_ERRORS):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)

"""Writing generated text to a terminal or a pipe without harm to either."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NoReturn, TextIO

from chargen_ort.errors import ChargenError

_PROGRESS_SECONDS = 0.2
_FLUSH_SECONDS = 0.05  # a pipe gets text at least so often; a terminal gets every character
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_VISIBLE = {
    point: f"\\x{point:02x}"
    for point in (*range(0x20), *range(0x7F, 0xA0))
    if chr(point) not in "\n\t"
} | {ord(c): f"\\u{ord(c):04x}" for c in _BIDI}


class OutputError(Exception):
    """Standard output cannot take the text; its text is one line for a person."""


def visible(text: str) -> str:
    """`text` with what a terminal would execute shown as escapes.

    Those are C0 controls but newline and tab, DEL, C1 controls, and bidirectional controls.
    """
    return text.translate(_VISIBLE)


def write_text(pieces: Iterable[str], raw: bool = False) -> None:
    """Write pieces to standard output as they come.

    Raises:
        OutputError: standard output is closed, full, or cannot encode a character.
    """
    out = _standard_output()
    terminal = out.isatty()
    clean = terminal and not raw
    flushed = time.monotonic()
    with _as_output_error(out):
        for piece in pieces:
            out.write(visible(piece) if clean else piece)
            now = time.monotonic()
            if terminal or now - flushed >= _FLUSH_SECONDS:
                out.flush()
                flushed = now
        out.flush()


def report(message: str) -> None:
    """Write one line to standard error, if there is one; made visible, never executed."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(visible(message), file=sys.stderr, flush=True)


class Progress:
    """How far a command is, on one line of standard error that is written again and again.

    It shows itself where standard error is a terminal that does not also show the result.
    """

    def __init__(self) -> None:
        self._begun = self._shown = time.monotonic()
        self._watched = _is_terminal(sys.stderr) and not _is_terminal(sys.stdout)

    def show(self, done: int, share: float | None) -> None:
        """Say that so many lines are done, which is `share` of all if that is known."""
        now = time.monotonic()
        if not self._watched or now - self._shown < _PROGRESS_SECONDS:
            return
        self._shown = now
        rate = done / (now - self._begun)
        percent = "" if share is None else f"  {share:4.0%}"
        self._write(f"\r{done:,} lines{percent}  {rate:,.0f} lines/s\x1b[K")

    def end(self) -> None:
        """Take the line away."""
        if self._watched:
            self._write("\r\x1b[K")

    @staticmethod
    def _write(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _is_terminal(file: TextIO | None) -> bool:
    return file is not None and not file.closed and file.isatty()


class Complaints:
    """Lines to standard error about what did not end the command, and how many there were."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, message: str) -> None:
        """Report one more."""
        report(message)
        self.count += 1


@contextlib.contextmanager
def command(name: str) -> Iterator[None]:
    """Run a command's body: every expected failure becomes one line and an exit status.

    2 for a user's mistake, 1 where the output cannot be written or the memory is not enough, 130
    for Ctrl-C; a reader that closes the pipe ends the process as it ends any other Unix tool.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    except ChargenError as error:
        _leave(f"{name}: {error}", 2)
    except OutputError as error:
        _leave(f"{name}: {error}", 1)
    except MemoryError:
        _leave(
            f"{name}: there is not enough memory; give a shorter text, a smaller --batch-size "
            "or a smaller model",
            1,
        )
    except KeyboardInterrupt:
        _leave("", 130)


def _leave(message: str, status: int) -> NoReturn:
    if message:
        report(message)
    # what stdout still holds cannot be written, or is not wanted; keep Python from trying at exit
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(status)


def _standard_output() -> TextIO:
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    return sys.stdout


@contextlib.contextmanager
def _as_output_error(out: TextIO) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise OutputError(
            f"standard output is {out.encoding}, which cannot show {character!a} "
            f"(U+{ord(character):04X}); set PYTHONIOENCODING=utf-8, or use --json"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None

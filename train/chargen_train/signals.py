"""Ctrl-C and SIGTERM: the first asks the run to stop after its step, a second ends it at once."""

import contextlib
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Self

from chargen_train.events import Observer


class InterruptedByError(KeyboardInterrupt):
    """A signal that came while there was nothing to wait for."""


class StopSignals(Observer):
    """A context in which SIGINT and SIGTERM are requests.

    While a run asks `should_stop` after each step, a signal waits for that. Before the first
    question and after `on_last_step` it raises `InterruptedByError` where it finds the program.

    Args:
        insist: whether a second signal ends the program at once. Not where another program passes
            on each that it gets itself.

    Attributes:
        received: number of the signal that came, or None.
    """

    def __init__(self, insist: bool = True) -> None:
        self._insist = insist
        self.received: int | None = None
        self._waits = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def status(self) -> int:
        """The exit status that says which signal ended the program."""
        return 128 + (self.received or signal.SIGINT)

    def should_stop(self) -> bool:
        """Whether a signal has come."""
        self._waits = True
        return self.received is not None

    def on_last_step(self) -> None:
        """From here on a signal need not wait, and one that has come does not."""
        self._waits = False
        if self.received is not None:
            raise InterruptedByError

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if not self._insist:
                return
            with contextlib.suppress(OSError, ValueError):
                if sys.stderr is not None and sys.stderr.isatty():
                    os.write(2, b"\x1b[?25h\n")  # the live display hides the cursor
            os._exit(128 + number)
        self.received = number
        if not self._waits:
            raise InterruptedByError

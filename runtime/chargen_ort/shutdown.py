"""No thread is inside ONNX Runtime when the interpreter ends.

Python ends a daemon thread that comes back from native code while the interpreter goes down, and
C++ takes that for a crash: the process aborts. So all that runs in ONNX Runtime is noted here, and
at exit the main thread waits for it, which takes no longer than one call; a daemon thread that
asks for another call then ends with SystemExit.

The state here is one for the process because the interpreter is. It holds at most one entry for
each thread, and only while that thread is inside.
"""

import atexit
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

_POLL_SECONDS = 0.001

running: set[int] = set()  # threads that are inside ONNX Runtime now
ending: list[int] = []  # the thread that ends the interpreter, once it does
_process: list[int] = []  # whose threads `running` has


@contextmanager
def inside() -> Iterator[None]:
    """Note that this thread is inside ONNX Runtime.

    Raises:
        SystemExit: the interpreter is ending, and this is a daemon thread.
    """
    running.add(get_ident())  # before `ending` is looked at: `_stop` looks the other way round
    try:
        if ending:
            refuse_daemon()
        yield
    finally:
        running.discard(get_ident())


def refuse_daemon() -> None:
    """End this thread unless it is the one that ends the interpreter.

    Raises:
        SystemExit: it is another.
    """
    if ending and ending[0] != get_ident():
        raise SystemExit


def stop_at_exit() -> None:
    """Have the interpreter wait for the threads that are inside; more than once is as once."""
    if _process != [os.getpid()]:  # a forked child has none of its parent's other threads
        _process[:] = [os.getpid()]
        running.clear()
    atexit.unregister(_stop)
    atexit.register(_stop)


def _stop() -> None:
    ending[:] = [get_ident()]
    # a thread that is gone is not waited for
    while running.intersection(sys._current_frames()) - {get_ident()}:
        time.sleep(_POLL_SECONDS)

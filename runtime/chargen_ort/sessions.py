"""Sessions of ONNX Runtime: opened, run over bound arrays, and left alone at the process's end.

No thread is inside ONNX Runtime when the interpreter ends. Python ends a daemon thread that comes
back from native code while the interpreter goes down, and C++ takes that for a crash: the process
aborts. So all that runs in ONNX Runtime is noted here, and at exit the main thread waits for it,
which takes no longer than one call; a daemon thread that asks for another call then ends with
SystemExit.
"""

import atexit
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import shown_value
from chargen_ort.errors import ArtifactError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue

_POLL_SECONDS = 0.001
_MOST_SHOWN = 160  # characters of a message of ONNX Runtime

# These are of the process, because the interpreter and what it inherits are. `running` holds at
# most one entry for each thread, and only while that thread is inside.
running: set[int] = set()  # threads that are inside ONNX Runtime now
ending: list[int] = []  # the thread that ends the interpreter, once it does
_process: list[int] = []  # whose threads `running` has


def open_session(data: bytes, threads: int) -> "InferenceSession":
    """An ONNX Runtime session on the CPU that neither spins, nor prints, nor falls back.

    Raises:
        ArtifactError: ONNX Runtime refuses the model.
    """
    import onnxruntime  # here, because it takes longer to import than the rest together

    _stop_at_exit()  # after the import, so that it comes before what onnxruntime does at exit
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with inside():
            return onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
    except Exception as error:
        raise translated(error, "does not open the model") from None


def translated(error: Exception, what: str) -> Exception:
    """An exception of ONNX Runtime as one of ours; what Python raises for want of memory stays."""
    if isinstance(error, MemoryError):
        return error
    lines = str(error).splitlines() or [""]
    return ArtifactError(f"ONNX Runtime {what}: {shown_value(lines[0], _MOST_SHOWN)}")


def run_bound(session: "InferenceSession", binding: "IOBinding") -> None:
    """One run over bound arrays.

    Raises:
        ArtifactError: ONNX Runtime does not run the model.
    """
    thread = get_ident()
    running.add(thread)  # `inside`, written out, as it takes as long as a tenth of a short run
    try:
        if ending:
            refuse_daemon()
        session.run_with_iobinding(binding)
    except Exception as error:
        raise translated(error, "does not run the model") from None
    finally:
        running.discard(thread)


def share(array: NDArray[np.generic]) -> "OrtValue":
    """What ONNX Runtime reads and writes where it lies; the array must live as long, in place."""
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(array)


def bind(
    session: "InferenceSession", inputs: Mapping[str, "OrtValue"], outputs: Mapping[str, "OrtValue"]
) -> "IOBinding":
    """A binding of what `share` gave, by the names in the graph."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


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


def _stop_at_exit() -> None:
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

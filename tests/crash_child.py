"""Writes artifacts in forked children that are killed, for tests/test_crash.py.

Imported by no test: it runs as a process of its own, which imports once and forks often.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from chargen_ort.artifact import read_artifact
from chargen_ort.errors import ArtifactError, OptionError
from chargen_train import files

_SOURCE = files.__file__


def kill_at_line(number: int) -> Callable[[], None]:
    """Die before the given line of files.py that the child comes to, counted from 0."""

    def arm() -> None:
        left = number

        def on_line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if event == "line":
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
            return on_line

        def on_call(frame: FrameType, event: str, _: Any) -> Any:
            return on_line if frame.f_code.co_filename == _SOURCE else None

        sys.settrace(on_call)

    return arm


def kill_around(name: str, after: bool) -> Callable[[], None]:
    """Die just before or just after a call of os: fsync or replace."""

    def arm() -> None:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            if after:
                real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, call)

    return arm


def kill_in_write(share: float) -> Callable[[], None]:
    """Die with this share of the bytes in the file, which is written as the system would."""

    def arm() -> None:
        real = files.open if hasattr(files, "open") else open

        class Partial:
            def __init__(self, file: Any) -> None:
                self.file = file

            def __enter__(self) -> "Partial":
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def fileno(self) -> int:
                return int(self.file.fileno())

            def write(self, data: bytes) -> None:
                os.write(self.fileno(), data[: int(share * len(data))])
                os.kill(os.getpid(), signal.SIGKILL)

        def open_partial(path: Any, mode: str) -> Any:
            file = real(path, mode)
            return Partial(file) if "x" in mode else file

        files.open = open_partial  # type: ignore[attr-defined]

    return arm


def full_at(size: int) -> Callable[[], None]:
    """Let no file grow beyond `size`: the write fails half done, as on a full disk."""

    def arm() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return arm


def nothing() -> None:
    pass


def in_child(path: Path, data: bytes, arm: Callable[[], None], delay: float | None = None) -> int:
    """Write in a forked child; returns its wait status. With a delay, kill it then."""
    child = os.fork()
    if not child:
        try:
            arm()
            files.write_atomically(path, data)
            os._exit(0)
        except OptionError:
            os._exit(2)
        except BaseException:
            os._exit(9)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def timed(path: Path, data: bytes) -> float:
    begun = time.perf_counter()
    in_child(path, data, nothing)
    return time.perf_counter() - begun


def main() -> None:
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    path = folder / "model [1].onnx"
    old, new = ((folder / name).read_bytes() for name in ("old", "new"))
    rng = random.Random(seed)
    usual = min(timed(path, new) for _ in range(5))
    plans: list[tuple[str, Callable[[], None], float | None]] = [
        *((f"line {n}", kill_at_line(n), None) for n in range(60)),
        *((f"{when} {name}", kill_around(name, when == "after"), None)
          for name in ("fsync", "replace") for when in ("before", "after")),
        *((f"write {n}/8", kill_in_write(n / 8), None) for n in range(9)),
        *((f"full at {n}/20", full_at(int(len(new) * n / 20)), None) for n in range(20)),
        *(("moment", nothing, rng.uniform(0, usual)) for _ in range(count)),
    ]  # fmt: skip
    for name, arm, delay in plans:
        in_child(path, old, nothing)
        status = in_child(path, new, arm, delay)
        left = len(list(folder.glob(".*")))
        found = "old" if path.read_bytes() == old else "new" if path.read_bytes() == new else "torn"
        try:
            read_artifact(path)
        except ArtifactError as error:
            found = str(error)
        in_child(path, old, nothing)
        stale = [item.name for item in folder.glob(".*")]
        result = {"name": name, "status": status, "found": found, "left": left, "stale": stale}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

"""A process that opens model files by the line and tells what became of each.

It imports the runtime alone. A file that is accepted goes on into ONNX Runtime, which writes from
it; what that does to this process, the parent sees.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from chargen_ort.artifact import parse_artifact, read_artifact
from chargen_ort.errors import ArtifactError
from chargen_ort.generator import CharGenerator

Result = TypeVar("Result")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def megabytes(field: str) -> float:
    """VmRSS, or VmHWM, the most since `forget_peak`; 0 where the system does not tell."""
    if not _STATUS.exists():
        return 0.0
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def forget_peak() -> None:
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def attempt(data: bytes | str) -> tuple[str, str]:
    """Open a file, by its bytes or its path: refused, accepted, or another error, and its text."""
    try:
        artifact = parse_artifact(data) if isinstance(data, bytes) else read_artifact(data)
        CharGenerator(artifact).generate("", 3, seed=0)
    except ArtifactError as error:
        return "refused", str(error)
    except Exception as error:
        return "another error", repr(error)[:1000]
    return "accepted", ""


def measure(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """What `call` returns, the seconds that it took, and by how many megabytes memory grew."""
    forget_peak()
    before, begun = megabytes("VmRSS"), time.perf_counter()
    result = call()
    return result, time.perf_counter() - begun, megabytes("VmHWM") - before


def main() -> None:
    for line in sys.stdin:
        path = json.loads(line)
        (outcome, message), seconds, growth = measure(lambda path=path: attempt(path))
        result = {"outcome": outcome, "message": message, "seconds": seconds, "growth": growth}
        print(json.dumps(result), flush=True)


class Elsewhere:
    """Opens paths in another process, a new one after a crash or a hang."""

    def __init__(self, *command: str) -> None:
        self._command = command or (sys.executable, "-m", "tests.hostile.worker")
        self._worker: subprocess.Popen[str] | None = None

    def ask(self, path: Path, seconds: float = 20) -> dict[str, Any]:
        """What the worker tells of `path`.

        Raises:
            RuntimeError: it crashed or hung.
        """
        if self._worker is None:
            self._worker = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        worker = self._worker
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(json.dumps(str(path)) + "\n")
        ready, _, _ = select.select([worker.stdout], [], [], seconds)
        answer = worker.stdout.readline() if ready else ""
        if answer:
            result: dict[str, Any] = json.loads(answer)
            return result
        if not ready:
            worker.kill()
        status = self.close()
        raise RuntimeError(f"crash: {status}" if ready else f"hang: over {seconds} s")

    def close(self) -> int:
        """End the worker; returns its exit status."""
        worker, self._worker = self._worker, None
        if worker is None:
            return 0
        worker.communicate()
        return worker.returncode


if __name__ == "__main__":
    main()

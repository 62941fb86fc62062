"""The server against the example of a service with a thread a stream, clients on the same cores.

Each request is for 200 characters. The two servers take turns, and figures are medians of turns.
Where a row has a limit instead of a peer, "theirs" is the limit.
"""

import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row
from tests.benchmarks.precision import make_artifacts
from tests.tools.serving import free_port

EXAMPLES = Path(__file__).parent.parent.parent / "runtime" / "examples"
SECONDS, TURNS = "4", 3
_SERVE = "from chargen_ort.cli import main; main()"


@dataclass(frozen=True)
class Server:
    """A process that serves."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def peak(self) -> float:
        """The most memory that it has had, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found.group(1)) / 1024 if found else 0.0

    def load(self, kind: str, clients: int) -> dict[str, Any]:
        """What so many clients find who ask as quickly as they are answered."""
        command = [sys.executable, "-m", "tests.benchmarks.load", str(self.port), kind]
        found = subprocess.run(
            [*command, str(clients), SECONDS], capture_output=True, check=True, text=True
        )
        return dict(json.loads(found.stdout))


@contextlib.contextmanager
def started(path: Path, example: bool = False) -> Iterator[Server]:
    """A server of a model, or the example."""
    port = str(free_port())
    if example:
        command = [sys.executable, "-m", "uvicorn", "service:app", "--log-level", "critical"]
    else:
        command = [sys.executable, "-c", _SERVE, "serve", str(path)]
    process = subprocess.Popen(
        [*command, "--port", port],
        cwd=EXAMPLES,
        env={**os.environ, "CHARGEN_MODEL": str(path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server(process, int(port))
        for _ in range(200):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                http.client.HTTPConnection("127.0.0.1", server.port, timeout=5).connect()
                break
        server.load("example" if example else "ours", 2)  # it is warm
        yield server
    finally:
        process.terminate()
        process.wait()


def rows() -> Iterator[Row]:
    """All rows about the server: about five minutes of work."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for num_layers, hidden_size, precision in ((1, 128, "fp32"), (2, 512, "int8")):
            name = f"{num_layers} x {hidden_size} {precision}"
            path = folder / f"{num_layers}x{hidden_size}.onnx"
            path.write_bytes(make_artifacts(hidden_size, num_layers)[precision].data)
            with started(path) as ours, started(path, example=True) as theirs:
                yield from _rates(name, ours, theirs, 8 if hidden_size == 128 else None)
                yield _first(name, ours, hidden_size == 128)
                work = f"{name}, memory after 200 clients"
                yield Row(work, "limit", ours.peak, 150, "MB", 1, smaller_is_better=True)


def _rates(name: str, ours: Server, theirs: Server, asked: float | None) -> Iterator[Row]:
    for clients in (16, 64, 200):
        turns = [
            (ours.load("ours", clients), ours.load("streamed", clients),
             theirs.load("example", clients))
            for _ in range(TURNS)
        ]  # fmt: skip
        whole, streamed, example = (
            [len(turn["taken"]) / turn["seconds"] for turn in each]
            for each in zip(*turns, strict=True)
        )
        for how, rates in (("", whole), (", streamed", streamed)):
            times = [1e6 / statistics.median(each) for each in (rates, example)]
            work = f"{name}, a request of {clients} clients{how}"
            yield Row(work, "the example", *times, "us", asked)
        taken = sorted(t for turn, *_ in turns for t in turn["taken"])
        p50, p99 = (taken[int(len(taken) * part)] * 1e3 for part in (0.5, 0.99))
        work = f"{name}, 99th percentile of {clients} clients"
        limit = None if clients == 16 else 5
        yield Row(work, "the median", p99, p50, "ms", limit, smaller_is_better=True)
        cut = sum(turn["cut"] for both in turns for turn in both[:2])
        yield Row(f"{name}, answers cut", "limit + 1", cut, 1, "", 0, smaller_is_better=True)


def _first(name: str, server: Server, limited: bool) -> Row:
    """The time to the first character of one more client while 64 others stream."""
    command = [sys.executable, "-m", "tests.benchmarks.load", str(server.port), "streamed"]
    others = subprocess.Popen([*command, "64", "8"], stdout=subprocess.DEVNULL)
    time.sleep(1.5)
    found = server.load("streamed", 1)
    others.wait()
    first = statistics.median(found["first"]) * 1e3
    work = f"{name}, first character beside 64 streams"
    return Row(work, "limit", first, 50, "ms", 1 if limited else None, smaller_is_better=True)

"""Writing, against the version before many steps went in one run, plain NumPy and a C program.

The version before is installed from this repository's own history, in a folder of its own, and
both versions run as processes that take turns. All of it is on one thread.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from chargen_ort import CharGenerator
from chargen_ort.artifact import read_artifact
from chargen_ort.sampling import Draws
from chargen_ort.writer import RunWriter
from tests.benchmarks.measure import RUNS, Row
from tests.benchmarks.precision import Writer, c_writer, make_artifacts, take_turns
from tests.benchmarks.runtime import models, numpy_stream

ROOT = Path(__file__).parent.parent.parent
BEFORE = "55cfe7d"  # the last commit that ran a step at a time
_WORKER = Path(__file__).with_name("worker.py")
_LINES, _LINE = 5_000, 15  # scored lines, and characters of each

# layers, width, precision, kind of work, and the ratios asked for
_WORKS: list[tuple[int, int, str, str, dict[str, float]]] = [
    (1, 32, "fp32", "stream", {"before": 1.8, "NumPy": 1.9}),
    (1, 256, "fp32", "stream", {"before": 1.6, "NumPy": 1.5, "C": 1.0}),
    (1, 512, "fp32", "stream", {"before": 1.25, "C": 0.95}),
    (2, 512, "fp32", "stream", {"before": 1.1, "C": 0.95}),
    (1, 128, "fp32", "batch", {"before": 1.8}),
    (1, 256, "fp32", "batch", {"before": 1.9}),
    (2, 512, "fp32", "batch", {"before": 1.35}),
    (1, 256, "int8", "stream", {"before": 1.5}),
    (2, 512, "int8", "stream", {"before": 1.25}),
]
_PEERS = {"before": f"this project at {BEFORE}", "NumPy": "NumPy alone", "C": "C program"}


def rows() -> Iterator[Row]:
    """All rows about writing: about two minutes of work, and a minute to install."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        now = stack.enter_context(version(None))
        before = stack.enter_context(version(install(BEFORE)))
        for num_layers, hidden_size, precision, kind, asked in _WORKS:
            path = folder / f"{num_layers}x{hidden_size}.{precision}.onnx"
            path.write_bytes(make_artifacts(hidden_size, num_layers)[precision].data)
            writers = {"now": writer(now, path, kind), "before": writer(before, path, kind)}
            with ExitStack() as peers:
                if "NumPy" in asked:
                    writers["NumPy"] = numpy_writer(hidden_size)
                if "C" in asked:
                    with contextlib.suppress(OSError):  # no compiler
                        program = c_writer(precision, hidden_size, num_layers)
                        writers["C"] = peers.enter_context(program)
                times = take_turns(writers)
            work = f"{'64 streams' if kind == 'batch' else 'one stream'}, "
            work += f"{num_layers} x {hidden_size} {precision}"
            for peer, least in asked.items():
                yield Row(work, _PEERS[peer], times["now"], times.get(peer), "us/char", least)
        for hidden_size in (32, 256):
            yield from accounts(folder / f"1x{hidden_size}.fp32.onnx")
        yield scored_lines(folder / "1x256.fp32.onnx")


def install(commit: str) -> Path:
    """The folder with the runtime of a commit; it is installed where it is not there yet."""
    folder = ROOT / "build" / f"runtime-{commit}"
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as new:
            source = f"git+file://{ROOT}@{commit}"
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", new]
            subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
            Path(new).rename(folder)
            Path(new).mkdir()  # for the context to remove
    return folder


@contextlib.contextmanager
def version(folder: Path | None) -> Iterator["subprocess.Popen[str]"]:
    """A worker with the runtime in `folder`, or with this one."""
    environment = dict(os.environ)
    if folder is not None:
        environment["PYTHONPATH"] = str(folder)
    with subprocess.Popen(
        [sys.executable, _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin
        process.stdin.close()


def writer(worker: "subprocess.Popen[str]", path: Path, kind: str) -> Writer:
    """A worker's writing with a model."""

    def write(count: int) -> float:
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(json.dumps([str(path), kind, count]) + "\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    return write


def numpy_writer(hidden_size: int) -> Writer:
    """The step written out in NumPy."""
    generator, plain, characters = models(hidden_size)

    def write(count: int) -> float:
        run = numpy_stream(generator, plain, characters, count)
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun

    return write


def accounts(path: Path) -> Iterator[Row]:
    """Where the microseconds of a character go, the steps, the draw and all that is Python."""
    model = CharGenerator(read_artifact(path), threads=1)

    def run(temperature: float) -> Writer:
        rows = RunWriter(model.engine, Draws(1, (0,)), temperature)
        rows.logits[0] = model.state("A").logits()

        def write(count: int) -> float:
            runs = max(1, count // rows.most_steps)
            begun = time.perf_counter()
            for _ in range(runs):
                rows.write(rows.most_steps)
            return (time.perf_counter() - begun) * count / (runs * rows.most_steps)

        return write

    def stream(count: int) -> float:
        begun = time.perf_counter()
        "".join(model.stream("A", count, temperature=0.8, seed=1))
        return time.perf_counter() - begun

    times = take_turns({"steps": run(0), "runs": run(0.8), "stream": stream})
    work = f"one stream, 1 x {model.config.hidden_size} fp32"
    yield Row(f"{work}: the steps", "-", times["steps"], None, "us/char", None)
    yield Row(f"{work}: the draw", "-", times["runs"] - times["steps"], None, "us/char", None)
    yield Row(f"{work}: Python", "-", times["stream"] - times["runs"], None, "us/char", None)


def scored_lines(path: Path) -> Row:
    """Lines scored a second, against what is asked for."""
    model = CharGenerator(read_artifact(path), threads=1)
    rng = np.random.default_rng(0)
    known = np.array(list(model.vocabulary.characters.rstrip("\n")))
    lines = ["".join(known[rng.integers(0, len(known), _LINE)]) for _ in range(_LINES)]
    seconds = []
    for run in range(RUNS + 1):
        begun = time.perf_counter()
        model.score_batch(lines)
        if run:  # the first is the warm-up
            seconds.append(time.perf_counter() - begun)
    each = statistics.median(seconds) / _LINES * 1e6
    work = f"scoring {_LINES:,} lines of {_LINE} characters, 1 x 256"
    return Row(work, "20,000 lines a second", each, 50.0, "us/line", 1.0)

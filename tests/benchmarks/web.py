"""chargen.js in Chromium, beside onnxruntime-web there and beside Python on the same machine."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from chargen_ort import CharGenerator
from tests.benchmarks.measure import RUNS, Row
from tests.conftest import artifact_bytes, random_model
from tests.tools.browser import in_chromium

CHARACTERS = "".join(map(chr, range(32, 96))) + "\n"
# name, hidden size, layers, characters a run, the ratio asked for against onnxruntime-web
MODELS = (
    ("H64", 64, 1, 3000, 3.0),
    ("H128", 128, 1, 3000, 3.0),
    ("H256", 256, 1, 2000, 1.7),
    ("2x512", 512, 2, 500, 1.0),
)


def rows() -> Iterator[Row]:
    """One model after the other; Python's turn is before the browser's."""
    with tempfile.TemporaryDirectory() as name:
        for model, hidden, layers, characters, asked in MODELS:
            path = Path(name) / f"{model}.onnx"
            data = artifact_bytes(random_model(len(CHARACTERS), 64, hidden, layers), CHARACTERS)
            path.write_bytes(data)
            python = _python(CharGenerator.from_bytes(data, threads=1), characters)
            ours, theirs = _browser(path, characters)
            work = f"{model}, a character in Chromium"
            yield Row(work, "onnxruntime-web, without draws", ours, theirs, "us", asked)
            yield Row(work, "Python, one thread", ours, python, "us", None)


def _python(model: CharGenerator, characters: int) -> float:
    times = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        model.generate("", characters, seed=1, temperature=0.8)
        times.append((time.perf_counter() - begun) / characters * 1e6)
    return statistics.median(times[1:])


def _browser(path: Path, characters: int) -> tuple[float, float]:
    ours, theirs = in_chromium("speed.mjs", RUNS, path, characters, seconds=600)[0]
    return ours, theirs

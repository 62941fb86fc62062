"""`make test-engines`: each engine gives the same bits as the library alone.

    python -m tests.engines [MODEL.onnx [LINES.txt [ENGINE …]]]

Each program of the examples runs on a cluster on this machine, and what it wrote is compared, bit
for bit, with what `CharGenerator.iterate_scores` gives in this process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import chargen_ort
from chargen_ort.models import DEMO_MODEL

EXAMPLES = Path(__file__).parents[2] / "runtime/examples"
ENGINES = ("dask", "ray", "spark")
FIGURES = ["log_probability", "bits_per_char", "percentile"]
COUNT = 20_000


def example_lines() -> list[str]:
    """Lines of 1 to 20 characters, all different, unknown characters among them."""
    return [f"{'hello world '[number % 12 :]}{number:x}" for number in range(COUNT)]


def without_engine(model: Path, lines: list[str]) -> pd.DataFrame:
    """The figures of lines by the library alone."""
    scores = list(chargen_ort.load(model, threads=1).iterate_scores(lines))
    return pd.DataFrame(
        {
            "text": lines,
            "log_probability": [score.total for score in scores],
            "bits_per_char": [score.bits_per_char for score in scores],
            "percentile": pd.array([score.percentile for score in scores], dtype="Float64"),
        }
    )


def bits(table: pd.DataFrame) -> pd.DataFrame:
    """Lines in the order of the alphabet, and their figures as bytes."""
    table = table.astype(dict.fromkeys(FIGURES, "float64")).astype({"text": "object"})
    ordered = table.sort_values(["text", *FIGURES]).reset_index(drop=True)
    return ordered.assign(**{name: ordered[name].to_numpy().view("int64") for name in FIGURES})


def main(model: str = str(DEMO_MODEL), source: str = "", *engines: str) -> int:
    """Run each engine; the result is how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(source or f"{folder}/lines.txt")
        if not source:
            file.write_text("".join(f"{line}\n" for line in example_lines()))
        lines = file.read_text().removesuffix("\n").split("\n")
        begun = time.perf_counter()
        expected = bits(without_engine(Path(model), lines))
        print(f"alone: {len(lines):,} lines in {time.perf_counter() - begun:.1f} s", flush=True)
        settings = {"PYSPARK_PYTHON": sys.executable, "RAY_USAGE_STATS_ENABLED": "0"}
        for engine in engines or ENGINES:
            out = Path(folder) / engine
            begun = time.perf_counter()
            command = [sys.executable, EXAMPLES / f"{engine}_scores.py", model, file, out]
            done = subprocess.run(
                command, env={**os.environ, **settings}, capture_output=True, text=True, check=False
            )
            same = False
            if done.returncode == 0:
                found = pd.read_parquet(out, columns=["text", *FIGURES])
                same = bits(found).equals(expected)
            else:
                print(done.stderr[-3000:], file=sys.stderr)
            verdict = "the same bits" if same else "NOT the same"
            seconds = time.perf_counter() - begun
            print(f"{engine}: {verdict}, {seconds:.1f} s with its start", flush=True)
            failed += not same
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

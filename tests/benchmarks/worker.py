"""Writes with whichever version of the runtime stands first on the path, and tells the seconds.

Each line of standard input is JSON: a model file, the kind of work, and how many characters.
"""

import json
import sys
import time

import chargen_ort

ROWS = 64
OPTIONS = {"temperature": 0.8, "seed": 1}


def work(model: chargen_ort.CharGenerator, kind: str, count: int) -> float:
    """Seconds for so many characters, of one stream or of a batch."""
    begun = time.perf_counter()
    if kind == "stream":
        "".join(model.stream("A", count, **OPTIONS))
        return time.perf_counter() - begun
    length = max(1, count // ROWS)
    model.generate_batch(["A"] * ROWS, length, **OPTIONS)
    return (time.perf_counter() - begun) * count / (ROWS * length)


def main() -> None:
    models: dict[str, chargen_ort.CharGenerator] = {}
    for line in sys.stdin:
        path, kind, count = json.loads(line)
        if path not in models:
            models[path] = chargen_ort.load(path, threads=1)
        print(work(models[path], kind, count), flush=True)


if __name__ == "__main__":
    main()

"""`chargen-ort score --lines` on a long stream: lines a second, and the memory that it takes.

    python -m tests.benchmarks.lines MODEL.onnx LINES.txt COUNT

The lines of the file are written to standard input again and again, with a number behind each,
until COUNT of them were; and once a tenth of that, whose peak memory is to be the same.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import machine

_AT_ONCE = 10_000


def numbered(lines: list[str], count: int) -> Iterator[str]:
    """So many lines, in an order that no two rounds have alike."""
    rounds = 0
    while count > 0:
        random.Random(rounds).shuffle(lines)
        for begin in range(0, min(count, len(lines)), _AT_ONCE):
            some = lines[begin : min(count, begin + _AT_ONCE)]
            yield "".join(f"{line[:13]}{rounds % 100}\n" for line in some)
        count, rounds = count - len(lines), rounds + 1


def measured(model: str, lines: list[str], count: int, jobs: int) -> tuple[float, float, float]:
    """Seconds, seconds of processors, and peak memory in MB of the largest process."""
    options = ["--lines", "--above", "99", "--count", "--jobs", str(jobs)]
    command = [Path(sys.executable).parent / "chargen-ort", "--model", model, "score", "-"]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    begun = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdin=pipe, stdout=nowhere, stderr=nowhere)
    assert process.stdin is not None

    def feed() -> None:
        for some in numbered(lines, count):
            process.stdin.write(some.encode())
        process.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    _, status, usage = os.wait4(process.pid, 0)
    feeder.join()
    assert status == 0
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main(model: str, file: str, count: str) -> None:
    """A row for each number of lines and processes."""
    lines = list(dict.fromkeys(Path(file).read_text().split("\n")[:-1]))
    print("  ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"{'lines':>12}{'jobs':>6}{'lines/s':>10}{'lines/s of a core':>20}{'peak MB':>10}")
    whole = int(count)
    for lines_of, jobs in ((whole // 10, 1), (whole, 1), (whole, 2)):
        seconds, cpu, memory = measured(model, lines, lines_of, jobs)
        print(
            f"{lines_of:>12,}{jobs:>6}{lines_of / seconds:>10,.0f}{lines_of / cpu:>20,.0f}"
            f"{memory:>10,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Try seeded mutants of model files in worker processes until a count is reached.

The state is kept: a run that is stopped goes on where it was. Afterwards every single-bit flip of
the demo model is tried.
"""

import argparse
import collections
import json
import select
import subprocess
import sys
import time
from pathlib import Path

from chargen_ort.artifact import parse_artifact
from chargen_ort.errors import ArtifactError
from chargen_ort.graphs import VARIANTS
from chargen_ort.models import DEMO_MODEL
from tests.conftest import artifact_bytes, random_model
from tests.fuzz.mutations import mutant
from tests.hostile.build import of_precision, without_seal

CHUNK = 500
HANG_SECONDS = 30


class Worker:
    """One process; `busy` is the range of seeds that it works on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "place").write_bytes(bytes(8))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def run(self, begin: int, end: int) -> tuple[dict[str, int], list[object]]:
        """Try seeds; a crash or a hang is a defect, and the rest goes on in a new process."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([begin, end]) + "\n")
        place = -1
        while not select.select([self.process.stdout], [], [], HANG_SECONDS)[0]:
            before, place = place, int.from_bytes((self.folder / "place").read_bytes(), "little")
            if before == place:
                self.process.kill()
                break
        answer = self.process.stdout.readline()
        if answer:
            result = json.loads(answer)
            return result["counts"], result["defects"]
        seed = int.from_bytes((self.folder / "place").read_bytes(), "little")
        status = self.process.wait()
        self.__init__(self.folder)  # type: ignore[misc]
        # what came before the crash is counted again with the counts of a second try
        done, defects = self.run(begin, seed) if seed > begin else ({}, [])
        rest, more = self.run(seed + 1, end) if seed + 1 < end else ({}, [])
        counts = collections.Counter(done) + collections.Counter(rest)
        counts["crash or hang"] += 1
        return dict(counts), [*defects, [seed, "crash or hang", f"status {status}"], *more]


def prepare(folder: Path) -> None:
    """The honest bodies that mutants are made from."""
    (folder / "bases").mkdir(parents=True, exist_ok=True)
    (folder / "defects").mkdir(exist_ok=True)
    honest = {str(n): artifact_bytes(random_model(29, 3, 4, n)) for n in (1, 2, 3)}
    honest |= {precision: of_precision(precision) for precision in VARIANTS if precision != "fp32"}
    for name, data in honest.items():
        (folder / "bases" / f"{name}.bin").write_bytes(without_seal(data))


def flips(state: dict[str, int], deadline: float) -> None:
    """Every single-bit flip of the demo model, in order."""
    demo = bytearray(DEMO_MODEL.read_bytes())
    for bit in range(state["flips"], 8 * len(demo)):
        demo[bit // 8] ^= 1 << bit % 8
        try:
            parse_artifact(bytes(demo))
            state["flips accepted"] += 1
        except ArtifactError:
            pass
        demo[bit // 8] ^= 1 << bit % 8
        state["flips"] = bit + 1
        if time.monotonic() > deadline:
            return


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="mutants in all")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="state and defects")
    arguments = parser.parse_args()
    folder, deadline = arguments.folder, time.monotonic() + arguments.seconds
    prepare(folder)
    path = folder / "state.json"
    state: collections.Counter[str] = collections.Counter()
    if path.exists():
        state.update(json.loads(path.read_text()))
    worker = Worker(folder)
    bases = [base.read_bytes() for base in sorted((folder / "bases").glob("*.bin"))]
    while state["mutants"] < arguments.count and time.monotonic() < deadline:
        begin = state["mutants"]
        end = min(begin + CHUNK, arguments.count)
        counts, defects = worker.run(begin, end)
        state.update(counts)
        state["mutants"] = end
        for seed, *what in defects:  # type: ignore[misc]
            state["defects"] += 1
            (folder / "defects" / f"{seed}.onnx").write_bytes(mutant(seed, bases).data)
            print(f"seed {seed}: {' '.join(map(str, what))}", file=sys.stderr)
        path.write_text(json.dumps(state))
        if end % 20_000 == 0:
            print(f"{dict(state)}", file=sys.stderr, flush=True)
    worker.process.communicate()
    flips(state, deadline)
    path.write_text(json.dumps(state))
    print(json.dumps(state, indent=1))
    return int(bool(state["defects"] or state["flips accepted"]))


if __name__ == "__main__":
    sys.exit(main())

"""A process that tries mutants by the chunk; it keeps its place in a file that outlives a crash."""

import collections
import json
import mmap
import sys
from pathlib import Path

from chargen_ort.artifact import seal
from tests.fuzz.mutations import mutant
from tests.hostile.worker import attempt


def main(folder: Path) -> None:
    bases = [path.read_bytes() for path in sorted((folder / "bases").glob("*.bin"))]
    with open(folder / "place", "r+b") as file:
        place = mmap.mmap(file.fileno(), 8)
    honest = {form for base in bases for form in (base, seal(base))}
    for line in sys.stdin:
        begin, end = json.loads(line)
        counts: collections.Counter[str] = collections.Counter()
        defects = []
        for seed in range(begin, end):
            place[:8] = seed.to_bytes(8, "little")
            data, sealed = mutant(seed, bases)
            outcome, message = attempt(data)
            if data in honest:  # the mutation changed nothing, or undid itself
                outcome = "unchanged"
            elif outcome == "another error" or (outcome == "accepted" and not sealed):
                defects.append([seed, outcome, message])
            counts["sealed"] += sealed
            counts[outcome] += 1
        print(json.dumps({"counts": counts, "defects": defects}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

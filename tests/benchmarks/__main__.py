"""`make bench`: every row, printed as a table with machine and versions, and written as JSON."""

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.measure import Row, describe_ratio, machine, table

RESULTS = Path("build/bench.json")
SUITES = ("runtime", "writing", "precision", "training")


def main(names: list[str]) -> None:
    """Run the suites named, or all of them."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy is not imported yet
    rows: list[Row] = []
    for name in names or SUITES:
        for row in importlib.import_module(f"tests.benchmarks.{name}").rows():
            rows.append(row)
            print(f"{row.work}: {describe_ratio(row)} against {row.against}", file=sys.stderr)
    facts = machine()
    print("  ".join(f"{key} {value}" for key, value in facts.items()))
    print("one thread but for training; medians of interleaved runs\n")
    print(table(rows))
    RESULTS.parent.mkdir(exist_ok=True)
    figures = [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows]
    RESULTS.write_text(json.dumps({"machine": facts, "rows": figures}, indent=1) + "\n")
    print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main(sys.argv[1:])

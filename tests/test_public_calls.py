"""20,000 odd calls on every public name: documented exceptions, or an answer, and no crash.

They run in a process of their own, as what goes wrong inside ONNX Runtime ends the process.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def survive(calls: int) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.odd_calls", str(calls)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    kinds = ["ArtifactError", "OptionError", "TypeError", "UnknownCharacterError", "answer"]
    count, found = result.stdout.split(" ", 1)
    assert int(count) > 0.9 * calls
    assert found == f"{kinds}\n"


def test_20_000_odd_calls_give_the_documented_exceptions():
    survive(20_000)

"""Which model to use when none is named."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "CHARGEN_MODEL"
FOLDER = Path("artifacts")
DEMO_MODEL = Path(__file__).with_name("demo.onnx")


def find_model() -> Path:
    """`$CHARGEN_MODEL`, else the newest artifact in ./artifacts, else the demo model."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    found = [path for path in FOLDER.glob("*.onnx") if path.is_file()]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=DEMO_MODEL)

"""Chromium, for the tests and benchmarks of runtime/web; `make test-web` brings what is needed."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.tools.web import MODULE, ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_PLAYWRIGHT = MODULE.parent / "node_modules/playwright-core"

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("node") and _PLAYWRIGHT.exists()),
    reason="Chromium, Node and playwright-core are not all there; make test-web brings them",
)


def in_chromium(script: str, *arguments: object, seconds: float = 120) -> Any:
    """What a script of tests/browser printed as JSON.

    Raises:
        RuntimeError: it failed, with what it told.
    """
    result = subprocess.run(
        ["node", ROOT / "tests/browser" / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHROMIUM": CHROMIUM or ""},
        timeout=seconds,
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout)

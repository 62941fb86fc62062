"""JavaScript reads, writes and scores bytes, words and pieces as Python does."""

import base64
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chargen_ort import ArtifactError, CharGenerator
from tests.conftest import artifact_bytes, random_model
from tests.tools.units import bpe, byte, word
from tests.tools.web import ROOT

UNITS = {"bpe": bpe, "word": word, "byte": byte}
STARTS = ("", "the o", "the other ", "  ", "rest.\nth", "h")
OPTIONS = (
    {"seed": 1, "length": 60},
    {"seed": 2, "length": 37, "temperature": 0.7, "top_k": 9, "repetition_penalty": 1.3},
    {"seed": 2**63, "row": 5, "length": 90, "stop": ["the", "e."], "top_p": 0.8, "min_p": 0.01},
    {"seed": 0, "length": 30, "temperature": 0},
)
TEXTS = ("the other rest", "  the best.\nor", "théα 😀 or", "e" * 70, "zz the")

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def written(model: CharGenerator, start: str, options: dict[str, object]) -> dict[str, object]:
    given = {name: value for name, value in options.items() if name != "row"}
    row, length = options.get("row", 0), given.pop("length")
    state = model.state(start, row=row, **given)
    text = "".join(model.resume(state, length=length))
    return {"start": start, "options": options, "text": text}


def scored(model: CharGenerator, text: str) -> list[dict[str, object]]:
    found = []
    for alone, options in ((False, {}), (False, {"window": 5}), (True, {"end": True})):
        if "window" in options and model.config.end:
            continue
        score = model.score_batch([text], end=True)[0] if alone else model.score(text, **options)
        own = score.character_log_probabilities.tolist()
        found.append({
            "text": text, "alone": alone, "options": options, "total": score.total,
            "characters": score.characters, "unknown": score.unknown, "own": own,
        })  # fmt: skip
    return found


def drawn(model: CharGenerator, start: str) -> dict[str, object]:
    state = model.state(start, seed=3)
    text = "".join(state.draw() for _ in range(5))
    snapshot = state.snapshot()
    again = model.restore(snapshot)
    return {
        "start": start, "options": {"seed": 3}, "draws": 5, "text": text,
        "snapshot": base64.b64encode(snapshot).decode(), "more": [again.draw() for _ in range(40)],
    }  # fmt: skip


def forged(model: CharGenerator, unit: str) -> list[str]:
    """Snapshots that claim parts of tokens which there cannot be, all of them refused by Python."""
    snapshot = model.state("the other").snapshot()
    wrong: list[tuple[str, object]] = [
        ("ready", "\ud7ff?" if unit != "byte" else ""),
        ("rest", "?"),
    ]
    wrong += [("rest", "the " * 9), ("partial", [256] if unit == "byte" else [226])]
    made = []
    for key, value in wrong:
        if value:
            pattern = rb'"%s":("[^"]*"|\[[^]]*\])' % key.encode()
            text = f'"{key}":{json.dumps(value)}'.encode()
            made.append(re.sub(pattern, text.replace(b"\\", b"\\\\"), snapshot, count=1))
            with pytest.raises(ArtifactError, match="the snapshot is damaged"):
                model.restore(made[-1])
    return [base64.b64encode(each).decode() for each in made]


def case(path: Path, unit: str, end: bool) -> dict[str, object]:
    vocabulary = UNITS[unit](end=end)
    model_bytes = artifact_bytes(
        random_model(len(vocabulary), seed=3, scale=1.0), vocabulary=vocabulary
    )
    path.write_bytes(model_bytes)
    model = CharGenerator.from_bytes(model_bytes)
    texts = [text for text in TEXTS if unit == "byte" or text.isascii()]
    return {
        "path": str(path),
        "texts": [written(model, *each) for each in itertools.product(STARTS, OPTIONS)],
        "scores": [score for text in texts for score in scored(model, text)],
        "next": [
            {"text": text, "found": list(model.next_probabilities(text, top=6).items())}
            for text in STARTS
        ],
        "states": [drawn(model, start) for start in STARTS],
        "forged": forged(model, unit),
    }


def test_javascript_does_what_python_does(tmp_path):
    cases = [
        case(tmp_path / f"{unit}-{end}.onnx", unit, end) for unit in UNITS for end in (False, True)
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = ["node", ROOT / "tests/tools/replay.mjs", tmp_path / "cases.json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "")

"""Samplers of a model in `tests/golden/`: what their bytes are, and what their runs give.

They are rendered from the model, so that of their bytes the hash is kept alone.

`python -m tests.tools.golden` writes them with the other vectors.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chargen_ort import CharGenerator, SamplingOptions, read_artifact
from chargen_ort.artifact import SAMPLER, SAMPLER_UNIFORMS
from chargen_ort.samplers import as_sampler, run_sampler
from chargen_ort.sampling import uniform_draws
from chargen_ort.sessions import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Case = dict[str, Any]  # a line of JSON
ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tests/golden"
MODEL = "tests/golden/fp16.onnx"
KINDS = (SAMPLER, SAMPLER_UNIFORMS)
LENGTH = 32
# name, prompts, seed, draws before, options
RUNS: list[tuple[str, list[str], int, int, Case]] = [
    ("plain", ["the "], 1, 0, {}),
    ("nothing to go on from", [""], 1, 0, {}),
    ("temperature", ["the "], (1 << 64) - 1, 0, {"temperature": 0.7}),
    ("greedy", ["the "], 1, 0, {"temperature": 0}),
    ("top-k", ["the "], 2, 0, {"top_k": 4}),
    ("top-p", ["the "], 3, 0, {"top_p": 0.8}),
    ("min-p", ["the "], 4, 0, {"min_p": 0.1}),
    ("all", ["the "], 5, 0, {"temperature": 1.5, "top_k": 10, "top_p": 0.9, "min_p": 0.02}),
    ("rows", ["the ", "abcd", "zz\n."], 6, 0, {}),
    ("draws made before", ["the "], 7, 5, {}),
]


def read() -> list[Case]:
    """The vectors."""
    return list(_file()["cases"])


def hashes() -> dict[str, str]:
    """The SHA-256 that each sampler had when the vectors were written."""
    return dict(_file()["sha256"])


def _file() -> Case:
    return dict(json.loads((FOLDER / "sampler.json").read_text()))


@functools.cache
def rendered(kind: str) -> bytes:
    """A sampler, as it is made today."""
    return as_sampler(read_artifact(ROOT / MODEL), kind == SAMPLER_UNIFORMS).data


@functools.cache
def opened(kind: str) -> "tuple[CharGenerator, InferenceSession]":
    """A sampler's model, and its session."""
    data = rendered(kind)
    return CharGenerator.from_bytes(data), open_session(data, 1)


def written(case: Case, kind: str) -> list[list[int]]:
    """What a sampler gives in a case."""
    model, session = opened(kind)
    prompts = ["".join(map(chr, row)) for row in case["prompt"]]
    hidden = model.engine.zero_hidden(len(prompts))
    options = SamplingOptions(**case["options"], seed=int(case["seed"]))
    length, drawn = case["length"], case["drawn"]
    found = run_sampler(session, prompts, hidden, length, options, drawn)
    return [list(map(ord, text)) for text in found.texts]


def cases() -> list[Case]:
    found = []
    for name, prompts, seed, drawn, given in RUNS:
        options = SamplingOptions(**given)
        names = ("temperature", "top_k", "top_p", "min_p")
        rows = range(len(prompts))
        case: Case = {
            "name": name,
            "model": MODEL,
            "prompt": [list(map(ord, prompt)) for prompt in prompts],
            "seed": str(seed),
            "drawn": drawn,
            "uniforms": [uniform_draws(seed, row, drawn, LENGTH).tolist() for row in rows],
            "length": LENGTH,
            "options": {name: getattr(options, name) for name in names},
        }
        code_points = written(case, SAMPLER)
        assert written(case, SAMPLER_UNIFORMS) == code_points, name
        found.append(case | {"code_points": code_points})
    return found


def main() -> None:
    """Write the vectors."""
    about = {
        "about": "a sampler gives `code_points` for these inputs and a hidden state of zeros; "
        "`uniforms` are what the seed draws, for the one that is handed them. "
        f"train-export convert {MODEL} --sampler makes the one, with --uniforms the other; "
        "`sha256` are their hashes",
        "by": "python -m tests.tools.golden",
        "sha256": {kind: hashlib.sha256(rendered(kind)).hexdigest() for kind in KINDS},
    }
    lines = ",\n".join(json.dumps(case) for case in cases())
    start = json.dumps(about).removesuffix("}")
    (FOLDER / "sampler.json").write_text(f'{start}, "cases": [\n{lines}\n]}}\n')

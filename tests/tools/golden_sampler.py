"""Samplers in `tests/golden/`: two small files, and what their runs give.

`python -m tests.tools.golden` writes them with the other vectors.
"""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chargen_ort import CharGenerator, SamplingOptions, read_artifact
from chargen_ort.samplers import as_sampler, run_sampler
from chargen_ort.sampling import uniform_draws
from chargen_ort.sessions import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Case = dict[str, Any]  # a line of JSON
ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tests/golden"
LENGTH = 40
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
    return list(json.loads((FOLDER / "sampler.json").read_text())["cases"])


@functools.cache
def opened(path: str) -> "tuple[CharGenerator, InferenceSession]":
    """A sampler's model, and its session."""
    data = (ROOT / path).read_bytes()
    return CharGenerator.from_bytes(data), open_session(data, 1)


def written(case: Case) -> list[list[int]]:
    """What the sampler of a case gives."""
    model, session = opened(case["model"])
    prompts = ["".join(map(chr, row)) for row in case["prompt"]]
    hidden = model.engine.zero_hidden(len(prompts))
    options = SamplingOptions(**case["options"], seed=int(case["seed"]))
    length, drawn = case["length"], case["drawn"]
    found = run_sampler(session, prompts, hidden, length, options, drawn)
    return [list(map(ord, text)) for text in found.texts]


def cases() -> list[Case]:
    found = []
    for kind in ("sampler", "sampler-uniforms"):
        for name, prompts, seed, drawn, given in RUNS:
            options = SamplingOptions(**given)
            names = ("temperature", "top_k", "top_p", "min_p")
            case: Case = {
                "name": f"{kind}, {name}",
                "model": f"tests/golden/fp16.{kind}.onnx",
                "prompt": [list(map(ord, prompt)) for prompt in prompts],
                "seed": str(seed),
                "drawn": drawn,
                "length": LENGTH,
                "options": {name: getattr(options, name) for name in names},
            }
            if kind == "sampler-uniforms":
                rows = range(len(prompts))
                draws = [uniform_draws(seed, row, drawn, LENGTH).tolist() for row in rows]
                case["uniforms"] = draws
            found.append(case | {"code_points": written(case)})
    return found


def main() -> None:
    """Write the files and their vectors."""
    model = read_artifact(FOLDER / "fp16.onnx")
    for uniforms in (False, True):
        made = as_sampler(model, uniforms)
        (FOLDER / f"fp16.{made.graph}.onnx").write_bytes(made.data)
    about = {
        "about": "a sampler gives `code_points` for these inputs and a hidden state of zeros; "
        "`uniforms` are what the seed draws, for the file that is handed them",
        "by": "python -m tests.tools.golden",
    }
    lines = ",\n".join(json.dumps(case) for case in cases())
    start = json.dumps(about).removesuffix("}")
    (FOLDER / "sampler.json").write_text(f'{start}, "cases": [\n{lines}\n]}}\n')

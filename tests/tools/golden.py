"""Writes tests/golden/, the vectors that an implementation in any language replays.

    python -m tests.tools.golden

The vectors follow from the model in the wheel, from small models of each precision, which are
written too, and from the cases below. `tests/test_golden.py` replays them.
"""

import base64
import functools
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import chargen_ort
from chargen_ort import CharGenerator, SamplingOptions, Score
from chargen_ort.form import Form, render
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Sizes, Tensor
from chargen_ort.models import DEMO_MODEL
from chargen_ort.options import SEED_LIMIT
from chargen_ort.sampling import Sampler, uniform_draws
from tests.hostile.build import of_precision
from tests.hostile.cases import CASES
from tests.hostile.worker import attempt
from tests.tools import golden_sampler, golden_units
from tests.tools.margins import NEAR, nearest
from tests.tools.rules import drawn_by_hand, kept_by_hand

Case = dict[str, Any]  # a line of JSON
ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tests/golden"
DEMO = str(DEMO_MODEL.relative_to(ROOT))
SMALL = {precision: f"tests/golden/{precision}.onnx" for precision in VARIANTS}

TOLERANCE = 1e-5  # of logits and log probabilities between machines, which differ by about 1e-6
DIGITS = 12  # of probabilities and their logarithms
REASON = 60  # characters


@functools.cache
def open_model(path: str) -> CharGenerator:
    """The model at a path from the root of the repository."""
    return chargen_ort.load(ROOT / path)


def read(name: str) -> Case:
    """A file of vectors."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


# Draws

KEYS = [(0, 0), (7, 0), (7, 3), (123456789, 1 << 63), (SEED_LIMIT - 1, SEED_LIMIT - 1)]
PLACES = [(0, 6), (127, 3), (1_000_001, 2)]  # the first draw, and how many


def philox() -> list[Case]:
    return [
        {"seed": str(seed), "row": str(row), "first": first, "bits": [int(u * 2**53) for u in us]}
        for seed, row in KEYS
        for first, count in PLACES
        for us in [uniform_draws(seed, row, first, count)]
    ]


# Processors: logits are multiples of 1/64, so that float32 and text hold them exactly

LOGITS = [2.5, -1.25, 0.484375, 1.75, -3.0, 0.015625, 1.734375, -0.5]
TIES = [1.5, 0.25, 1.5, -2.0, 0.25, 1.5, 0.25, -2.0]
NEGATIVE = [-0.5, -1.0, -0.25, -4.0, -0.75, -2.0, -0.25, -1.5]
EVEN = [0.0] * 8
ALL = {"temperature": 0.75, "top_k": 6, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.1}
PROCESSORS: list[tuple[str, list[float], Mapping[str, Any], Sequence[int]]] = [
    ("plain", LOGITS, {}, ()),
    ("plain, all alike", EVEN, {}, ()),
    ("temperature below 1", LOGITS, {"temperature": 0.5}, ()),
    ("temperature above 1", LOGITS, {"temperature": 2.5}, ()),
    ("the smallest temperature", LOGITS, {"temperature": 1e-6}, ()),
    ("greedy", LOGITS, {"temperature": 0}, ()),
    ("greedy, ties", TIES, {"temperature": 0}, ()),
    ("greedy, penalty breaks a tie", TIES, {"temperature": 0, "repetition_penalty": 1.5}, (0, 5)),
    ("penalty", LOGITS, {"repetition_penalty": 1.5}, (0, 1, 3)),
    ("penalty of negative logits", NEGATIVE, {"repetition_penalty": 1.5}, (0, 2)),
    ("penalty below 1", LOGITS, {"repetition_penalty": 0.5}, (0, 4, 5)),
    ("top-k", LOGITS, {"top_k": 3}, ()),
    ("top-k of 1", LOGITS, {"top_k": 1}, ()),
    ("top-k, ties with the k-th", TIES, {"top_k": 4}, ()),
    ("top-k of more than there are", LOGITS, {"top_k": 9}, ()),
    ("top-p", LOGITS, {"top_p": 0.75}, ()),
    ("top-p of almost nothing", LOGITS, {"top_p": 1e-9}, ()),
    ("top-p, half is enough, ties rank by index", EVEN, {"top_p": 0.5}, ()),
    ("min-p", LOGITS, {"min_p": 0.125}, ()),
    ("min-p of 1, ties", TIES, {"min_p": 1}, ()),
    ("top-p of what top-k left", LOGITS, {"top_k": 3, "top_p": 0.7}, ()),
    ("min-p after top-p", LOGITS, {"top_p": 0.95, "min_p": 0.4}, ()),
    ("temperature before top-p", LOGITS, {"temperature": 3, "top_p": 0.75}, ()),
    ("all in their order", LOGITS, ALL, (0, 4, 6)),
]
DRAWS = 8


def draws(case: Case) -> list[int]:
    """The token of each draw of a case, each as if it came after `seen`."""
    options = SamplingOptions(**case["options"], seed=int(case["seed"]))
    tokens = []
    for drawn in range(len(case["tokens"])):
        sampler = Sampler(options, len(case["logits"]))
        sampler.start_row(0, int(case["row"]), drawn)
        sampler.see(0, np.array(case["seen"], dtype=np.int64))
        tokens.append(int(sampler.sample(np.array([case["logits"]], dtype=np.float32))[0]))
    return tokens


def sampling() -> list[Case]:
    cases = []
    for place, (name, logits, given, seen) in enumerate(PROCESSORS):
        options = SamplingOptions(**given)
        weights, _ = kept_by_hand(logits, seen, options)
        us = uniform_draws(place, 3, 0, DRAWS)
        total = sum(weights.values())
        case = {
            "name": name,
            "options": options.to_json(),
            "seen": list(seen),
            "logits": logits,
            "kept": list(weights),
            "probabilities": [round(weight / total, DIGITS) for weight in weights.values()],
            "seed": str(place),
            "row": "3",
            "tokens": [drawn_by_hand(weights, u)[0] for u in us],
        }
        assert min(drawn_by_hand(weights, u)[1] for u in us) > NEAR, name
        assert draws(case) == case["tokens"], name
        cases.append(case)
    return cases


# Models

PROMPTS = {
    DEMO: ["", "h", "hello", "hello world ", "dlrow olleh " * 12],
    **{path: ["", "a", "the quick brown fox.\njumps ", "z" * 100] for path in SMALL.values()},
}


def tolerance_of(model: str) -> float:
    precision = open_model(model).config.precision
    return VARIANTS[precision].tolerance.vectors if precision == "int8" else TOLERANCE


def logits() -> list[Case]:
    return [
        {
            "model": model,
            "text": text,
            "tolerance": tolerance_of(model),
            # the shortest decimals that give the same float32 again
            "logits": [float(str(x)) for x in open_model(model).state(text).logits()],
        }
        for model, texts in PROMPTS.items()
        for text in texts
    ]


# model, start, length, seed, row, options; none of int8, whose logits differ more elsewhere
TEXTS: list[tuple[str, str, int, int, int, Mapping[str, Any]]] = [
    (DEMO, "hell", 80, 7, 0, {}),
    (DEMO, "", 80, 7, 0, {}),
    (DEMO, "hell", 80, 7, 5, {"temperature": 1.5}),
    (DEMO, "hell", 80, SEED_LIMIT - 1, SEED_LIMIT - 1, {"temperature": 3}),
    (DEMO, "hell", 40, 7, 0, {"temperature": 0}),
    (DEMO, "hell", 80, 7, 0, {"temperature": 4}),
    (DEMO, "hell", 80, 7, 0, {"temperature": 4, "top_k": 3}),
    (DEMO, "hell", 80, 7, 0, {"temperature": 4, "top_p": 0.9}),
    (DEMO, "hell", 80, 7, 0, {"temperature": 4, "min_p": 0.05}),
    (DEMO, "hell", 80, 7, 0, {"temperature": 2, "repetition_penalty": 2}),
    (DEMO, "hell", 40, 7, 0, {"temperature": 0, "repetition_penalty": 100}),
    (DEMO, "hell", 80, 7, 0, {**ALL, "temperature": 4}),
    (DEMO, "hell", 80, 7, 0, {"temperature": 4, "stop": ["wor", "d h"]}),
    (SMALL["fp32"], "the ", 80, 1, 0, {}),
    (SMALL["fp32"], "", 60, 1, 0, {"temperature": 0}),
    (SMALL["fp32"], "the ", 80, 1, 2, ALL),
    (SMALL["fp16"], "the ", 80, 1, 0, {}),
]


def texts() -> list[Case]:
    cases = []
    for path, start, length, seed, row, given in [*TEXTS, *golden_units.TEXTS]:
        model = open_model(path)
        options = model.options(seed=seed, **given)
        stream = model.stream(start, length, options=options, row=row)
        text = "".join(stream)
        held = max(map(len, options.stops)) if stream.ended == "stop" else 0
        whole = model.generate(start, len(text) + held, options=options, row=row, stop=())
        cases.append(
            {
                "model": path,
                "start": start,
                "length": length,
                "options": options.to_json(),
                "seed": str(seed),
                "row": str(row),
                "text": text,
                "ended": stream.ended,
                **nearest(model, start, whole, row, options, stream.ended == "end"),
            }
        )
    return cases


# model, start, draws before the snapshot, options
SNAPSHOTS: list[tuple[str, str, int, Mapping[str, Any]]] = [
    (DEMO, "hell", 0, {"temperature": 1.5}),
    (DEMO, "hell", 130, {"temperature": 1.5, "repetition_penalty": 1.25}),
    (SMALL["fp32"], "the ", 5, ALL),
]
CONTINUED = 40


def snapshots() -> list[Case]:
    cases = []
    for path, start, count, given in [*SNAPSHOTS, *golden_units.SNAPSHOTS]:
        model = open_model(path)
        options = model.options(seed=11, **given)
        state = model.state(start, options=options, row=2)
        before = [state.draw() for _ in range(count)]
        assert all(before), "it ended before the snapshot"
        snapshot = state.snapshot()
        stream = model.resume(state, CONTINUED)
        text = "".join(stream)
        whole = "".join(before) + text
        margins = nearest(model, start, whole, 2, options, stream.ended == "end")
        cases.append(
            {
                "model": path,
                "snapshot": base64.b64encode(snapshot).decode(),
                "length": len(text),
                "text": text,
                "margin": margins["margin"],
                "near": [place - count for place in margins["near"]],
            }
        )
    return cases


# model, call, arguments
SCORES: list[tuple[str, str, Case]] = [
    (DEMO, "score", {"text": "hello world hello world"}),
    (DEMO, "score", {"text": "hello world hello world", "window": 5}),
    (DEMO, "score", {"text": "hello, world!", "unknown": "skip"}),
    (DEMO, "score", {"text": "hello, world!", "unknown": "replace"}),
    (DEMO, "score_batch", {"texts": ["h", "hello", "world hello"]}),
    (SMALL["fp32"], "score", {"text": "the quick brown fox."}),
    (SMALL["fp32"], "score_batch", {"texts": ["the fox.", ""], "end": True}),
    (SMALL["fp16"], "score", {"text": "the quick brown fox."}),
    (SMALL["int8"], "score", {"text": "the quick brown fox."}),
]


def rounded(score: Score) -> list[float]:
    return [round(number, DIGITS) for number in score.log_probabilities.tolist()]


def scores() -> list[Case]:
    cases = []
    for model, call, arguments in [*SCORES, *golden_units.SCORES]:
        found = getattr(open_model(model), call)(**arguments)
        cases.append(
            {
                "model": model,
                "call": call,
                "arguments": arguments,
                "tolerance": tolerance_of(model),
                "scores": [
                    {"log_probabilities": rounded(score), "unknown": score.unknown}
                    for score in (found if call == "score_batch" else [found])
                ],
            }
        )
    return cases


def following() -> list[Case]:
    cases = []
    for path, text in golden_units.NEXT:
        found = open_model(path).next_probabilities(text, golden_units.MOST)
        likely = [[character, round(p, DIGITS)] for character, p in found.items()]
        pairs = itertools.pairwise(found.values())
        assert min(before - after for before, after in pairs) > NEAR, (path, text)
        cases.append({"model": path, "text": text, "tolerance": TOLERANCE, "next": likely})
    return cases


# Files

SIZES = [Sizes(8, 16, 64, 1), Sizes(29, 8, 16, 2), Sizes(200, 3, 130, 3)]


def parts_of(form: Form) -> list[Case]:
    """Literals by their hashes and holes by their names, in the order of a file."""
    parts: list[Case] = []
    at = 0
    for part in form.parts:
        if isinstance(part, Tensor):
            size = part.nbytes
            parts.append({"at": at, "hole": part.name, "type": part.kind, "shape": [*part.shape]})
        else:
            size = len(part)
            parts.append({"at": at, "bytes": size, "sha256": hashlib.sha256(part).hexdigest()})
        at += size
    return parts


def forms() -> list[Case]:
    return [
        {
            "precision": precision,
            "sizes": vars(sizes),
            "parts": parts_of(render(variant.graph(sizes))),
        }
        for precision, variant in VARIANTS.items()
        for sizes in SIZES
    ]


def reason(message: str, folder: Path) -> str:
    """The start of a refusal, without the file's path, offsets, cures, and words of a library."""
    told = re.sub(rf"^{re.escape(str(folder))}/\S*: | at byte \d+", "", message)
    told = re.split(r"; |(?<=is not JSON): |(?<=cannot read) ", told)[0]
    return told.replace(str(folder), "…")[:REASON]


def hostile() -> list[Case]:
    cases = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            outcome, message = attempt(str(case.make(Path(name))))
            assert outcome == "refused", case.name
            cases.append({"name": case.name, "reason": reason(message, Path(name))})
    return cases


MARGINS = (
    "`margin` is how near a decision came to another one, in logits or probability; the draws in "
    f"`near`, counted from 0, came nearer than {NEAR}, and another machine may draw otherwise there"
)
FILES: Mapping[str, tuple[Callable[[], list[Case]], str]] = {
    "philox": (philox, "draws `first`, `first` + 1, … of a seed and row are `bits` / 2**53"),
    "sampling": (
        sampling,
        "from `logits` after tokens `seen`, `options` keep these tokens with these probabilities; "
        "draw t of the seed and row gives token t of `tokens`, each as if it were the next draw",
    ),
    "logits": (logits, "what a model gives after a text; an empty text is the separator"),
    "texts": (texts, f"what a model writes after `start`; {MARGINS}"),
    "snapshots": (snapshots, f"what is written on from a snapshot, in base64; {MARGINS}"),
    "scores": (scores, "log probabilities in nats, token by token"),
    "next": (following, "the likeliest next characters after a text; an empty one is its end"),
    "forms": (
        forms,
        "a file of these sizes before its metadata: literal bytes from an offset, and holes for "
        "weights, with their type in ONNX's TensorProto.DataType and their shape",
    ),
    "hostile": (hostile, "why a file of tests/hostile is refused: the start of the message"),
}


def write(name: str) -> None:
    """Write one file of vectors, a case a line."""
    cases, about = FILES[name]
    lines = ",\n".join(json.dumps(case) for case in cases())
    start = json.dumps({"about": about, "by": "python -m tests.tools.golden"}).removesuffix("}")
    (FOLDER / f"{name}.json").write_text(f'{start}, "cases": [\n{lines}\n]}}\n')


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for precision, path in SMALL.items():
        (ROOT / path).write_bytes(of_precision(precision, scale=0.75))
    for path in golden_units.MODELS:
        (ROOT / path).write_bytes(golden_units.model_bytes(path))
    for name in FILES:
        write(name)
    golden_sampler.main()


if __name__ == "__main__":
    main()

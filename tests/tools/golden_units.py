"""Small models of bytes, words and pieces in `tests/golden/`, and the cases of their vectors.

`python -m tests.tools.golden` writes them with the others. Those of documents end their texts.
"""

from collections.abc import Mapping
from typing import Any

from tests.hostile.build import of_precision
from tests.tools.units import bpe, byte, word

UNITS = {"byte": byte, "word": word, "bpe": bpe}
# path from the root of the repository: unit, and whether of documents
MODELS = {
    f"tests/golden/{unit}{'-documents' if end else ''}.onnx": (unit, end)
    for unit in UNITS
    for end in (False, True)
}
BYTE, BYTE_DOCUMENTS, *PIECES = MODELS
WORD, WORD_DOCUMENTS, BPE, BPE_DOCUMENTS = PIECES
ALL = {"temperature": 0.75, "top_k": 6, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.1}

STOPPED = {"temperature": 2, "top_p": 0.9, "min_p": 0.01, "stop": ["st", "e."]}
PENALTY = {"temperature": 0.7, "repetition_penalty": 1.3}
# model, start, length, seed, row, options; the seeds are of texts that come near no boundary
TEXTS: list[tuple[str, str, int, int, int, Mapping[str, Any]]] = [
    (BYTE, "thé 😀", 40, 1, 0, {"temperature": 0.5}),
    (BYTE, "", 20, 1, 0, {"temperature": 0}),
    (BYTE, "the ", 40, 2, 3, ALL),
    (BYTE_DOCUMENTS, "é", 40, 6, 0, {}),
    (BYTE_DOCUMENTS, "", 60, 14, 0, {"temperature": 4}),
    *[(model, "the oth", 40, 1, 1, {}) for model in PIECES],
    *[(model, "the other ", 40, 1, 1, PENALTY) for model in PIECES],
    *[(model, "", 20, 2, 1, {"temperature": 0}) for model in (WORD, BPE)],
    (WORD, ".\n  th", 40, 0, 1, STOPPED),
    (WORD_DOCUMENTS, ".\n  th", 40, 27, 1, STOPPED),
    (BPE, ".\n  th", 40, 27, 1, STOPPED),
    (BPE_DOCUMENTS, ".\n  th", 40, 20, 1, STOPPED),
]

# model, start, draws before the snapshot, options
SNAPSHOTS: list[tuple[str, str, int, Mapping[str, Any]]] = [
    (BYTE, "thé", 3, {"repetition_penalty": 1.25}),
    (WORD, "the oth", 0, {}),
    (WORD_DOCUMENTS, "the other", 1, {}),
    (BPE, "the oth", 4, ALL),
    (BPE_DOCUMENTS, "", 3, {}),
]

# model, call, arguments
SCORES: list[tuple[str, str, Mapping[str, Any]]] = [
    (BYTE, "score", {"text": "thé 😀"}),
    (BYTE_DOCUMENTS, "score_batch", {"texts": ["é", ""], "end": True}),
    *[(model, "score", {"text": "the other  rest"}) for model in (WORD, BPE, BPE_DOCUMENTS)],
    (WORD, "score", {"text": "the otherz", "unknown": "replace"}),
    (WORD_DOCUMENTS, "score_batch", {"texts": ["the other rest.\n", "he"], "end": True}),
]

NEXT = [
    *[(model, text) for model in (BYTE, BYTE_DOCUMENTS) for text in ("", "thé")],
    *[(model, text) for model in PIECES for text in ("", "the oth", "rest.")],
]
MOST = 6  # of the next characters


def model_bytes(path: str) -> bytes:
    """The model of a path: words in fp32, the others in fp16."""
    unit, end = MODELS[path]
    precision = "fp32" if unit == "word" else "fp16"
    return of_precision(precision, 1, 1.5, 2, 8, vocabulary=UNITS[unit](end=end))

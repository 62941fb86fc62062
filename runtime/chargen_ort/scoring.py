"""How likely the model finds a text."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import OptionError
from chargen_ort.step import run_steps
from chargen_ort.vocabulary import UnknownPolicy

if TYPE_CHECKING:
    from chargen_ort.generator import CharGenerator

_LOGITS_AT_ONCE = 1 << 20  # numbers in one call's logits: 4 MB, whatever the vocabulary
_ROWS = 64  # windows scored side by side


@dataclass(frozen=True)
class Score:
    """Log probabilities of a text.

    Attributes:
        log_probabilities: nats, one for each scored character, float64 ``[characters]``.
    """

    log_probabilities: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.log_probabilities)

    @property
    def total(self) -> float:
        """Log probability of all scored characters together, nats (0 or less)."""
        return math.fsum(self.log_probabilities)

    @property
    def nats_per_char(self) -> float:
        """Mean negative log probability, nats: the loss of training."""
        return -self.total / len(self)

    @property
    def bits_per_char(self) -> float:
        """The same in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """Exp of `nats_per_char`: between so many characters the model hesitates on average."""
        return math.exp(self.nats_per_char)


def score_windows(
    generator: "CharGenerator", tokens: NDArray[np.int64], window: int | None
) -> Score:
    """Score tokens ``[characters]``: each but the first, from a zero state every `window`."""
    if len(tokens) < 2:
        raise OptionError(f"the text has {len(tokens)} known characters; a score needs at least 2")
    inputs, targets = tokens[:-1], tokens[1:]
    window = min(window or len(inputs), len(inputs))
    whole = len(inputs) // window * window
    parts = [
        _score_rows(generator, rows, wanted).ravel()
        for begin in range(0, whole, _ROWS * window)
        for rows, wanted in [
            (
                inputs[begin : min(begin + _ROWS * window, whole)].reshape(-1, window),
                targets[begin : min(begin + _ROWS * window, whole)].reshape(-1, window),
            )
        ]
    ]
    if whole < len(inputs):
        parts.append(_score_rows(generator, inputs[None, whole:], targets[None, whole:]).ravel())
    return Score(np.concatenate(parts))


def score_texts(
    generator: "CharGenerator",
    texts: list[str],
    batch_size: int,
    unknown: UnknownPolicy | None,
) -> list[Score]:
    """Score each text from the separator on; texts of like length share a batch."""
    if not texts:
        raise OptionError("texts is empty; give at least one")
    vocabulary = generator.vocabulary
    encoded = [vocabulary.encode(text, unknown) for text in texts]
    for index, tokens in enumerate(encoded):
        if not len(tokens):
            raise OptionError(f"text {index} is empty, or has only skipped characters")
    separator = vocabulary.encode(generator.config.separator)
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    scores: dict[int, Score] = {}
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        longest = len(encoded[rows[-1]])
        targets = np.zeros((len(rows), longest), dtype=np.int64)
        for place, index in enumerate(rows):
            targets[place, : len(encoded[index])] = encoded[index]
        inputs = np.empty_like(targets)
        inputs[:, :1], inputs[:, 1:] = separator, targets[:, :-1]
        scored = _score_rows(generator, inputs, targets)  # [rows, longest]
        for place, index in enumerate(rows):
            scores[index] = Score(scored[place, : len(encoded[index])].copy())
    return [scores[index] for index in range(len(texts))]


def _score_rows(
    generator: "CharGenerator", inputs: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log probability of each target, ``[rows, time]``, rows from a zero state, in pieces."""
    config = generator.config
    rows, time = inputs.shape
    hidden = np.zeros((rows, config.num_layers, config.hidden_size), dtype=np.float32)
    scored = np.empty((rows, time))
    piece = max(1, min(1024, _LOGITS_AT_ONCE // (rows * len(config.vocabulary))))
    for begin in range(0, time, piece):
        part = slice(begin, begin + piece)
        token = np.ascontiguousarray(inputs[:, part])
        logits, hidden = run_steps(generator.session, token, hidden)  # [rows, piece, vocab_size]
        scored[:, part] = _log_probabilities(logits, targets[:, part])
    return scored


def _log_probabilities(
    logits: NDArray[np.float32], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log softmax of the targets: ``[rows, time, vocab_size]`` and ``[rows, time]``."""
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]  # [rows, time]
    maximum = logits.max(axis=-1, keepdims=True)  # [rows, time, 1]
    shifted = np.exp(logits - maximum)
    total = shifted.sum(axis=-1, dtype=np.float64)  # [rows, time]
    return np.asarray(chosen.astype(np.float64) - maximum[..., 0] - np.log(total))

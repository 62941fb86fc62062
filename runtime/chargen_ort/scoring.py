"""How likely the model finds a text."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import OptionError
from chargen_ort.step import run_steps, steps_per_call
from chargen_ort.vocabulary import UnknownPolicy

if TYPE_CHECKING:
    from chargen_ort.generator import CharGenerator

_LOGITS_AT_ONCE = 1 << 20  # numbers in one call's logits: 4 MB, whatever the vocabulary
_ROWS = 64  # windows scored side by side
_PIECE = 1 << 16  # characters of a long text held as tokens at a time


@dataclass(frozen=True)
class Score:
    """Log probability of a text.

    Attributes:
        total: log probability of all scored characters together, nats (0 or less).
        characters: how many were scored, at least one.
        log_probabilities: nats, one for each of them, float64 ``[characters]``; None if not kept.
    """

    total: float
    characters: int
    log_probabilities: NDArray[np.float64] | None = None

    @property
    def nats_per_char(self) -> float:
        """Mean negative log probability, nats: the loss of training."""
        return -self.total / self.characters

    @property
    def bits_per_char(self) -> float:
        """The same in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """Exp of `nats_per_char`: between so many characters the model hesitates on average."""
        return math.exp(self.nats_per_char)


def score_text(
    generator: "CharGenerator",
    text: str,
    window: int | None,
    unknown: UnknownPolicy | None,
    per_character: bool,
) -> Score:
    """Score each character but the first, from a zero state every `window` characters."""
    # pieces hold whole windows, so that each piece begins where a window begins
    size = _PIECE if window is None else window * max(1, min(_ROWS, _PIECE // window))
    pieces = generator.vocabulary.encode_pieces(text, unknown, _PIECE)
    hidden: NDArray[np.float32] | None = None
    totals, characters, kept = [], 0, []
    for tokens in _overlapping(pieces, size):
        if window is None:
            scored, hidden = _score_rows(generator, tokens[None, :-1], tokens[None, 1:], hidden)
        else:
            scored = _score_windows(generator, tokens, window)
        totals.append(float(scored.sum()))
        characters += scored.size
        if per_character:
            kept.append(scored.ravel())
    if not characters:
        raise OptionError("a score needs at least 2 characters that the model knows")
    return Score(math.fsum(totals), characters, np.concatenate(kept) if per_character else None)


def score_texts(
    generator: "CharGenerator",
    texts: list[str],
    batch_size: int,
    unknown: UnknownPolicy | None,
) -> list[Score]:
    """Score each text from the separator on; texts of like length share a batch."""
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
        scored, _ = _score_rows(generator, inputs, targets)  # [rows, longest]
        for place, index in enumerate(rows):
            own = scored[place, : len(encoded[index])].copy()  # what follows is padding
            scores[index] = Score(math.fsum(own), len(own), own)
    return [scores[index] for index in range(len(texts))]


def _overlapping(pieces: Iterable[NDArray[np.int64]], size: int) -> Iterator[NDArray[np.int64]]:
    """`pieces` cut anew: `size` tokens and the first of the next each time, at least two."""
    held = np.zeros(0, dtype=np.int64)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) > size:
            yield held[: size + 1]
            held = held[size:]
    if len(held) > 1:
        yield held


def _score_windows(
    generator: "CharGenerator", tokens: NDArray[np.int64], window: int
) -> NDArray[np.float64]:
    """Log probability of every token but the first, ``[characters]``, windows side by side."""
    inputs, targets = tokens[:-1], tokens[1:]
    whole = len(inputs) // window * window
    parts = [slice(0, whole), slice(whole, len(inputs))]
    widths = [window, len(inputs) - whole]
    return np.concatenate(
        [
            _score_rows(
                generator, inputs[part].reshape(-1, width), targets[part].reshape(-1, width)
            )[0].ravel()
            for part, width in zip(parts, widths, strict=True)
            if len(inputs[part])
        ]
    )


def _score_rows(
    generator: "CharGenerator",
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
    hidden: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Log probability of each target, ``[rows, time]``, and the next hidden; zeros if none came."""
    config = generator.config
    rows, time = inputs.shape
    if hidden is None:
        hidden = np.zeros((rows, config.num_layers, config.hidden_size), dtype=np.float32)
    scored = np.empty((rows, time))
    fitting = max(1, _LOGITS_AT_ONCE // (rows * len(config.vocabulary)))
    piece = min(fitting, steps_per_call(config, rows))
    for begin in range(0, time, piece):
        part = slice(begin, begin + piece)
        token = np.ascontiguousarray(inputs[:, part])
        logits, hidden = run_steps(generator.session, token, hidden)  # [rows, piece, vocab_size]
        scored[:, part] = _log_probabilities(logits, targets[:, part])
    return scored, hidden


def _log_probabilities(
    logits: NDArray[np.float32], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log softmax of the targets: ``[rows, time, vocab_size]`` and ``[rows, time]``."""
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]  # [rows, time]
    maximum = logits.max(axis=-1, keepdims=True)  # [rows, time, 1]
    total = np.exp(logits - maximum).sum(axis=-1, dtype=np.float64)  # [rows, time]
    return np.asarray(chosen.astype(np.float64) - maximum[..., 0] - np.log(total))

"""What may follow a text whose last run was taken back, and the next character of any unit.

A prompt may end inside a word. Its last run is then not read as it stands: what follows is to begin
with it, so that "the wor" may go on as "the world" where " world" is one piece ("token healing",
Lundberg 2023). The tokens that may come are those that go on as the run does; among them the model
draws as always, a draw each, until the run is covered. Every way of writing calls `heal`, so that
the same seed gives the same text.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine
from chargen_ort.options import SamplingOptions
from chargen_ort.rows import score_rows
from chargen_ort.sampling import Sampler
from chargen_ort.vocabulary import UnknownPolicy, Vocabulary

_FOLLOWED = 256  # tokens that are read at most to find the next character …
_LEFT_OUT = 1e-6  # … as long as more probability than this stands behind those not read


@dataclass(frozen=True)
class Healed:
    """Where a text stands once its last run is covered.

    Attributes:
        hidden, logits: after the last token, ``[1, num_layers, hidden_size]`` and ``[vocab_size]``.
        tokens: that were drawn.
        text: what they bring beyond the run.
    """

    hidden: NDArray[np.float32]
    logits: NDArray[np.float32]
    tokens: list[int]
    text: str


def masked(vocabulary: Vocabulary, logits: NDArray[np.float32], rest: str) -> NDArray[np.float32]:
    """Logits ``[vocab_size]``, minus infinity for tokens that do not go on as `rest` does."""
    beyond, within = vocabulary.beginning_with(rest)
    allowed = np.full_like(logits, -np.inf)
    allowed[beyond + within] = logits[beyond + within]
    return allowed


def heal(
    engine: Engine,
    sampler: Sampler,
    hidden: NDArray[np.float32],
    logits: NDArray[np.float32],
    rest: str,
    bias: NDArray[np.float32] | None = None,
) -> Healed:
    """Draw tokens until they cover `rest`, a draw of the sampler's one row each.

    Args:
        engine: the model that is open.
        sampler: of one row, with what it has seen and drawn.
        hidden, logits: before `rest`, ``[1, num_layers, hidden_size]`` and ``[vocab_size]``.
        rest: the run that was taken back, of characters that the model knows.
        bias: what is added to the logits of the tokens, ``[vocab_size]``.
    """
    vocabulary, tokens, text = engine.vocabulary, [], ""
    while rest:
        biased = logits if bias is None else logits + bias
        token = int(sampler.sample(masked(vocabulary, biased, rest)[None])[0])
        tokens.append(token)
        scores, hidden = engine.run_steps(np.array([[token]]), hidden)
        logits = scores[0, -1]  # [vocab_size]
        piece = vocabulary.texts[token]
        text, rest = piece[len(rest) :], rest[len(piece) :]
    return Healed(hidden, logits, tokens, text)


def new_healer(options: SamplingOptions, seed: int, row: int, drawn: int, size: int) -> Sampler:
    """A sampler of one row that has drawn so often, for `heal`."""
    sampler = Sampler(options, size, (row,))
    sampler.seed = seed
    sampler.start_row(0, row, drawn, seed)
    return sampler


@dataclass(frozen=True)
class _Path:
    """Tokens that lead to no next character yet: the state before the last of them, and it."""

    hidden: NDArray[np.float32]
    token: int
    rest: str
    partial: bytes


def next_characters(
    engine: Engine,
    hidden: NDArray[np.float32],
    logits: NDArray[np.float32],
    rest: str = "",
    partial: bytes = b"",
) -> dict[str, float]:
    """The model's probabilities of the next character, likeliest first; the end is the empty text.

    Tokens count for the first character that they bring. Where one brings none yet, as it is the
    beginning of a character, or a part of the run that was taken back, it is read, the likeliest
    first, and what follows it counts: up to 256 of them, or until what is left out comes to a
    millionth. So the probabilities may come to a little less than 1.

    Args:
        engine: the model that is open, of any unit.
        hidden, logits: of the text, ``[1, num_layers, hidden_size]`` and ``[vocab_size]``.
        rest: the run that was taken back, with which what follows is to begin.
        partial: the bytes of a character that has begun.
    """
    found: dict[str, float] = {}
    number = count()  # so that of equal weights the first comes first
    waiting: list[tuple[float, int, _Path]] = []
    weight, followed, left = 1.0, 0, 0.0
    while True:
        scores = masked(engine.vocabulary, logits, rest) if rest else logits
        weights = np.exp(scores.astype(np.float64) - scores.max())  # [vocab_size]
        weights *= weight / weights.sum()
        for token, character, path in _what_follows(engine.vocabulary, hidden, rest, partial):
            part = float(weights[token])
            if path is None:
                found[character] = found.get(character, 0.0) + part
            elif part:
                heapq.heappush(waiting, (-part, next(number), path))
                left += part
        if not waiting or followed == _FOLLOWED or left <= _LEFT_OUT:
            break
        negative, _, path = heapq.heappop(waiting)
        weight, rest, partial = -negative, path.rest, path.partial
        left, followed = left - weight, followed + 1
        logits, hidden = engine.run_steps(np.array([[path.token]]), path.hidden)
        logits = logits[0, -1]  # [vocab_size]
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _what_follows(
    vocabulary: Vocabulary, hidden: NDArray[np.float32], rest: str, partial: bytes
) -> Iterator[tuple[int, str, _Path | None]]:
    """Each token that may come, with the character that it brings, or else the path that it is."""
    if rest:
        beyond, within = vocabulary.beginning_with(rest)
        for token in beyond:
            yield token, vocabulary.texts[token][len(rest)], None
        for token in within:
            left = rest[len(vocabulary.texts[token]) :]
            yield token, "", _Path(hidden, token, left, b"")
        return
    decoder = vocabulary.decoder()
    for token, text in enumerate(vocabulary.texts):
        if not text:
            yield token, "", None
            continue
        decoder.restart(partial)
        brought = decoder.feed((token,))
        if brought:
            yield token, brought[0], None
        else:
            yield token, "", _Path(hidden, token, "", decoder.partial)


def score_healed(
    engine: Engine,
    start: str,
    texts: list[str],
    unknown: UnknownPolicy | None,
    ended: Sequence[bool],
) -> list[float]:
    """Log probability, nats, of each text as what follows `start`, as `heal` would have drawn it.

    See `chargen_ort.scoring.score_continuations`.
    """
    vocabulary = engine.vocabulary
    read, rest = vocabulary.encode_open(start, unknown)
    if engine.config.end or not len(read):
        read = np.append(engine.config.separator_token, read)
    hidden = score_rows(engine, read[None, :-1], read[None, :-1]).hidden if len(read) > 1 else None
    totals = []
    for text, ends in zip(texts, ended or [False] * len(texts), strict=True):
        tokens = vocabulary.encode(rest + text, "error")
        if ends:
            tokens = np.append(tokens, engine.config.separator_token)  # the end token
        total, left, last, state = 0.0, rest, read[-1:], hidden
        while left and len(tokens):  # a step at a time, among those that go on as the run does
            if state is None:
                state = engine.zero_hidden(1)
            logits, state = engine.run_steps(last[None], state)
            allowed = masked(vocabulary, logits[0, -1], left).astype(np.float64)
            total += float(allowed[tokens[0]] - np.logaddexp.reduce(allowed))
            left, last = left[len(vocabulary.texts[tokens[0]]) :], tokens[:1]
            tokens = tokens[1:]
        if len(tokens):
            inputs = np.concatenate([last, tokens[:-1]])
            scored = score_rows(engine, inputs[None], tokens[None], hidden=state)
            total += math.fsum(scored.scores[0])
        totals.append(total if text or ends else 0.0)
    return totals

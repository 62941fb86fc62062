"""How likely the model finds a text.

A character that the model does not know counts as likely as the character that the model finds
least likely at that place. The model then reads on as if the unknown character had been left out,
or, where the policy is ``replace``, as if the replacement stood there.

A model that was trained on documents scores each text as a whole one: after the end token that
stands before it, and with the one that ends it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import instance
from chargen_ort.engine import Engine
from chargen_ort.errors import OptionError
from chargen_ort.healing import score_healed
from chargen_ort.pieces import MAX_RUN
from chargen_ort.rows import LOGITS_AT_ONCE, score_alike, score_rows
from chargen_ort.score import Score
from chargen_ort.score_reader import LINE_END, MANY_ROWS, ScoreReader, score_reader
from chargen_ort.score_windows import WINDOW_ROWS, overlapping, window_rows
from chargen_ort.vocabulary import UnknownPolicy

_SHORT = 256  # characters of texts of which what begins alike is read once
# texts of a stream: the more, the fewer calls read the last characters of a few long ones
_SIDE_BY_SIDE = 1024
_CONTINUATIONS = 64  # of a start, scored side by side
_PIECE = 1 << 16  # characters of a long text held as tokens at a time
_BATCH_AT_ONCE = 1 << 20  # characters, padding included, of the texts that share a batch


def score_text(
    engine: Engine,
    text: str,
    window: int | None,
    unknown: UnknownPolicy | None,
    per_character: bool,
) -> Score:
    """Score each character but the first, from a zero state every `window` characters.

    Of a model of documents, score each character and the end.
    """
    instance("a text", text, str)
    reader = score_reader(engine, unknown, len(text) // window if window else 1, engine.config.end)
    if engine.config.end:
        if window is not None:
            raise OptionError(
                "window is for running text, and this model's texts end; leave it out"
            )
        score = next(_score_batch(reader, [text], reader.separator))
        if per_character:
            return score
        return replace(score, log_probabilities=None, text=None, sizes=None)
    if len(text) < 2:
        raise OptionError(f"a score needs at least 2 characters, got {len(text)}")
    sized = _first_size(reader, text)
    if window is not None and reader.engine.vocabulary.unit != "char":
        window = _window_tokens(reader, text, window)
    # pieces hold whole windows, so that each piece begins where a window begins
    size = _PIECE if window is None else window * max(1, min(WINDOW_ROWS, _PIECE // window))
    pieces = reader.pieces(text, _PIECE)
    if window is None:
        scores = _score_through(reader, pieces)
    else:
        scores = _score_windows(reader, overlapping(pieces, size), window)
    totals, missing, kept = [], 0, []
    tokens = 0
    for scored, unknown_here in scores:
        totals.append(float(scored.sum()))
        missing += unknown_here
        tokens += scored.size
        if per_character:
            kept.append(scored)
    if not tokens:
        raise OptionError(f"a score needs at least 2 tokens, and {len(text)} characters are one")
    by_character, known = engine.vocabulary.unit == "char", engine.calibration
    scored_ones = len(text) - sized
    alike = known is not None and known.window == scored_ones <= (window or scored_ones)
    return Score(
        math.fsum(totals),
        scored_ones,
        np.concatenate(kept) if per_character else None,
        missing,
        text if per_character else None,
        known if alike and by_character else None,
        None if by_character else tokens,
        None if by_character or not per_character else _sizes(reader, text)[1:],
    )


def _first_size(reader: ScoreReader, text: str) -> int:
    """Characters of the first token of a text, which is read and not scored."""
    first = next(reader.characters(text[: 2 * MAX_RUN + 2], _PIECE))[:1]
    return max(1, int(reader.sizes(first)[0])) if len(first) else 1


def _sizes(reader: ScoreReader, text: str) -> NDArray[np.int64]:
    """How many characters each token of a text and its ending is, ``[tokens]``."""
    pieces = [reader.sizes(piece) for piece in reader.pieces(text, _PIECE)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *pieces])


def _window_tokens(reader: ScoreReader, text: str, window: int) -> int:
    """As many tokens of a text as have `window` characters on average."""
    tokens = sum(len(piece) for piece in reader.pieces(text, _PIECE))
    return max(1, round(window * tokens / len(text)))


def iterate_scores(
    engine: Engine,
    texts: Iterable[str],
    batch_size: int,
    unknown: UnknownPolicy | None,
    end: bool,
) -> Iterator[Score]:
    """As `score_texts`, some at a time, and a score never depends on the texts beside it."""
    waiting = iter(texts)
    while some := list(islice(waiting, batch_size)):
        yield from score_texts(engine, some, _SIDE_BY_SIDE, unknown, end, as_rows=True)


def score_texts(
    engine: Engine,
    texts: list[str],
    batch_size: int,
    unknown: UnknownPolicy | None,
    end: bool,
    as_rows: bool = False,
) -> list[Score]:
    """Score each text from the separator on; texts of like length or beginning share a batch.

    With `as_rows` they are read as rows of a batch even where they are few.
    """
    reader = score_reader(engine, unknown, MANY_ROWS if as_rows else len(texts), end)
    for text in texts:
        instance("a text", text, str)
    joined = False
    if engine.vocabulary.has_pieces and reader.ending not in (None, engine.vocabulary.end_token):
        # the line end may be part of the last piece
        texts, reader = [text + LINE_END for text in texts], replace(reader, ending=None)
        joined = True
    for index, text in enumerate(texts):
        if not text and reader.ending is None:
            raise OptionError(f"text {index} is empty; a score needs at least 1 character")
    scores: dict[int, Score] = {}
    for indices in _batches(reader, texts, batch_size):
        rows = [texts[index] for index in indices]
        scored = _score_batch(reader, rows, reader.separator)
        if joined:
            scored = (replace(each, text=(each.text or "")[:-1]) for each in scored)
        scores.update(zip(indices, scored, strict=True))
    return [scores[index] for index in range(len(texts))]


def score_continuations(
    engine: Engine,
    start: str,
    texts: list[str],
    unknown: UnknownPolicy | None,
    ended: Sequence[bool] = (),
) -> list[float]:
    """Log probability, nats, of each text as what follows `start`; 0 for an empty text.

    The texts begin from the separator where `start` is empty, and always where texts have an end.
    `unknown` is the policy for `start`; each character of `texts` must be known. Where `ended` says
    so, the end of a text counts too.

    Of the units word and bpe, `start` is read without its last run, and each text is scored with
    that run before it, less what all that goes on as the run does comes to: as it is written, see
    `chargen_ort.healing`.
    """
    if engine.vocabulary.has_pieces:
        return score_healed(engine, start, texts, unknown, ended)
    read = engine.vocabulary.encode(start, unknown)
    if engine.config.end or not len(read):
        read = np.append(engine.config.separator_token, read)
    hidden = score_rows(engine, read[None, :-1], read[None, :-1]).hidden
    totals = [0.0] * len(texts)
    ends = ended or [False] * len(texts)
    for end in (False, True):
        reader = score_reader(engine, "error", len(texts), end)
        places = [i for i, text in enumerate(texts) if ends[i] == end and (text or end)]
        for batch in _batches(reader, [texts[place] for place in places], _CONTINUATIONS):
            indices = [places[place] for place in batch]
            rows = [texts[index] for index in indices]
            scores = _score_batch(reader, rows, int(read[-1]), hidden)
            for index, score in zip(indices, scores, strict=True):
                totals[index] = score.total
    return totals


def _batches(reader: ScoreReader, texts: list[str], batch_size: int) -> Iterator[list[int]]:
    """Indices of texts that are scored side by side.

    They are of like length, and have not too much padding; or, where what begins alike is read
    once, they are short ones in alphabetical order, as `score_alike` wants them.
    """
    sizes = [reader.most_tokens(text) for text in texts]
    indices = range(len(texts))
    short = [i for i in indices if sizes[i] <= _SHORT] if reader.side_by_side else []
    long = [i for i in indices if sizes[i] > _SHORT] if reader.side_by_side else indices
    order = sorted(short, key=texts.__getitem__) + sorted(long, key=sizes.__getitem__)
    batch: list[int] = []
    longest = 0
    batch_size = min(batch_size, max(MANY_ROWS, LOGITS_AT_ONCE // len(reader.engine.vocabulary)))
    for index in order:
        longest = max(longest, sizes[index])
        full = (len(batch) + 1) * longest > _BATCH_AT_ONCE
        if batch and (full or len(batch) == batch_size):
            yield batch
            batch, longest = [], sizes[index]
        batch.append(index)
    if batch:
        yield batch


def _score_batch(
    reader: ScoreReader, texts: list[str], first: int, hidden: NDArray[np.float32] | None = None
) -> Iterator[Score]:
    """A score for each text, every character included, where `first` is read before it.

    `hidden` ``[1, num_layers, hidden_size]`` is the state before `first`; None is zeros.
    """
    if len(texts) == 1:  # it may be long
        pieces = reader.pieces(texts[0], _PIECE)
        parts = list(_score_through(reader, pieces, np.array([first]), hidden))
        own = np.concatenate([scored for scored, _ in parts])
        missing_here = sum(missing for _, missing in parts)
        sizes = None if reader.by_character else _sizes(reader, texts[0])
        yield reader.scored(texts[0], own, missing_here, sizes)
        return
    rows, counts = _padded(reader, texts)  # [texts, longest], [texts]
    lengths = None
    if reader.side_by_side and rows.shape[1] <= _SHORT:
        lengths = counts
    elif hidden is not None:
        hidden = np.repeat(hidden, len(texts), axis=0)
    scored, _ = _score_after(reader, np.full(len(rows), first), rows, hidden, lengths)
    missing = np.count_nonzero(rows < 0, axis=1).tolist()
    for at, (text, unknown) in enumerate(zip(texts, missing, strict=True)):
        size = counts[at]
        row_sizes = None if reader.by_character else reader.sizes(rows[at, :size])
        yield reader.scored(text, scored[at, :size].copy(), unknown, row_sizes)


def _padded(reader: ScoreReader, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Tokens of texts and their endings, ``[texts, longest]``; token 0 after the end of a text.

    The second result is how many there are of each, ``[texts]``.
    """
    for text in texts if reader.policy == "error" else ():
        reader.engine.vocabulary.encode(text, "error")  # whose message counts from its beginning
    lengths = np.array([len(text) for text in texts])
    if reader.engine.vocabulary.unit == "char":
        tokens = [*reader.characters("".join(texts), _PIECE)]
    else:  # each text by itself: no piece goes from one into the next
        nothing = np.zeros(0, dtype=np.int32)
        tokens = [np.concatenate([nothing, *reader.characters(t, _PIECE)]) for t in texts]
        lengths = np.array([len(each) for each in tokens])
    longest = int(lengths.max()) + (reader.ending is not None)
    padded = np.zeros((len(texts), longest), dtype=np.int32)
    within = np.arange(longest) < lengths[:, None]  # [texts, longest]
    padded[within] = np.concatenate([padded[0, :0], *tokens])
    if reader.ending is None:
        return padded, lengths
    padded[np.arange(len(texts)), lengths] = reader.ending
    return padded, lengths + 1


def _score_through(
    reader: ScoreReader,
    pieces: Iterable[NDArray[np.int32]],
    last: NDArray[np.int64] | None = None,
    hidden: NDArray[np.float32] | None = None,
) -> Iterator[tuple[NDArray[np.float64], int]]:
    """Log probability of every token, and how many are unknown, piece by piece.

    `last` ``[1]`` is read before them; None takes the first token instead, which is then not
    scored. `hidden` is the state before `last`. It is carried from piece to piece, and the last
    token read of a piece is fed again with the next piece.
    """
    for piece in pieces:
        tokens = piece
        if last is None:
            last, tokens = _readable(reader, piece[:1]), piece[1:]
        cut = len(tokens)
        if reader.stand_in is None:  # what is left out at the end must not move the state
            cut = int(np.flatnonzero(tokens >= 0).max(initial=-1)) + 1
        read, left_out = tokens[:cut], tokens[cut:]
        if len(read):
            scored, hidden = _score_after(reader, last, read[None], hidden)
            last = _readable(reader, read[-1:])
            yield scored[0], _unknown_in(read)
        if len(left_out):
            scored, _ = _score_after(reader, last, left_out[None], hidden)
            yield scored[0], len(left_out)


def _score_windows(
    reader: ScoreReader, pieces: Iterable[NDArray[np.int32]], window: int
) -> Iterator[tuple[NDArray[np.float64], int]]:
    """As `_score_through`, from a zero state each `window` characters, windows side by side."""
    for tokens in pieces:
        for before, rows in window_rows(tokens, window):
            scored, _ = _score_after(reader, _readable(reader, before[:, 0]), rows)
            yield scored.ravel(), _unknown_in(rows)


def _unknown_in(tokens: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(tokens < 0))


def _readable(reader: ScoreReader, tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    """What is read first where `tokens` begin texts or windows: no -1 any more."""
    stand_in = reader.separator if reader.stand_in is None else reader.stand_in
    return np.where(tokens < 0, stand_in, tokens).astype(np.int64)


def _score_after(
    reader: ScoreReader,
    first: NDArray[np.int64],
    following: NDArray[np.int32],
    hidden: NDArray[np.float32] | None = None,
    lengths: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Log probability of each of `following` ``[rows, time]``, read after `first` ``[rows]``.

    A token of -1 is an unknown character. With `lengths` ``[rows]``, how much of each row counts,
    what begins alike is read once, and `hidden` is of all rows.

    Returns:
        the log probabilities, nats, ``[rows, time]``, and the hidden before the last token read.
    """
    known = following >= 0
    all_known = bool(known.all())
    step: NDArray[np.int64] | None = None
    if all_known:
        targets = following.astype(np.int64)
    elif reader.stand_in is not None:
        targets = np.where(known, following, reader.stand_in).astype(np.int64)
    else:
        # each character is due at the step that is how many were read before it
        step = np.cumsum(known, axis=1) - known  # [rows, time]
        targets = np.zeros((len(following), int(step.max()) + 1), dtype=np.int64)
        row, place = np.nonzero(known)
        targets[row, step[row, place]] = following[row, place]
    inputs = np.concatenate([first[:, None], targets[:, :-1]], axis=1)
    engine = reader.engine
    if lengths is None:
        aside = reader.side_by_side
        result = score_rows(engine, inputs, targets, not all_known, hidden, side_by_side=aside)
    else:
        if step is not None:
            lengths = step[np.arange(len(step)), lengths - 1] + 1
        hidden = engine.zero_hidden(1) if hidden is None else hidden
        result = score_alike(engine, inputs, targets, lengths, not all_known, hidden)
    scores, floors = result.scores, result.floors
    if step is not None:
        scores = np.take_along_axis(scores, step, axis=1)
        floors = np.take_along_axis(floors, step, axis=1)
    return np.where(known, scores, floors), result.hidden

"""A pass over rows of tokens, side by side: how likely the model finds what follows each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine

LOGITS_AT_ONCE = 1 << 20  # numbers in one call's logits: 4 MB, whatever the vocabulary


@dataclass(frozen=True)
class ScoredRows:
    """What a pass over rows of tokens gives; what was not wanted is zeros ``[1, 1]``.

    Attributes:
        scores: log probability of each target, nats, ``[rows, time]``.
        floors: that of the least likely token at each place, nats, ``[rows, time]``.
        best: the likeliest token at each place, ``[rows, time]``.
        hidden: the state after the last input, ``[rows, num_layers, hidden_size]``.
    """

    scores: NDArray[np.float64]
    floors: NDArray[np.float64]
    best: NDArray[np.int64]
    hidden: NDArray[np.float32]


def score_rows(
    engine: Engine,
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
    with_floors: bool = False,
    hidden: NDArray[np.float32] | None = None,
    with_best: bool = False,
    side_by_side: bool = False,
) -> ScoredRows:
    """Read rows of tokens side by side and score what should follow each.

    Args:
        engine: the model that is open.
        inputs: tokens that are read, ``[rows, time]``.
        targets: the token to be predicted after each, ``[rows, time]``.
        with_floors, with_best: whether those are wanted.
        hidden: the state before, ``[rows, num_layers, hidden_size]``; None is zeros.
        side_by_side: read as is sooner for many rows, see `Engine.run_rows`.

    Raises:
        ArtifactError: ONNX Runtime does not run the model.
    """
    rows, time = inputs.shape
    if hidden is None:
        hidden = engine.zero_hidden(rows)
    scores, floors = np.empty((rows, time)), np.zeros((rows, time) if with_floors else (1, 1))
    best = np.zeros((rows, time) if with_best else (1, 1), dtype=np.int64)
    fitting = max(1, LOGITS_AT_ONCE // (rows * len(engine.vocabulary)))
    piece = min(fitting, engine.steps_per_call(rows))
    run = engine.run_rows if side_by_side else engine.run_steps
    for begin in range(0, time, piece):
        part = slice(begin, begin + piece)
        token = np.ascontiguousarray(inputs[:, part])
        logits, hidden = run(token, hidden)  # [rows, piece, vocab_size]
        normaliser = _log_sum_exp(logits)  # [rows, piece]
        chosen = np.take_along_axis(logits, targets[:, part, None], axis=-1)[..., 0]
        scores[:, part] = chosen.astype(np.float64) - normaliser
        if with_floors:
            floors[:, part] = logits.min(axis=-1).astype(np.float64) - normaliser
        if with_best:
            best[:, part] = logits.argmax(axis=-1)
    return ScoredRows(scores, floors, best, hidden)


def score_alike(
    engine: Engine,
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    with_floors: bool,
    hidden: NDArray[np.float32],
) -> ScoredRows:
    """As `score_rows` side by side, for rows that may begin alike: what a row begins with as the
    one above it does is read once.

    So rows that begin alike should stand together; in another order they are only read more often.

    Args:
        engine, inputs, targets, with_floors: as there.
        lengths: how many steps of each row count, ``[rows]``, at least one; the others give zeros.
        hidden: the state before, of all rows, ``[1, num_layers, hidden_size]``.

    Returns:
        `hidden` is the state after the last step, of the rows that have one.

    Raises:
        ArtifactError: ONNX Runtime does not run the model.
    """
    active = np.arange(inputs.shape[1]) < lengths[:, None]  # [rows, time]
    read = np.where(active, inputs, -1)
    fresh = active.copy()  # begins with what the row above does not begin with
    fresh[1:] &= ~np.logical_and.accumulate(read[1:] == read[:-1], axis=1)
    number = np.cumsum(fresh, axis=0) - 1  # of the beginning, among those of its length
    scores, floors = np.zeros(read.shape), np.zeros(read.shape if with_floors else (1, 1))
    for step in range(int(lengths.max())):
        first = np.flatnonzero(fresh[:, step])
        before = hidden[number[first, step - 1]] if step else hidden
        logits, hidden = engine.run_rows(read[first, step, None], before)  # [first, 1, vocab_size]
        normaliser = _log_sum_exp(logits)[:, 0]  # [first]
        rows = np.flatnonzero(active[:, step])
        which = number[rows, step]
        chosen = logits[which, 0, targets[rows, step]].astype(np.float64)
        scores[rows, step] = chosen - normaliser[which]
        if with_floors:
            floors[rows, step] = (logits[:, 0].min(axis=-1).astype(np.float64) - normaliser)[which]
    nothing = np.zeros((1, 1), dtype=np.int64)
    return ScoredRows(scores, floors, nothing, hidden)


def _log_sum_exp(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log of the sum of exponentials over the last axis of ``[rows, time, vocab_size]``."""
    maximum = logits.max(axis=-1, keepdims=True)  # [rows, time, 1]
    total = np.exp(logits - maximum).sum(axis=-1, dtype=np.float64)  # [rows, time]
    return np.asarray(maximum[..., 0] + np.log(total))

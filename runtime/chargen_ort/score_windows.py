"""A long text in windows: pieces that hold whole ones, and the rows that are read side by side."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

WINDOW_ROWS = 64  # windows that are scored side by side


def overlapping(pieces: Iterable[NDArray[np.int32]], size: int) -> Iterator[NDArray[np.int32]]:
    """`pieces` cut anew: `size` tokens and the first of the next each time, at least two."""
    held = np.zeros(0, dtype=np.int32)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) > size:
            yield held[: size + 1]
            held = held[size:]
    if len(held) > 1:
        yield held


def window_rows(
    tokens: NDArray[np.int32], window: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Cut `tokens` ``[time]`` into windows that are read from a zero state each, side by side.

    Yields:
        what is read and what is to be predicted, ``[windows, window]`` each, at most `WINDOW_ROWS`
        windows at a time; the last window may be shorter.
    """
    inputs, targets = tokens[:-1], tokens[1:]
    whole = len(inputs) // window * window
    edges = [*range(0, whole, WINDOW_ROWS * window), whole]
    for begin, end in pairwise(edges):
        part = slice(begin, end)
        yield inputs[part].reshape(-1, window), targets[part].reshape(-1, window)
    if whole < len(inputs):
        yield inputs[None, whole:], targets[None, whole:]

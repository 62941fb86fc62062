"""A text as it is written, character by character; what may become a stop string is held back."""

import time
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Literal, Self

import numpy as np

from chargen_ort.checks import instance, number, token_array, whole_number
from chargen_ort.options import MAX_LENGTH, check_stops
from chargen_ort.sampling import StopFinder
from chargen_ort.state import TextState

# why a text ended; "end" is the end token, which not every model has
Ended = Literal["end", "stop", "length", "cancelled"]


class TextStream:
    """An iterator of the characters of one text; `close` ends it, from any thread.

    Attributes:
        seed: the seed of its draws; with the same seed the text can be made again.
        state: the state behind it.
    """

    def __init__(
        self,
        state: TextState,
        start: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        length: int | None,
        stops: tuple[str, ...],
        deadline: float | None,
    ) -> None:
        instance("state", state, TextState)
        start = token_array(start, state.vocab_size, 1)
        if length is not None:
            length = whole_number("length", length, 0, MAX_LENGTH)
        stops = check_stops(stops)
        self.state = state
        self.seed = state.seed
        self._closed = False  # set once, by any thread
        self._ended: Ended | None = None
        self._ran_out: Ended = "cancelled"  # why there are no more characters
        self._deadline = None if deadline is None else number("deadline", deadline)
        self._texts = self._until_stop(self._characters(start, length), stops)

    @property
    def ended(self) -> Ended | None:
        """Why the text ended: at its ``end``, a ``stop`` string, its ``length``, or ``cancelled``.

        Only models that were trained on documents write an end. A stream is cancelled by `close`
        and by its timeout. None while it runs.
        """
        return self._ended or ("cancelled" if self._closed else None)

    def __iter__(self) -> Iterator[str]:
        return self._texts

    def __next__(self) -> str:
        return next(self._texts)

    def close(self) -> None:
        """End the stream: the next character is its last, or none comes any more."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _over(self) -> bool:
        return self._closed or (self._deadline is not None and time.monotonic() >= self._deadline)

    def _characters(
        self, start: "np.ndarray[tuple[int], np.dtype[np.int64]]", length: int | None
    ) -> Iterator[str]:
        size = self.state.piece_size
        for begin in range(0, len(start), size):
            if self._over():
                return
            self.state.feed_piece(start[begin : begin + size])
        made, draw, deadline = 0, self.state.draw, self._deadline
        while made != length and not self._closed:
            if deadline is not None and time.monotonic() >= deadline:
                return
            character = draw()
            if not character:
                self._ran_out = "end"
                return
            yield character
            made += 1
        if made == length:
            self._ran_out = "length"

    def _until_stop(self, characters: Iterator[str], stops: tuple[str, ...]) -> Iterator[str]:
        stopped = False
        if stops:
            stopped = yield from hold_back(characters, stops)
        else:
            yield from characters
        self._ended = "stop" if stopped else self._ran_out


def hold_back(characters: Iterator[str], stops: tuple[str, ...]) -> Generator[str, None, bool]:
    """Pass characters on as soon as they cannot become part of a stop string; end at one.

    Returns:
        whether a stop string ended the text.
    """
    held, finder = "", StopFinder(stops)
    for character in characters:
        held += character
        finder.read(character)
        if finder.ended:
            yield from held[: len(held) - finder.ended]
            return True
        passed = len(held) - finder.pending
        yield from held[:passed]
        held = held[passed:]
    yield from held
    return False

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
        rest: str = "",
    ) -> None:
        instance("state", state, TextState)
        start = token_array(start, state.vocab_size, 1)
        if length is not None:
            length = whole_number("length", length, 0, MAX_LENGTH)
        stops = check_stops(stops)
        self.state = state
        self.seed = state.seed
        self._start, self._length, self._stops = start, length, stops
        self._rest = rest  # of the start, kept back: see `TextState.keep_back`
        self._made = 0  # characters, those that are held back among them
        self._at_end = False  # whether the model has ended the text
        self._closed = False  # set once, by any thread
        self._ended: Ended | None = None
        self._deadline = None if deadline is None else number("deadline", deadline)
        state.confine(start, length)
        before = state.text_tokens()
        self._confined = None if before is None else [*before, *start.tolist()]
        self._drawn: list[int] = []  # tokens of a text that is confined and has ended
        self._texts: Iterator[str] = self._until_stop()

    @property
    def ended(self) -> Ended | None:
        """Why the text ended: at its ``end``, a ``stop`` string, its ``length``, or ``cancelled``.

        Only models that were trained on documents write an end. A stream is cancelled by `close`
        and by its timeout. None while it runs.
        """
        return self._ended or ("cancelled" if self._closed else None)

    @property
    def log_weight(self) -> float | None:
        """The log weight of a text that is confined, nats; see `chargen_ort.confined.log_weight`.

        It is that of what was drawn so far, and takes as long as a score. A text that is not
        confined has a weight of 0.
        """
        if self._confined is None:
            return 0.0
        drawn = self._tokens_drawn() if self._ended is None else self._drawn
        return self.state.log_weight(self._confined, drawn, self._length, self._at_end)

    def _tokens_drawn(self) -> list[int]:
        return self.state.tokens_after(len(self._confined or ()), self._at_end)

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

    def read(self) -> str:
        """All that is still to come, joined; where there is no end to it, this has none either."""
        if self._stops or self._ended or self.state.options.exact:
            return "".join(self._texts)
        pieces = []
        if self._read_start():
            while self._made != self._length and not self._over():
                most = MAX_LENGTH if self._length is None else self._length - self._made
                piece = self.state.draw_piece(most)
                self._made += len(piece)
                pieces.append(piece)
                if self.state.at_beginning:
                    self._at_end = True
                    break
        self._end(False)
        self._texts = iter(())  # it knows this stream, and so would keep it
        return "".join(pieces)

    def _read_start(self) -> bool:
        """Feed what is left of the start; whether all of it was in time."""
        size = self.state.piece_size
        while len(self._start):
            if self._over():
                return False
            self.state.feed_piece(self._start[:size])
            self._start = self._start[size:]
        if self._rest:
            self.state.keep_back(self._rest)
            self._rest = ""
        left = None if self._length is None else self._length - self._made
        self.state.expect(left, certain=left is not None and not self._stops)
        return True

    def _characters(self) -> Iterator[str]:
        if not self._read_start() or self._made == self._length or self._over():
            return
        self.state.begin()
        if self.state.options.exact:
            yield from self._exact_characters()
            return
        length, draw, deadline = self._length, self.state.draw, self._deadline
        while self._made != length and not self._closed:
            if deadline is not None and time.monotonic() >= deadline:
                return
            character = draw()
            if not character:
                self._at_end = True
                return
            self._made += 1
            yield character

    def _exact_characters(self) -> Iterator[str]:
        """They come when the text is whole, as until then it may be begun anew."""
        text = self.state.draw_whole(self._length, self._over)
        if self._over():
            return
        self._made = len(text)
        self._at_end = self.state.at_beginning
        yield from text

    def _until_stop(self) -> Iterator[str]:
        stopped = False
        if self._stops:
            stopped = yield from hold_back(self._characters(), self._stops)
        else:
            yield from self._characters()
        self._end(stopped)

    def _end(self, stopped: bool) -> None:
        self._drawn = self._tokens_drawn()
        whole = self._made == self._length and not len(self._start)
        if stopped:
            self._ended = "stop"
        else:
            self._ended = "end" if self._at_end else "length" if whole else "cancelled"


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

"""Many texts at once: a batch whose places are refilled as texts end."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine
from chargen_ort.options import SamplingOptions
from chargen_ort.sampling import Sampler
from chargen_ort.state import TextState
from chargen_ort.stream import Ended
from chargen_ort.vocabulary import UnknownPolicy

_REMEMBERED_STARTS = 64


@dataclass(frozen=True)
class WrittenText:
    """A text of a batch.

    Attributes:
        index: of its start, and the number of its row.
        text: what was written, without the start and without a stop string.
        ended: why it ended.
    """

    index: int
    text: str
    ended: Ended


def write_texts(
    engine: Engine,
    starts: Iterator[str],
    length: int,
    options: SamplingOptions,
    batch_size: int,
    unknown: UnknownPolicy | None,
) -> Iterator[WrittenText]:
    """Write a text for each start and yield it as it ends.

    Args:
        engine: the model that is open.
        starts: what to go on from; there may be any number of them, and they are read as needed.
        length: characters of a text at most, 0 or more.
        options: with a seed; text i is row i of its family.
        batch_size: how many texts are written side by side, at least 1.
        unknown: policy for characters of the starts; None is the model's own.

    Raises:
        UnknownCharacterError: a start has a character that the model does not know.
    """
    numbered = enumerate(starts)
    first = list(islice(numbered, batch_size))
    if length == 0:
        yield from (WrittenText(index, "", "length") for index, _ in chain(first, numbered))
        return
    if not first:
        return
    batch = _Batch(engine, len(first), length, options, unknown)
    for place, (index, start) in enumerate(first):
        batch.begin(place, index, start)
    while batch.active.any():
        for place in batch.step():
            yield batch.written(place)
            following = next(numbered, None)
            if following is None:
                batch.active[place] = False
            else:
                batch.begin(place, *following)
        batch.compact()


class _Batch:
    """The rows that are being written: arrays by place in the batch."""

    def __init__(
        self,
        engine: Engine,
        size: int,
        length: int,
        options: SamplingOptions,
        unknown: UnknownPolicy | None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._unknown = unknown
        self._length = length
        self._vocabulary = engine.vocabulary
        self._stepper = engine.new_stepper(size)
        self._sampler = Sampler(options, len(self._vocabulary), range(size))
        self._starts: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._places = np.arange(size)
        self._steps = 0
        self._next_full = length  # no row reaches its length before this step
        self._count = np.zeros(size, dtype=np.int64)  # tokens written by each row
        self._most = 0  # no row has written more
        self._tokens = np.zeros((size, min(length, 256)), dtype=np.int32)
        self._end = self._vocabulary.end_token
        self._may_end_stop = self._stop_endings()
        self.active = np.zeros(size, dtype=bool)
        self.index = [0] * size

    def _stop_endings(self) -> NDArray[np.bool_]:
        """Which tokens end a stop string, bool ``[vocab_size]``."""
        endings = {stop[-1] for stop in self._options.stops}
        return np.array([text in endings for text in self._engine.config.tokens])

    def begin(self, place: int, index: int, start: str) -> None:
        """Give `place` to text number `index`."""
        self.active[place] = True
        self.index[place] = index
        self._count[place] = 0
        self._sampler.start_row(place, index)
        if self._options.repetition_penalty != 1:
            self._sampler.see(place, self._vocabulary.encode(start, self._unknown))
        logits, hidden = self._read(start)
        self._stepper.logits[place] = logits
        self._stepper.hidden[place] = hidden

    def _read(self, start: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits ``[vocab_size]`` and hidden after `start`; the same starts are read once."""
        if start not in self._starts:
            if len(self._starts) >= _REMEMBERED_STARTS:
                self._starts.clear()
            state = TextState(self._engine, self._options, 0, self._unknown)
            state.feed(start)
            self._starts[start] = state.logits(), state.hidden()
        return self._starts[start]

    def step(self) -> list[int]:
        """Write one token in every row; returns the places whose text has ended."""
        tokens = self._sampler.sample(self._stepper.logits)  # [batch]
        self._stepper.step(tokens)
        if self._most == self._tokens.shape[1]:
            self._make_room()
        self._tokens[self._places, self._count] = tokens
        self._count += 1
        self._most += 1
        self._steps += 1
        ended = self._at_full_length() if self._steps == self._next_full else []
        if self._end is not None:
            at_end = np.flatnonzero((tokens == self._end) & self.active).tolist()
            ended += [p for p in at_end if p not in ended]
        if self._options.stops:
            likely = np.flatnonzero(self._may_end_stop[tokens] & self.active).tolist()
            ended += [p for p in likely if p not in ended and self._stopped(p)]
        return ended

    def _at_full_length(self) -> list[int]:
        full = self.active & (self._count == self._length)
        others = self._count[self.active & ~full]
        left = self._length - int(others.max()) if len(others) else self._length
        self._next_full = self._steps + left
        return np.flatnonzero(full).tolist()

    def _make_room(self) -> None:
        self._count[~self.active] = 0  # rows that have ended write on, to nowhere
        self._most = int(self._count.max())
        width = self._tokens.shape[1]
        if self._most == width:
            self._tokens = np.pad(self._tokens, ((0, 0), (0, width)))

    def _stopped(self, place: int) -> bool:
        longest = max(map(len, self._options.stops))
        tail = self._vocabulary.decode(
            self._tokens[place, max(0, self._count[place] - longest) : self._count[place]]
        )
        return tail.endswith(self._options.stops)

    def written(self, place: int) -> WrittenText:
        """What the row at `place` has written, without a stop string at its end."""
        tokens = self._tokens[place, : self._count[place]]
        text = self._vocabulary.decode(tokens)
        if tokens[-1] == self._end:
            return WrittenText(self.index[place], text, "end")
        endings = [stop for stop in self._options.stops if text.endswith(stop)]
        text = text[: len(text) - max(map(len, endings), default=0)]
        return WrittenText(self.index[place], text, "stop" if endings else "length")

    def compact(self) -> None:
        """Once half of the rows have ended for good, go on with a batch of the others."""
        if not 0 < 2 * np.count_nonzero(self.active) <= len(self.active):
            return
        places = np.flatnonzero(self.active)
        stepper = self._engine.new_stepper(len(places))
        stepper.logits[:] = self._stepper.logits[places]
        stepper.hidden[:] = self._stepper.hidden[places]
        self._stepper = stepper
        self._sampler = self._sampler.keep_rows(places.tolist())
        self._places = np.arange(len(places))
        self._count = self._count[places]
        self._tokens = self._tokens[places]
        self.active = self.active[places]
        self.index = [self.index[place] for place in places.tolist()]

"""Many texts at once: a batch whose places are refilled as texts end."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

from chargen_ort.confined import MOST_TRIES, too_many_tries
from chargen_ort.engine import Engine
from chargen_ort.graphs.writer import LOWEST
from chargen_ort.options import SamplingOptions
from chargen_ort.patterns import DONE, OUT, UNKNOWN
from chargen_ort.places import Place
from chargen_ort.state import TextState
from chargen_ort.stream import Ended
from chargen_ort.vocabulary import UnknownPolicy
from chargen_ort.writer import open_writer

_REMEMBERED_STARTS = 64
_WASTED = 8  # a run may go beyond the end of a text by this part of the texts so far


@dataclass(frozen=True)
class WrittenText:
    """A text of a batch.

    Attributes:
        index: of its start, and the number of its row.
        text: what was written, without the start and without a stop string.
        ended: why it ended.
        drawn: of a text that is confined, all tokens that were drawn but for an end token.
    """

    index: int
    text: str
    ended: Ended
    drawn: tuple[int, ...] = ()


def write_texts(
    engine: Engine,
    starts: Iterator[str],
    length: int,
    options: SamplingOptions,
    batch_size: int,
    unknown: UnknownPolicy | None,
    rows: Iterator[int] | None = None,
) -> Iterator[WrittenText]:
    """Write a text for each start and yield it as it ends.

    Args:
        engine: the model that is open.
        starts: what to go on from; there may be any number of them, and they are read as needed.
        length: characters of a text at most, 0 or more.
        options: with a seed; text i is row i of its family.
        batch_size: how many texts are written side by side, at least 1.
        unknown: policy for characters of the starts; None is the model's own.
        rows: the number of each text, all different; None counts from 0.

    Raises:
        OptionError: the text is confined, and none goes on from a start.
        UnknownCharacterError: a start has a character that the model does not know.
    """
    numbered = zip(count() if rows is None else rows, starts, strict=False)
    first = list(islice(numbered, batch_size))
    if length == 0:
        yield from (WrittenText(index, "", "length") for index, _ in chain(first, numbered))
        return
    if not first:
        return
    kind = _ConfinedBatch if options.controlled else _Batch
    batch = kind(engine, len(first), length, options, unknown)
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
        self._vocabulary = engine.vocabulary
        self._length = length
        self._starts: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._writer = open_writer(engine, options, range(size))
        self._places = np.arange(size)
        self._count = np.zeros(size, dtype=np.int64)  # tokens that each row has written
        self._most = 0  # no row has written more
        self._left = 0  # steps until the first row is at full length; 0 is not known
        self._tokens = np.zeros((size, min(length, 256)), dtype=np.int32)
        self._end = self._vocabulary.end_token
        self._may_end_stop = self._stop_endings()
        self._ended_texts = self._ended_tokens = 0
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
        self._count[place] = self._left = 0
        self._writer.draws.start_row(place, index)
        self._see(place, start)
        self._writer.logits[place], self._writer.hidden[place] = self._read(start)

    def _see(self, place: int, start: str) -> None:
        """Have the penalty of a row count what its start has, and nothing else."""
        seen = self._writer.seen(place)
        if seen is not None:
            tokens = self._vocabulary.encode(start, self._unknown)
            seen[:] = False
            seen[tokens] = True
            if not len(tokens) and self._end is None:  # an end token is none that a text has seen
                seen[self._engine.config.separator_token] = True

    def _read(self, start: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits ``[vocab_size]`` and hidden after `start`; the same starts are read once."""
        if start not in self._starts:
            if len(self._starts) >= _REMEMBERED_STARTS:
                self._starts.clear()
            state = TextState(self._engine, SamplingOptions(seed=0), 0, self._unknown)
            state.feed(start)
            self._starts[start] = state.logits(), state.hidden()
        return self._starts[start]

    def step(self) -> list[int]:
        """Write tokens in every row; returns the places whose text has ended."""
        if not self._left:
            self._left = self._length - int(self._count[self.active].max())
        before, steps = self._count.copy(), self._steps()
        tokens = self._writer.write(steps)  # [steps, batch]
        if self._most + steps > self._tokens.shape[1]:
            self._make_room(steps)
        self._tokens[self._places[:, None], self._count[:, None] + np.arange(steps)] = tokens.T
        self._count += steps
        self._most += steps
        self._left -= steps
        ended: set[int] = set()
        if self._left <= 0:  # a row may have written beyond its end
            np.minimum(self._count, self._length, out=self._count)
            ended.update(np.flatnonzero(self.active & (self._count == self._length)).tolist())
            self._left = 0
        if self._end is not None:
            ended.update(self._at_end(tokens, before))
        if self._options.stops:
            ends = self._may_end_stop[tokens].any(axis=0) & self.active  # [batch]
            likely = np.flatnonzero(ends).tolist()
            ended.update(place for place in likely if self._stopped(place, int(before[place])))
        self._ended_texts += len(ended)
        self._ended_tokens += int(self._count[list(ended)].sum())
        return sorted(ended)

    def _at_end(self, tokens: NDArray[np.int64], before: NDArray[np.int64]) -> list[int]:
        """The places whose text the model has just ended; the end token is then their last."""
        is_end = tokens == self._end  # [steps, batch]
        count = before + is_end.argmax(axis=0) + 1  # [batch]
        places = np.flatnonzero(self.active & is_end.any(axis=0) & (count <= self._count))
        self._count[places] = count[places]
        return places.tolist()

    def _steps(self) -> int:
        """How many steps to write: many, but few beyond the end of a text."""
        whole = self._ended_tokens // self._ended_texts if self._ended_texts else self._most
        beyond = 1 + whole // _WASTED
        steps = beyond if self._options.stops or self._end is not None else max(self._left, beyond)
        longest = self._length - int(self._count[self.active].min())
        return min(steps, longest, self._writer.most_steps)

    def _make_room(self, steps: int) -> None:
        self._count[~self.active] = 0  # rows that have ended write on, to nowhere
        self._most = int(self._count.max())
        width = self._tokens.shape[1]
        if self._most + steps > width:
            self._tokens = np.pad(self._tokens, ((0, 0), (0, max(width, steps))))

    def _stopped(self, place: int, before: int) -> bool:
        """Whether a stop string ends in what was just written; the row then ends with it."""
        longest = max(map(len, self._options.stops))
        begin = max(0, before + 1 - longest)
        text = self._vocabulary.decode(self._tokens[place, begin : self._count[place]])
        for end in range(before + 1 - begin, len(text) + 1):
            if text.endswith(self._options.stops, 0, end):
                self._count[place] = begin + end
                return True
        return False

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
        self._writer = self._writer.keep_rows(places.tolist())
        self._places = np.arange(len(places))
        self._count = self._count[places]
        self._tokens = self._tokens[places]
        self.active = self.active[places]
        self.index = [self.index[place] for place in places.tolist()]


class _ConfinedBatch(_Batch):
    """Rows whose texts are confined: a step in one run, after what may not be drawn is masked."""

    def __init__(
        self,
        engine: Engine,
        size: int,
        length: int,
        options: SamplingOptions,
        unknown: UnknownPolicy | None,
    ) -> None:
        super().__init__(engine, size, length, options, unknown)
        self._control = engine.control(options)
        self._nodes = np.zeros(size, dtype=np.int64)
        self._characters = np.zeros(size, dtype=np.int64)  # that each row has written
        self._tries = np.zeros(size, dtype=np.int64)
        self._begun: list[Place | None] = [None] * size
        self._start = [""] * size
        self._ended: list[Ended] = ["length"] * size

    def begin(self, place: int, index: int, start: str) -> None:
        """Give `place` to text number `index`.

        Raises:
            OptionError: no text of the language begins with `start`.
        """
        super().begin(place, index, start)
        tokens = self._vocabulary.encode(start, self._unknown).tolist()
        size = int(self._control.lengths[tokens].sum()) if tokens else 0
        begun = Place(self._control, tokens, size, size + self._length)
        self._begun[place], self._start[place] = begun, start
        self._nodes[place] = begun.node
        self._characters[place] = self._tries[place] = 0

    def step(self) -> list[int]:
        """Write a token in every row; returns the places whose text has ended."""
        if self._end is None:
            complete = self._control.closed[self._nodes] & self.active
            if complete.any():
                return self._close(np.flatnonzero(complete).tolist(), "end")
        self._renew()
        control, before = self._control, self._nodes
        if not self._options.exact:
            np.copyto(self._writer.logits, LOWEST, where=control.blocked[before])
        tokens = self._writer.write(1)[0]  # [batch]
        nodes = control.children[before, control.classes[tokens]]
        for place in np.flatnonzero((nodes == UNKNOWN) & self.active).tolist():
            one = self._place(place)
            one.node = int(before[place])
            nodes[place] = one.child(int(tokens[place]))
        self._nodes = np.where(self.active, nodes, OUT)
        within = self._nodes > DONE
        if int(self._count.max()) == self._tokens.shape[1]:
            self._tokens = np.pad(self._tokens, ((0, 0), (0, self._tokens.shape[1])))
        self._tokens[self._places, self._count] = tokens
        self._count += within
        self._characters += np.where(within, control.lengths[tokens], 0)
        return self._ends(tokens, before, within)

    def _ends(
        self, tokens: NDArray[np.int64], before: NDArray[np.int64], within: NDArray[np.bool_]
    ) -> list[int]:
        """The places whose text has ended; one that went astray is begun anew."""
        ended: list[int] = []
        for place in np.flatnonzero(self.active & ~within).tolist():
            accepted = self._nodes[place] == DONE or self._control.accepting[before[place]]
            if accepted and (self._nodes[place] == DONE or self._control.may_leave):
                ended += self._close([place], "end")
            else:
                self._retry(place)
        if self._options.stops:
            for place in np.flatnonzero(self._may_end_stop[tokens] & within).tolist():
                text = self._vocabulary.decode(self._tokens[place, : self._count[place]])
                if text.endswith(self._options.stops):
                    ended += self._close([place], "stop")
        full = self.active & within & (self._characters >= self._length)
        new = set(np.flatnonzero(full).tolist()) - set(ended)
        return sorted([*ended, *self._close(sorted(new), "length")])

    def _close(self, places: list[int], why: Ended) -> list[int]:
        for place in places:
            self._ended[place] = why
        return places

    def _retry(self, place: int) -> None:
        """Begin a text anew; its draws go on."""
        tries = int(self._tries[place]) + 1
        if tries >= MOST_TRIES:
            raise too_many_tries(self._options)
        self._tries[place] = tries
        start, begun = self._start[place], self._place(place)
        self._writer.logits[place], self._writer.hidden[place] = self._read(start)
        self._count[place] = self._characters[place] = 0
        begun.go_back(begun.tokens[: len(begun.tokens) - begun.drawn])
        begun.drawn, self._nodes[place] = 0, begun.node
        self._see(place, start)

    def _place(self, place: int) -> Place:
        """Where a row stands, for what the tree of its language does not know yet."""
        one = self._begun[place]
        if one is None:
            raise AssertionError("a row is written before it has begun")
        start = len(one.tokens) - one.drawn
        one.drawn = int(self._count[place])
        one.tokens[start:] = self._tokens[place, : one.drawn].tolist()
        return one

    def _renew(self) -> None:
        """Go on with an empty tree of the language, where this one has grown large."""
        if self._control.full:
            control = self._engine.control(self._options)
            for place in np.flatnonzero(self.active).tolist():
                one = self._place(place)
                one.adopt(control)
                self._nodes[place] = one.node
            self._nodes[~self.active] = OUT
            self._control = control

    def written(self, place: int) -> WrittenText:
        """What the row at `place` has written, without a stop string at its end."""
        tokens, ended = self._tokens[place, : self._count[place]], self._ended[place]
        text = self._vocabulary.decode(tokens)
        if ended == "stop":
            text = text[: -max(len(stop) for stop in self._options.stops if text.endswith(stop))]
        return WrittenText(self.index[place], text, ended, tuple(tokens.tolist()))

    def compact(self) -> None:
        """Once half of the rows have ended for good, go on with a batch of the others."""
        if not 0 < 2 * np.count_nonzero(self.active) <= len(self.active):
            return
        places = np.flatnonzero(self.active)
        self._nodes, self._characters = self._nodes[places], self._characters[places]
        self._tries = self._tries[places]
        self._begun = [self._begun[place] for place in places.tolist()]
        self._start = [self._start[place] for place in places.tolist()]
        self._ended = [self._ended[place] for place in places.tolist()]
        super().compact()

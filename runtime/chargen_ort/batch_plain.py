"""The rows of a batch, of models whose tokens are characters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_ort.beginnings import LONGEST, Beginning, Beginnings
from chargen_ort.engine import Engine
from chargen_ort.options import SamplingOptions
from chargen_ort.state import TextState
from chargen_ort.stream import Ended
from chargen_ort.vocabulary import UnknownPolicy
from chargen_ort.writer import open_writer

_REMEMBERED_STARTS = 64
WASTED = 8  # a run may go beyond the end of a text by this part of the texts so far


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


@dataclass(frozen=True)
class _Start:
    """Where texts stand after a start, but for the run of it that is kept back.

    Attributes:
        logits, hidden: ``[vocab_size]`` and ``[num_layers, hidden_size]``.
        seen: tokens that a repetition penalty counts.
        rest: the run; see `chargen_ort.healing`.
    """

    logits: NDArray[np.float32]
    hidden: NDArray[np.float32]
    seen: NDArray[np.int64]
    rest: str


class Batch:
    """The rows that are being written: arrays by place in the batch.

    Args:
        engine: the model that is open.
        size: how many rows there are.
        length: characters of a text at most, 1 or more.
        options: with a seed.
        unknown: policy for characters of the starts; None is the model's own.
        shared: the beginnings that texts go through without being written; None is none.
    """

    def __init__(
        self,
        engine: Engine,
        size: int,
        length: int,
        options: SamplingOptions,
        unknown: UnknownPolicy | None,
        shared: Beginnings | None = None,
    ) -> None:
        self._engine = engine
        self._shared = shared
        self._origins: dict[int, Beginning] = {}  # by place: what follows them is to be remembered
        self._options = options
        self._unknown = unknown
        self._vocabulary = engine.vocabulary
        self._length = length
        self._starts: dict[str, _Start] = {}
        self._writer = open_writer(engine, options, range(size))
        self._places = np.arange(size)
        self._count = np.zeros(size, dtype=np.int64)  # tokens that each row has written
        self._most = 0  # no row has written more
        self._left = 0  # steps until the first row is at full length; 0 is not known
        self._tokens = np.zeros((size, min(length, 256)), dtype=np.int32)
        self._end = self._vocabulary.end_token
        self._texts = self._vocabulary.texts
        self._may_end_stop = self._stop_endings()
        # tokens after which a text of these options may be over
        self._may_end: set[int] = set(np.flatnonzero(self._may_end_stop).tolist())
        if self._end is not None:
            self._may_end.add(self._end)
        self._ended_texts = self._ended_tokens = 0
        self.active = np.zeros(size, dtype=bool)
        self.index = [0] * size

    def _stop_endings(self) -> NDArray[np.bool_]:
        """Which tokens may end a stop string, bool ``[vocab_size]``."""
        endings = {stop[-1] for stop in self._options.stops}
        return np.array([text[-1:] in endings for text in self._engine.config.tokens])

    def begin(self, place: int, index: int, start: str) -> None:
        """Give `place` to text number `index`."""
        self.active[place] = True
        self.index[place] = index
        self._count[place] = self._left = 0
        if self._shared is not None and not self._read(start).rest:
            self._go_ahead(place, index, start, self._shared)
            return
        self._origins.pop(place, None)
        self._writer.draws.start_row(place, index)
        self._stand(place, start)

    def _go_ahead(self, place: int, index: int, start: str, shared: Beginnings) -> None:
        """Have a row stand where a beginning that is remembered takes it."""
        state, writer = self._read(start), self._writer
        origin = shared.start((start, self._unknown), state.hidden, state.logits)
        uniforms = writer.draws.first_draws(index, LONGEST)
        at, tokens = shared.walk(origin, uniforms[:LONGEST], self._length - 1, self._may_end)
        writer.draws.go_on(place, index, len(tokens), uniforms)
        writer.logits[place], writer.hidden[place] = at.logits, at.hidden
        if tokens:
            self._tokens[place, : len(tokens)] = tokens
            self._count[place] = len(tokens)
            self._most = max(self._most, len(tokens))
        self._note(place, at)

    def _note(self, place: int, at: Beginning) -> None:
        """Have what follows a beginning remembered, if it is worth it."""
        self._origins.pop(place, None)
        room = self._shared is not None and not self._shared.full
        if room and at.often and self._count[place] < min(LONGEST, self._length - 1):
            self._origins[place] = at

    def _remember(self, shared: Beginnings, tokens: NDArray[np.int64]) -> None:
        """Remember where the noted rows stand, which have just drawn ``[batch]`` tokens."""
        noted, self._origins = self._origins, {}
        going_on = [p for p in noted if self.active[p] and int(tokens[p]) not in self._may_end]
        if not going_on:
            return
        origins = [noted[place] for place in going_on]
        hidden, logits = self._writer.hidden[going_on], self._writer.logits[going_on]
        reached = shared.remember(origins, tokens[going_on].tolist(), hidden, logits)
        for place, at in zip(going_on, reached, strict=True):
            if at is not None:
                self._note(place, at)

    def _stand(self, place: int, start: str) -> _Start:
        """Have a row stand after its start; the penalty counts what that has, and nothing else."""
        state = self._read(start)
        seen = self._writer.seen(place)
        if seen is not None:
            seen[:] = False
            seen[state.seen] = True
        self._writer.logits[place], self._writer.hidden[place] = state.logits, state.hidden
        return state

    def _read(self, start: str) -> _Start:
        """Where a text stands after `start`; the same starts are read once."""
        if start not in self._starts:
            if len(self._starts) >= _REMEMBERED_STARTS:
                self._starts.clear()
            confined = self._options.controlled
            tokens, rest = self._vocabulary.encode_open(start, self._unknown, confined)
            state = TextState(self._engine, SamplingOptions(seed=0), 0, self._unknown)
            state.feed_piece(tokens)
            state.begin()
            logits, hidden = state.logits(), state.hidden()
            if not len(tokens) and self._end is None:  # an end token is none that a text has seen
                tokens = np.array([self._engine.config.separator_token])
            self._starts[start] = _Start(logits, hidden, tokens, rest)
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
        if self._origins and self._shared is not None:
            self._remember(self._shared, tokens[0])
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
        if self._origins:
            return 1  # so that the state after the next token is there
        whole = self._ended_tokens // self._ended_texts if self._ended_texts else self._most
        beyond = 1 + whole // WASTED
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
        tokens = self._tokens[place, : self._count[place]].tolist()
        text = "".join([self._texts[token] for token in tokens])  # each is a character, or the end
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
        moved = {old: new for new, old in enumerate(places.tolist())}
        self._origins = {moved[old]: at for old, at in self._origins.items() if old in moved}

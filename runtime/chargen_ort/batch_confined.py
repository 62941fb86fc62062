"""The rows of a batch whose texts are confined."""

import numpy as np
from numpy.typing import NDArray

from chargen_ort.batch_plain import Batch, WrittenText
from chargen_ort.confined import MOST_TRIES, too_many_tries
from chargen_ort.engine import Engine
from chargen_ort.graphs.writer import LOWEST
from chargen_ort.options import SamplingOptions
from chargen_ort.patterns import DONE, OUT, UNKNOWN
from chargen_ort.places import Place
from chargen_ort.stream import Ended
from chargen_ort.vocabulary import UnknownPolicy


class ConfinedBatch(Batch):
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
        self._far = np.zeros(size, dtype=bool)  # see `Place.far`
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
        self._nodes[place], self._far[place] = begun.node, begun.far
        self._characters[place] = self._tries[place] = 0

    def step(self) -> list[int]:
        """Write a token in every row; returns the places whose text has ended."""
        if self._end is None:
            complete = self._control.closed[self._nodes] & self.active
            if complete.any():
                return self._close(np.flatnonzero(complete).tolist(), "end")
        self._renew()
        self._approach()
        control, before = self._control, self._nodes
        if not self._options.exact:
            np.copyto(self._writer.logits, LOWEST, where=control.blocked[before])
        tokens = self._writer.write(1)[0]  # [batch]
        nodes = control.children[before, tokens]
        for place in np.flatnonzero((nodes == UNKNOWN) & self.active).tolist():
            nodes[place] = self._place(place).child(int(tokens[place]))
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
        self._stand(place, start)
        self._count[place] = self._characters[place] = 0
        begun.go_back(begun.tokens[: begun.start])
        self._nodes[place], self._far[place] = begun.node, begun.far

    def _place(self, place: int) -> Place:
        """Where a row stands, for what the tree of its language does not know yet."""
        one = self._begun[place]
        if one is None:
            raise AssertionError("a row is written before it has begun")
        drawn = self._tokens[place, : self._count[place]].tolist()
        one.stand(drawn, int(self._nodes[place]))
        return one

    def _approach(self) -> None:
        """Have the room for a text decide about its next draw, where it is near enough to."""
        margin = self._control.margin
        if margin is not None and self._far.any():
            near = self._far & self.active & (self._length - self._characters <= margin)
            for place in np.flatnonzero(near).tolist():
                one = self._place(place)
                one.approach()
                self._nodes[place], self._far[place] = one.node, one.far

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
        tokens, ended = self._tokens[place, : self._count[place]].tolist(), self._ended[place]
        # of no unit whose tokens are bytes
        text = "".join([self._texts[token] for token in tokens])
        if ended == "stop":
            text = text[: -max(len(stop) for stop in self._options.stops if text.endswith(stop))]
        return WrittenText(self.index[place], text, ended, tuple(tokens))

    def compact(self) -> None:
        """Once half of the rows have ended for good, go on with a batch of the others."""
        if not 0 < 2 * np.count_nonzero(self.active) <= len(self.active):
            return
        places = np.flatnonzero(self.active)
        self._nodes, self._characters = self._nodes[places], self._characters[places]
        self._tries, self._far = self._tries[places], self._far[places]
        self._begun = [self._begun[place] for place in places.tolist()]
        self._start = [self._start[place] for place in places.tolist()]
        self._ended = [self._ended[place] for place in places.tolist()]
        super().compact()

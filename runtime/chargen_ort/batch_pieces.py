"""The rows of a batch, of models whose tokens are bytes or pieces."""

import numpy as np

from chargen_ort.batch_plain import WASTED, Batch, WrittenText
from chargen_ort.beginnings import Beginnings
from chargen_ort.engine import Engine
from chargen_ort.healing import heal, new_healer
from chargen_ort.options import SamplingOptions
from chargen_ort.sampling import StopFinder
from chargen_ort.stream import Ended
from chargen_ort.vocabulary import UnknownPolicy


class PieceBatch(Batch):
    """The same where a token is not a character: what each row has written is kept as text."""

    def __init__(
        self,
        engine: Engine,
        size: int,
        length: int,
        options: SamplingOptions,
        unknown: UnknownPolicy | None,
        shared: Beginnings | None = None,
    ) -> None:
        super().__init__(engine, size, length, options, unknown, shared)
        self._rows = [WrittenRow(engine, length, options.stops) for _ in range(size)]

    def begin(self, place: int, index: int, start: str) -> None:
        """Give `place` to text number `index`, and cover the run that its start ends with."""
        super().begin(place, index, start)
        self._rows[place] = WrittenRow(self._engine, self._length, self._options.stops)
        self._rows[place].take(self._tokens[place, : self._count[place]].tolist())
        rest = self._read(start).rest
        if not rest:
            return
        writer, seed, size = self._writer, self._options.seed or 0, len(self._vocabulary)
        sampler = new_healer(self._options, seed, index, 0, size)
        counted, seen = sampler.seen(0), writer.seen(place)
        if counted is not None and seen is not None:
            counted[:] = seen
        hidden, logits = writer.hidden[place, None], writer.logits[place]
        healed = heal(self._engine, sampler, hidden.copy(), logits.copy(), rest)
        writer.draws.start_row(place, index, len(healed.tokens))
        writer.hidden[place], writer.logits[place] = healed.hidden[0], healed.logits
        if counted is not None and seen is not None:
            seen[:] = counted
        self._rows[place].take_text(healed.text)

    def step(self) -> list[int]:
        """Write tokens in every row; returns the places whose text has ended."""
        ended = self._over()  # the run of its start may be all of a text
        if ended:
            return ended
        tokens = self._writer.write(self._steps())  # [steps, batch]
        self._count[self.active] += len(tokens)
        self._most += len(tokens)
        if self._origins and self._shared is not None:
            self._remember(self._shared, tokens[0])
        for place in np.flatnonzero(self.active).tolist():
            self._rows[place].take(tokens[:, place].tolist())
        ended = self._over()
        self._ended_texts += len(ended)
        self._ended_tokens += int(self._count[ended].sum())
        return ended

    def _over(self) -> list[int]:
        places = np.flatnonzero(self.active).tolist()
        return [place for place in places if self._rows[place].ended is not None]

    def _steps(self) -> int:
        """How many steps to write: many, but few beyond the end of a text."""
        if self._origins:
            return 1
        whole = self._ended_tokens // self._ended_texts if self._ended_texts else self._most
        steps = 1 + whole // WASTED
        if not self._options.stops and self._end is None:
            written = [len(self._rows[place].text) for place in np.flatnonzero(self.active)]
            tokens = int(self._count[self.active].sum())  # so many each character has taken
            steps = max(steps, (self._length - max(written)) * tokens // max(1, sum(written)))
        return max(1, min(steps, self._writer.most_steps))

    def written(self, place: int) -> WrittenText:
        """What the row at `place` has written, without a stop string at its end."""
        row = self._rows[place]
        return WrittenText(self.index[place], row.text, row.ended or "length")

    def compact(self) -> None:
        """Once half of the rows have ended for good, go on with a batch of the others."""
        kept = np.flatnonzero(self.active).tolist()
        super().compact()
        if len(self.index) < len(self._rows):
            self._rows = [self._rows[place] for place in kept]


class WrittenRow:
    """A text as its tokens come, as far as its end.

    Args:
        engine: the model that is open.
        length: characters at most.
        stops: strings that end it.

    Attributes:
        text: so far, without a stop string that ended it.
        ended: why it ended; None where it goes on.
    """

    def __init__(self, engine: Engine, length: int, stops: tuple[str, ...]) -> None:
        self.text = ""
        self.ended: Ended | None = None
        self._length, self._end = length, engine.vocabulary.end_token
        self._decoder = engine.vocabulary.decoder()
        self._finder = StopFinder(stops) if stops else None

    def take(self, tokens: list[int]) -> None:
        """Hear of the next tokens, some of them perhaps beyond the end."""
        if self.ended is not None:
            return
        ends = self._end in tokens
        if self._end is not None and ends:
            tokens = tokens[: tokens.index(self._end)]
        self.take_text(self._decoder.feed(tokens))
        if ends and self.ended is None:
            self.ended = "end"

    def take_text(self, text: str) -> None:
        """Hear of the next characters."""
        text = text[: self._length - len(self.text)]
        for place, character in enumerate(text if self._finder else "", 1):
            assert self._finder is not None
            self._finder.read(character)
            if self._finder.ended:
                self.text = (self.text + text[:place])[: -self._finder.ended]
                self.ended = "stop"
                return
        self.text += text
        if len(self.text) == self._length:
            self.ended = "length"

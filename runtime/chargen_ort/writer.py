"""Rows that are written side by side: their states, and the way to their next tokens.

Where the options are temperature alone, many steps go through ONNX Runtime in one run, the draws
among them (`chargen_ort.graphs.writer`); otherwise it is one step and one draw at a time. In either
way the tokens of a row follow from the state that it began with, its seed, its number and how often
it has drawn: neither the rows beside it nor the number of steps in a run change a bit.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine
from chargen_ort.options import SamplingOptions
from chargen_ort.runs import ConfinedRuns, Runs, steps_per_run
from chargen_ort.sampling import Draws, Sampler


@dataclass(frozen=True)
class RowState:
    """Where a row stands.

    Attributes:
        hidden: its state, float32 ``[num_layers, hidden_size]``.
        logits: scores of its next token, float32 ``[vocab_size]``.
        drawn: how many tokens it has drawn.
    """

    hidden: NDArray[np.float32]
    logits: NDArray[np.float32]
    drawn: int


def open_writer(
    engine: Engine, options: SamplingOptions, rows: Sequence[int]
) -> "RunWriter | StepWriter":
    """The quickest writer that draws by these options, for rows of these numbers.

    Raises:
        OptionError: a row number of another kind or out of range, or none.
    """
    if is_plain(options, len(engine.vocabulary)):
        return RunWriter(engine, Draws(options.seed, rows), options.temperature)
    return StepWriter(engine, Sampler(options, len(engine.vocabulary), rows))


def is_plain(options: SamplingOptions, vocab_size: int) -> bool:
    """Whether the options come to temperature alone, so that many steps go in one run."""
    filtered = 0 < options.top_k < vocab_size or options.top_p < 1 or options.min_p > 0
    greedy = options.temperature == 0  # which passes all filters
    return options.repetition_penalty == 1 and (greedy or not filtered)


class StepWriter:
    """Writes a token in one call, by any options.

    Args:
        engine: the model that is open.
        sampler: of the rows.

    Attributes:
        draws: the draws of the rows; `start_row` gives a place to another row.
        most_steps: how many steps `write` takes at most.
    """

    most_steps = 1

    def __init__(self, engine: Engine, sampler: Sampler) -> None:
        self.draws = self._sampler = sampler
        self._engine = engine
        self._stepper = engine.new_stepper(len(sampler.rows))
        self._first_rows = self._stepper.first_rows  # [vocab_size] each
        self._seen = sampler.seen(0)  # [vocab_size], or None without a penalty
        self._several = steps_per_run(engine.config.sizes, 1)

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The states, ``[batch, num_layers, hidden_size]``; they may be written to."""
        return self._stepper.hidden

    @property
    def logits(self) -> NDArray[np.float32]:
        """Scores of the next tokens, ``[batch, vocab_size]``; they may be written to."""
        return self._stepper.logits

    def drawn(self, place: int) -> int:
        """How many tokens the row at `place` has drawn."""
        return self.draws.drawn(place)

    def seen(self, place: int) -> NDArray[np.bool_] | None:
        """Which tokens the penalty counts, bool ``[vocab_size]``; None without one. Writable."""
        return self._sampler.seen(place)

    def settle(self) -> None:
        """Forget what was written ahead of what is drawn, which is nothing here."""

    def expect(self, most: int | None, certain: bool) -> None:
        """Hear how many more tokens one row will draw, which changes nothing here."""

    def draw(self) -> int:
        """Draw and read the next token of the one row that there is.

        Where it raises, or is interrupted, nothing was drawn.
        """
        stepper, sampler = self._stepper, self._sampler
        token = sampler.choose_one(self._first_rows[stepper.current])
        stepper.step(token)  # its last act is to turn to the new arrays
        # nothing is called in between, so that an interruption finds both done or neither
        sampler.column += 1
        if self._seen is not None:
            self._seen[token] = True
        return token

    def draw_several(self, most: int, end: int | None = None) -> list[int]:
        """Draw and read tokens: at least one, at most `most`, as many as are had at once.

        None is drawn after the token `end`.
        """
        tokens = [self.draw()]
        while len(tokens) < min(most, self._several) and tokens[-1] != end:
            tokens.append(self.draw())
        return tokens

    def write(self, steps: int) -> NDArray[np.int64]:
        """Draw and read a token in each row: ``[1, batch]``, as `steps` is 1."""
        tokens = self._sampler.sample(self._stepper.logits)
        self._stepper.step(tokens)
        return tokens[None]

    def keep_rows(self, places: list[int]) -> "StepWriter":
        """A smaller writer that goes on with the rows at `places`."""
        other = StepWriter(self._engine, self._sampler.keep_rows(places))
        other.hidden[:], other.logits[:] = self.hidden[places], self.logits[places]
        return other


class RunWriter:
    """Writes many tokens in one run, at a temperature and without filters or a penalty.

    Of one row it may run ahead of what is drawn. `draw` then hands out what is there, and whoever
    looks at the state has the run made again from where it began, with fewer uniforms: the state
    is the same, bit for bit.

    Args:
        engine: the model that is open.
        draws: of the rows.
        temperature: 0 takes the likeliest token, the lowest among equals.

    Attributes:
        draws: as given; `start_row` gives a place to another row.
        most_steps: how many steps `write` takes at most.
    """

    _idle: deque[Runs] | None = None  # where the runs go back to

    def __init__(
        self, engine: Engine, draws: Draws, temperature: float, confined: bool = False
    ) -> None:
        self.draws = draws
        self._engine = engine
        self._temperature = temperature
        greedy = temperature == 0
        self._open_session = partial(engine.writer_session, greedy, confined)
        idle = engine.idle_runs(greedy, confined) if len(draws.rows) == 1 else deque(maxlen=1)
        try:
            self._runs = idle.pop()  # of many threads one gets it
        except IndexError:
            kind = ConfinedRuns if confined else Runs
            self._runs = kind(engine.config.sizes, len(draws.rows))
        self._idle = idle
        self._runs.begin(temperature)
        self.most_steps = len(self._runs.tokens)
        self._source = 0  # which of two arrays holds the states before the last run
        self._ahead: list[int] = []  # tokens of the last run
        self._taken = 0  # how many of them were drawn
        self._reached = 0  # the steps of the run that the other arrays hold the states after
        self._unseen = 0  # tokens drawn since somebody looked at the state
        self._end: int | None = None  # the draw that is the last at most, where that is known
        self._certain = False  # whether it will be made

    def __del__(self) -> None:
        # for the next text: what binds arrays to a session takes as long as some steps
        if self._idle is not None:
            self._idle.append(self._runs)

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The states, ``[batch, num_layers, hidden_size]``; they may be written to."""
        self._settle()
        return self._runs.hidden[self._source]

    @property
    def logits(self) -> NDArray[np.float32]:
        """Scores of the next tokens, ``[batch, vocab_size]``; they may be written to."""
        self._settle()
        return self._runs.logits[self._source]

    def drawn(self, place: int) -> int:
        """How many tokens the row at `place` has drawn."""
        return self.draws.drawn(place) + self._taken

    def seen(self, place: int) -> None:
        """None, as there is no penalty."""

    def start_row(
        self, place: int, state: "RowState", row: int, seed: int, temperature: float
    ) -> None:
        """Give a place to another row, of a seed and temperature of its own, where it stands.

        `temperature` is 0 where that of the writer is, and above 0 where it is not.
        """
        self.hidden[place], self.logits[place] = state.hidden, state.logits
        self.draws.start_row(place, row, state.drawn, seed)
        self._runs.inverse[place] = 1 / temperature if temperature else 1

    def row_state(self, place: int) -> "RowState":
        """Where the row at `place` stands, copied."""
        return RowState(self.hidden[place].copy(), self.logits[place].copy(), self.drawn(place))

    def settle(self) -> None:
        """Forget what was written ahead of what is drawn."""
        self._settle()

    def expect(self, most: int | None, certain: bool) -> None:
        """Hear how many more tokens one row will draw at most, and whether so many for certain.

        It then runs no further. None: there may be any number.
        """
        self._end = None if most is None else self.drawn(0) + most
        self._certain = certain

    def draw(self) -> int:
        """Draw and read the next token of the one row that there is.

        Where it raises, or is interrupted, nothing was drawn.
        """
        if self._taken == len(self._ahead):
            self._run_ahead()
        token = self._ahead[self._taken]
        self._taken += 1
        return token

    def draw_several(self, most: int, end: int | None = None) -> list[int]:
        """Draw and read tokens: at least one, at most `most`, as many as are had at once.

        None is drawn after the token `end`.
        """
        if self._taken == len(self._ahead):
            self._run_ahead()
        tokens = self._ahead[self._taken : self._taken + most]
        if end in tokens:
            tokens = tokens[: tokens.index(end) + 1]
        self._taken += len(tokens)
        return tokens

    def write(self, steps: int) -> NDArray[np.int64]:
        """Draw and read tokens in each row: ``[steps, batch]``, good until the next call."""
        self._settle()
        self._run(steps, self.draws.ahead(steps))
        self._source ^= 1
        self.draws.column += steps
        return self._runs.tokens[:steps]

    def keep_rows(self, places: list[int]) -> "RunWriter":
        """A writer that goes on with the rows at `places`; one named twice is there twice."""
        other = RunWriter(self._engine, self.draws.keep_rows(places), self._temperature)
        other.hidden[:], other.logits[:] = self.hidden[places], self.logits[places]
        other._runs.inverse[:] = self._runs.inverse[places]
        return other

    def _run_ahead(self) -> None:
        """Write on in one row: first one token, so that it comes soon, and then further ahead."""
        self._settle()
        if self._certain:
            steps = max(1, 4 * self._unseen)
        else:  # what is written beyond the end is lost, but a run costs as much as a few steps
            steps = 1 << max(1, (self._unseen + 1) // 2).bit_length() - 1
        if self._end is not None and self._end > self.drawn(0):
            steps = min(steps, self._end - self.drawn(0))
        steps = min(steps, self.most_steps)
        self._run(steps, self.draws.ahead(steps))
        self._ahead, self._reached = self._runs.tokens[:steps, 0].tolist(), steps

    def _settle(self) -> None:
        """Have the states after the tokens that were drawn, and forget those that were not."""
        if self._taken not in (0, self._reached):
            self._reached = 0  # an interrupted run leaves no states
            self._run(self._taken)
            self._reached = self._taken
            self._unseen, self._certain = -self._taken, False  # whoever looked may look again
        # from here on nothing is called: an interruption finds all of it done, or nothing
        if self._taken:
            self._source ^= 1
            self.draws.column += self._taken
            self._unseen += self._taken
            self._taken = 0
        self._ahead = []

    def _run(self, steps: int, uniforms: NDArray[np.float64] | None = None) -> None:
        """Write `steps` tokens a row; `uniforms` ``[batch, steps]``, or None for those before."""
        if uniforms is not None:
            # what a cumulative sum reaches from the next larger number on, it exceeds
            np.nextafter(uniforms.T, 1, out=self._runs.uniforms[:steps, :, 0])
        self._runs.run(self._open_session, steps, self._source)

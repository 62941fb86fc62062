"""One text that is confined: what may not come next is masked before each draw.

With ``exact`` nothing is masked: a text that leaves its language is begun anew. What the masks let
through is the weight of a text, by which the draws can be compared with the model's own.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import shown_value
from chargen_ort.engine import Engine
from chargen_ort.errors import OptionError
from chargen_ort.graphs.writer import LOWEST
from chargen_ort.options import SamplingOptions
from chargen_ort.patterns import OUT, UNKNOWN
from chargen_ort.places import Place
from chargen_ort.runs import ConfinedRuns
from chargen_ort.sampling import Draws, StopFinder
from chargen_ort.writer import RunWriter, open_writer

MOST_TRIES = 10_000  # of a text that is drawn exactly
ENDED, ASTRAY = -1, -2  # instead of a token: the text has ended; it has left its language


def too_many_tries(options: SamplingOptions) -> OptionError:
    """The refusal of a language that the model's own texts hardly ever are in."""
    what = shown_value(options.pattern) if options.pattern is not None else "what was asked for"
    return OptionError(
        f"exact found no text for {what} in {MOST_TRIES:,} tries; leave out exact, or ask for what "
        "the model writes more often"
    )


class MaskedWriter(RunWriter):
    """Writes many tokens of one row in one run, which masks them by the tables of the language.

    Args:
        engine: the model that is open.
        draws: of the row.
        temperature: as of `RunWriter`.
        place: where the text stands; whoever draws moves it.
    """

    def __init__(self, engine: Engine, draws: Draws, temperature: float, place: Place) -> None:
        super().__init__(engine, draws, temperature, confined=True)
        self._place = place

    def ahead(self, most: int) -> list[int]:
        """The tokens that come next, at least one and at most `most`; none of them is drawn."""
        if self._taken == len(self._ahead):
            self._run_ahead()
        return self._ahead[self._taken : self._taken + most]

    def take(self, count: int) -> None:
        """Draw so many of those that are ahead."""
        self._taken += count

    def forget(self) -> None:
        """Forget what was written ahead of what is drawn: it was not in the tables."""
        self._ahead = self._ahead[: self._taken]

    def _run_ahead(self) -> None:
        self._settle()
        runs = self._runs
        if not isinstance(runs, ConfinedRuns):
            raise AssertionError("the runs of a confined text have a language")
        self._place.approach()
        control = self._place.control
        children, found = control.children, control.found
        runs.use(control.masks, children)
        runs.nodes[self._source][0] = node = self._place.node
        super()._run_ahead()
        # behind a token that the tables did not know nothing was masked; if another thread has
        # told them of some meanwhile, which ones those were is not known
        for count, token in enumerate(self._ahead, 1):
            node = children.item(node, token)
            if node in (UNKNOWN, OUT) or control.found != found:
                del self._ahead[count:]
                break


class ConfinedWriter:
    """Writes one text in its language: many steps in one run, or one where filters want it so.

    Args:
        engine: the model that is open.
        options: that confine the text.
        row: number of the row in the seed's family of texts.

    Attributes:
        place: where the text stands in its language.
    """

    def __init__(self, engine: Engine, options: SamplingOptions, row: int) -> None:
        self.place = Place(engine.control(options))
        self._exact = options.exact
        # whether a text may end before its length is reached
        self._may_end = options.pattern is not None or options.max_length is not None
        self._masked: MaskedWriter | None = None
        self._inner = open_writer(engine, options, (row,))
        if isinstance(self._inner, RunWriter) and not options.exact:
            draws = self._inner.draws
            self._masked = MaskedWriter(engine, draws, options.temperature, self.place)
            self._inner = self._masked

    @property
    def draws(self) -> Draws:
        """The draws of the row."""
        return self._inner.draws

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The state, ``[1, num_layers, hidden_size]``; it may be written to."""
        return self._inner.hidden

    @property
    def logits(self) -> NDArray[np.float32]:
        """Scores of the next token, ``[1, vocab_size]``; they may be written to."""
        return self._inner.logits

    def drawn(self, place: int) -> int:
        """How many tokens were drawn."""
        return self._inner.drawn(place)

    def seen(self, place: int) -> NDArray[np.bool_] | None:
        """Which tokens the penalty counts, bool ``[vocab_size]``; None without one. Writable."""
        return self._inner.seen(place)

    def settle(self) -> None:
        """Forget what was written ahead of what is drawn."""
        self._inner.settle()

    def expect(self, most: int | None, certain: bool) -> None:
        """Hear how many more tokens will be drawn at most; see `RunWriter.expect`."""
        self._inner.expect(most, certain and not self._may_end)

    def draw(self) -> int:
        """Draw and read the next token; `ENDED` where none may or does follow.

        With ``exact`` it may be `ASTRAY`: the text is then to be begun anew.
        """
        place, control = self.place, self.place.control
        if control.end is None and place.closed:
            return ENDED
        if self._masked is None:
            place.approach()
        token = self._draw_masked() if self._masked is None and not self._exact else None
        token = self._inner.draw() if token is None else token
        known = control.children[place.node, token] != UNKNOWN
        child = place.child(token)
        if not known and self._masked is not None:
            self._masked.forget()
        if child == OUT:
            return ENDED if control.may_leave and place.accepting else ASTRAY
        place.move(token, child)
        return token

    def _draw_masked(self) -> int:
        logits = self._inner.logits  # [1, vocab_size]
        before = logits.copy()
        np.copyto(logits[0], LOWEST, where=self.place.blocked)
        try:
            return self._inner.draw()
        except BaseException:
            logits[:] = before
            raise

    def draw_several(self, most: int, end: int | None = None) -> list[int]:
        """Draw and read tokens: at least one, at most `most`.

        None is drawn after the token `end`, nor after `ENDED`.
        """
        place, control = self.place, self.place.control
        if self._masked is None or (control.end is None and place.closed):
            return [self.draw()]
        ahead = self._masked.ahead(most)  # which may move the place to a node of a text's end
        children, node = control.children, place.node
        tokens: list[int] = []
        for token in ahead:  # `draw`, written out for what the tables know
            child = children.item(node, token)
            if child in (UNKNOWN, OUT):
                break
            node = child
            tokens.append(token)
            if token == end or (end is None and control.closed.item(node)):
                break
        if not tokens:
            return [self.draw()]
        self._masked.take(len(tokens))
        place.move_on(tokens, node)
        return tokens

    def draw_whole(
        self, most: int | None, stops: Sequence[str], over: Callable[[], bool]
    ) -> tuple[int, bool]:
        """Draw and read, freely, a whole text that is in its language.

        Args:
            most: characters at most; None is any number.
            stops: strings that end it.
            over: whether to leave off.

        Returns:
            how many tokens it has, which are the last of ``place.tokens`` (the end token may be
            one of them), and whether it has come to its end.

        Raises:
            OptionError: no try was in the language.
        """
        start = list(self.place.tokens)
        states = self.hidden.copy(), self.logits.copy()
        seen = self.seen(0)
        seen_before = None if seen is None else seen.copy()
        for _ in range(MOST_TRIES):
            last = self._last_of_whole(most, stops, over)
            if last != ASTRAY or over():
                ended = last in (ENDED, self.place.control.end)
                return len(self.place.tokens) - len(start), ended
            self.hidden[:], self.logits[:] = states
            if seen is not None and seen_before is not None:
                seen[:] = seen_before
            self.place.go_back(start)
        raise too_many_tries(self.place.control.options)

    def _last_of_whole(
        self, most: int | None, stops: Sequence[str], over: Callable[[], bool]
    ) -> int:
        """Draw to the end; returns the last token, `ENDED` or `ASTRAY`."""
        token, control, finder, size = -3, self.place.control, StopFinder(stops), 0
        while size != most and not over():
            token = self.draw()
            if token < 0 or token == control.end:
                return token
            for character in control.texts[token]:
                finder.read(character)
            if finder.ended:
                break
            size += int(control.lengths[token])
        return token


def log_weight(
    engine: Engine,
    options: SamplingOptions,
    before: Sequence[int],
    drawn: Sequence[int],
    length: int | None,
    ended: bool,
) -> float | None:
    """Log of the probability that the masks let through, summed over the draws of a text.

    The model writes a text that is confined with its own probability divided by the exponential of
    this: where many texts are drawn, weights of ``exp(log_weight)`` make them the model's own,
    given the language (importance sampling). The probabilities are those after temperature, and
    before filters and a penalty; at temperature 0 there are none.

    Args:
        engine: the model that wrote the text.
        options: that it was written with.
        before: tokens of the text before the first draw.
        drawn: tokens that were drawn, but for an end token.
        length: characters at most, as it was written with.
        ended: whether the model has then ended it by a token.

    Returns:
        nats, at most 0; 0 with ``exact``, None at temperature 0.
    """
    if options.exact or options.temperature == 0:
        return 0.0 if options.exact else None
    control = engine.control(options)
    size = int(control.lengths[list(before)].sum()) if before else 0
    place = Place(control, before, size, None if length is None else size + length)
    end = engine.vocabulary.end_token
    first = [engine.config.separator_token] if end is not None or not before else []
    read = [*first, *before, *drawn][: len(first) + len(before) + len(drawn)]
    hidden, offset, total = engine.zero_hidden(1), len(first) + len(before) - 1, 0.0
    piece = engine.steps_per_call()
    for begin in range(0, len(read), piece):
        token = np.array([read[begin : begin + piece]], dtype=np.int64)
        logits, hidden = engine.run_steps(token, hidden)  # [1, time, vocab_size]
        for at in range(begin, begin + token.shape[1]):
            number = at - offset
            if number < 0 or (number == len(drawn) and not ended):
                continue
            total += _let_through(logits[0, at - begin], place, options.temperature)
            if number < len(drawn):
                place.move(drawn[number], place.child(drawn[number]))
    return total


def _let_through(logits: NDArray[np.float32], place: Place, temperature: float) -> float:
    """Log of the probability of the tokens that may be drawn, from ``[vocab_size]``."""
    if not place.blocked.any():
        return 0.0
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)  # [vocab_size]
    allowed = weights[~place.blocked].sum()
    return float(np.log(allowed / weights.sum())) if allowed else -np.inf

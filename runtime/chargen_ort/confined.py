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
from chargen_ort.options import SamplingOptions
from chargen_ort.patterns import OUT, Control, Place
from chargen_ort.sampling import Draws, StopFinder
from chargen_ort.writer import RunWriter, StepWriter

MOST_TRIES = 10_000  # of a text that is drawn exactly
LOWEST = np.float32(-3e38)  # a score that is never drawn; infinity would make sums of nothing
ENDED, ASTRAY = -1, -2  # instead of a token: the text has ended; it has left its language


def too_many_tries(options: SamplingOptions) -> OptionError:
    """The refusal of a language that the model's own texts hardly ever are in."""
    what = shown_value(options.pattern) if options.pattern is not None else "what was asked for"
    return OptionError(
        f"exact found no text for {what} in {MOST_TRIES:,} tries; leave out exact, or ask for what "
        "the model writes more often"
    )


class ConfinedWriter:
    """Writes one text in its language, a step in one run.

    Args:
        inner: the writer of the one row.
        control: the language.
        exact: whether draws are free.

    Attributes:
        place: where the text stands in its language.
    """

    most_steps = 1

    def __init__(self, inner: RunWriter | StepWriter, control: Control, exact: bool) -> None:
        self._inner, self._exact = inner, exact
        self.place = Place(control)

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

    def expect(self, most: int | None, certain: bool) -> None:
        """Hear how many more tokens will be drawn, which changes nothing here."""

    def draw(self) -> int:
        """Draw and read the next token; `ENDED` where none may or does follow.

        With ``exact`` it may be `ASTRAY`: the text is then to be begun anew.
        """
        place, control = self.place, self.place.control
        if control.end is None and place.closed:
            return ENDED
        logits = self._inner.logits  # [1, vocab_size]
        if self._exact:
            token = int(self._inner.write(1)[0, 0])
        else:
            before = logits.copy()
            np.copyto(logits[0], LOWEST, where=place.blocked)
            try:
                token = int(self._inner.write(1)[0, 0])
            except BaseException:
                logits[:] = before
                raise
        child = place.child(token)
        if child == OUT:
            return ENDED if control.may_leave and place.accepting else ASTRAY
        place.move(token, child)
        return token

    def draw_several(self, most: int, end: int | None = None) -> list[int]:
        """Draw and read tokens: at least one, at most `most`.

        None is drawn after the token `end`, nor after `ENDED`.
        """
        tokens = [self.draw()]
        while len(tokens) < min(most, 16) and tokens[-1] not in (end, ENDED):
            tokens.append(self.draw())
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

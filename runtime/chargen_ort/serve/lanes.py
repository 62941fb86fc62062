"""Lanes: texts that are written side by side, each as it would be alone.

`RunLane` writes many steps in one run, for texts that temperature alone decides on; `StepLane` goes
step by step, for all others. Texts come and go between two calls of `run`, and what a text draws
depends on nothing but its own state, seed and row.
"""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine
from chargen_ort.graphs.writer import LOWEST
from chargen_ort.patterns import DONE, OUT
from chargen_ort.sampling import Draws, Sampler
from chargen_ort.serve.texts import Scores, Writing, join_scores, score_tokens
from chargen_ort.stepper import Stepper
from chargen_ort.vocabulary import Vocabulary
from chargen_ort.writer import RowState, RunWriter

_STEPS_AT_ONCE = 64
_SECONDS_AT_ONCE = 0.008  # of a lane that goes step by step
_WASTED = 8  # part of a run that may go beyond the ends of texts
_FREE = 4  # part of its rows that may be free: to make a smaller batch takes time too


def _state(text: Writing) -> RowState:
    if text.state is None:  # read before it joins
        raise AssertionError("a text joins a lane before its prompt was read")
    return text.state


def _texts(vocabulary: Vocabulary, tokens: NDArray[np.int64]) -> list[tuple[str, bool]]:
    """The text of each row of tokens ``[batch, steps]``, and whether the model ends it there."""
    end, steps = vocabulary.end_token, tokens.shape[1]
    if end is None:  # a character a token: all of them at once
        whole = vocabulary.decode(tokens.ravel())
        return [(whole[at : at + steps], False) for at in range(0, len(whole), steps)]
    is_end = tokens == end  # [batch, steps]
    counts = np.where(is_end.any(axis=1), is_end.argmax(axis=1), steps).tolist()
    rows = zip(tokens, counts, strict=True)
    return [(vocabulary.decode(row[:count]), count < steps) for row, count in rows]


class RunLane:
    """Texts of any seed and temperature, many steps in one run.

    Args:
        engine: the model that is open.
        greedy: the texts have a temperature of 0; otherwise none of them has.
    """

    def __init__(self, engine: Engine, greedy: bool) -> None:
        self._engine = engine
        self._temperature = 0.0 if greedy else 1.0
        self._writer: RunWriter | None = None
        self._places: list[Writing | None] = []  # by row of the writer

    @property
    def texts(self) -> list[Writing]:
        """The texts that it writes."""
        return [text for text in self._places if text is not None]

    def join(self, texts: Sequence[Writing]) -> None:
        """Take texts, whose states then stand in the lane."""
        free = [place for place, text in enumerate(self._places) if text is None]
        size = len(self._places) + max(0, len(texts) - len(free))
        writer = self._grown(size)
        free += range(len(self._places), size)
        self._places += [None] * (size - len(self._places))
        for place, text in zip(free, texts, strict=False):
            wanted, options = text.wanted, text.wanted.options
            seed = options.seed or 0
            writer.start_row(place, _state(text), wanted.row, seed, options.temperature)
            self._places[place], text.state = text, None

    def _grown(self, size: int) -> RunWriter:
        if self._writer is None:
            self._writer = RunWriter(self._engine, Draws(0, [0] * size), self._temperature)
        elif size > len(self._places):
            rows = list(range(len(self._places)))
            self._writer = self._writer.keep_rows([*rows, *[0] * (size - len(rows))])
        return self._writer

    def leave(self, text: Writing) -> None:
        """Give a text up, with its state."""
        place = self._places.index(text)
        if self._writer is not None:
            text.state = self._writer.row_state(place)
        self._places[place] = None

    def run(self) -> int:
        """Write on in all texts, and let those that end go; returns how many there were."""
        self._tidy()
        texts = self.texts
        if self._writer is None or not texts:
            return 0
        before = {
            place: self._writer.row_state(place)
            for place, text in enumerate(self._places)
            if text is not None and text.wanted.top is not None
        }
        steps = self._steps(texts, self._writer.most_steps)
        tokens = self._writer.write(steps).T  # [batch, steps]
        vocabulary = self._engine.vocabulary
        by_character = vocabulary.unit == "char"
        written = _texts(vocabulary, tokens) if by_character else []
        for place, text in enumerate(self._places):
            if text is None:
                continue
            if not by_character:
                text.take_tokens(tokens[place].tolist(), vocabulary.end_token)
                if text.ended:
                    self._places[place] = None
                continue
            scores = None
            if place in before and text.wanted.top is not None:
                scores = self._scores(before[place], tokens[place].copy(), text.wanted.top)
            own, ends = written[place]
            text.take(own, scores, ends)
            if text.ended:
                self._places[place] = None
        return len(texts)

    def _tidy(self) -> None:
        """Go on with a smaller batch, where too many rows are free."""
        taken = [place for place, text in enumerate(self._places) if text is not None]
        if not taken:
            self._writer, self._places = None, []
        elif self._writer is not None and _FREE * (len(self._places) - len(taken)) > len(
            self._places
        ):
            self._writer = self._writer.keep_rows(taken)
            self._places = [self._places[place] for place in taken]

    @staticmethod
    def _steps(texts: list[Writing], most: int) -> int:
        """How many steps to write: many, but few beyond the ends of texts."""
        expected = np.array([text.expected for text in texts])
        least, steps = min(most, int(expected.min())), most
        while steps > least and (
            _WASTED * np.maximum(steps - expected, 0).sum() > steps * len(texts)
        ):
            steps //= 2
        return max(least, steps, 1)

    def _scores(self, before: RowState, tokens: NDArray[np.int64], top: int) -> Scores:
        """Scores of tokens ``[time]`` that were written from where a row stood."""
        scores = [score_tokens(before.logits[None], tokens[:1], top)]
        if len(tokens) > 1:
            logits, _ = self._engine.run_steps(tokens[None, :-1], before.hidden[None])
            scores.append(score_tokens(logits[0], tokens[1:], top))
        return join_scores(scores)


class StepLane:
    """Texts of any options, a step at a time.

    Args:
        engine: the model that is open.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stepper: Stepper | None = None
        self._bias: list[NDArray[np.float32] | None] = []  # by text, [vocab_size]
        self.texts: list[Writing] = []

    def join(self, texts: Sequence[Writing]) -> None:
        """Take texts, whose states then stand in the lane."""
        self._keep(self.texts, texts)
        for text in texts:
            if text.sampler is None:
                options, vocab_size = text.wanted.options, len(self._engine.vocabulary)
                text.sampler = Sampler(options, vocab_size, (text.wanted.row,))
                text.sampler.start_row(0, text.wanted.row, _state(text).drawn)
                text.sampler.see(0, np.append(text.prompt.seen, text.healed).astype(np.int64))
                text.counts = np.bincount(np.array(text.healed, dtype=int), minlength=vocab_size)
            text.state = None

    def leave(self, text: Writing) -> None:
        """Give a text up, with its state."""
        place = self.texts.index(text)
        if self._stepper is not None:
            hidden, logits = self._stepper.hidden[place], self._stepper.logits[place]
            text.state = RowState(hidden.copy(), logits.copy(), text.written)
        self._keep([other for other in self.texts if other is not text])

    def _keep(self, kept: Sequence[Writing], new: Sequence[Writing] = ()) -> None:
        """Go on with some of the texts, and new ones."""
        places = [self.texts.index(text) for text in kept]
        old, self.texts = self._stepper, [*kept, *new]
        self._bias = [self._bias_of(text) for text in self.texts]
        if not self.texts:
            self._stepper = None
            return
        self._stepper = self._engine.new_stepper(len(self.texts))
        hidden, logits = self._stepper.hidden, self._stepper.logits
        if old is not None and places:
            hidden[: len(places)], logits[: len(places)] = old.hidden[places], old.logits[places]
        for place, text in enumerate(new, len(places)):
            state = _state(text)
            hidden[place], logits[place] = state.hidden, state.logits

    def _bias_of(self, text: Writing) -> NDArray[np.float32] | None:
        return text.wanted.bias_array(len(self._engine.vocabulary))

    def run(self) -> int:
        """Write on in all texts, and let those that end go; returns how many there were."""
        stepper, texts = self._stepper, self.texts
        if stepper is None:
            return 0
        begun = time.monotonic()
        drawn: list[NDArray[np.int64]] = []
        scores: list[list[Scores]] = [[] for _ in texts]
        ends: dict[Writing, int] = {}  # the steps before a text that is confined has ended
        most = min(_STEPS_AT_ONCE, *[text.expected for text in texts])
        while not drawn or (len(drawn) < most and time.monotonic() - begun < _SECONDS_AT_ONCE):
            logits = stepper.logits  # [batch, vocab_size]
            pairs = zip(texts, self._bias, logits, strict=True)
            tokens = np.array([_draw(text, bias, row) for text, bias, row in pairs])  # [batch]
            for place, text in enumerate(texts):
                if text.wanted.top is not None:
                    row, token = logits[place, None], tokens[place, None]
                    scores[place].append(score_tokens(row, token, text.wanted.top))
                if text.place is not None and text not in ends and not _move(text, tokens[place]):
                    ends[text] = len(drawn)
            stepper.step(tokens)
            drawn.append(tokens)
        tokens, vocabulary = np.stack(drawn, axis=1), self._engine.vocabulary  # [batch, steps]
        if vocabulary.unit == "char":
            written = _texts(vocabulary, tokens)
            for text, (own, ended), found in zip(texts, written, scores, strict=True):
                at = ends.get(text, len(own))
                by_token = ended and at == len(own)  # what is drawn after the end has no part in it
                told = join_scores(found).part(0, at + by_token) if found else None
                text.take(own[:at], told, ended or text in ends)
        else:
            for text, row in zip(texts, tokens.tolist(), strict=True):
                text.take_tokens(row[: ends.get(text)], vocabulary.end_token, text in ends)
        if any(text.ended for text in texts):
            self._keep([text for text in texts if not text.ended])
        return len(texts)


def _draw(text: Writing, bias: NDArray[np.float32] | None, logits: NDArray[np.float32]) -> int:
    """The next token of a text, from logits ``[vocab_size]``; the draw is counted."""
    sampler, counts, wanted = text.sampler, text.counts, text.wanted
    if sampler is None or counts is None:
        raise AssertionError("a text is in the lane before it has a sampler")
    if bias is not None:
        less = wanted.presence * (counts > 0) + wanted.frequency * counts
        logits = (logits + bias - less).astype(np.float32)
    if text.place is not None and not text.place.blocked.all():
        logits = np.where(text.place.blocked, LOWEST, logits)
    token = sampler.choose_one(logits)
    sampler.column += 1
    seen = sampler.seen(0)
    if seen is not None:
        seen[token] = True
    counts[token] += 1
    return token


def _move(text: Writing, token: int) -> bool:
    """Go on in the language of a text that is confined; False where it has ended before `token`."""
    place = text.place
    if place is None:
        raise AssertionError("a text moves in its language before it is confined")
    if place.control.end is None and place.closed:
        return False
    child = place.child(int(token))
    if child == OUT:
        return False
    place.move(int(token), child)
    return child != DONE

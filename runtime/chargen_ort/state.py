"""The state of one text: what was fed, what comes next, and where its draws stand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import instance, token_array, whole_number
from chargen_ort.confined import ConfinedWriter, log_weight
from chargen_ort.engine import Engine
from chargen_ort.errors import ArtifactError, OptionError, UnknownCharacterError
from chargen_ort.healing import heal, masked, new_healer, next_characters
from chargen_ort.options import MAX_LENGTH, SamplingOptions
from chargen_ort.pieces import MAX_RUN
from chargen_ort.places import Place
from chargen_ort.ranking import check_top, rank_probabilities
from chargen_ort.snapshots import Course, Header, parse_snapshot, snapshot_bytes
from chargen_ort.vocabulary import UnknownPolicy, check_policy
from chargen_ort.writer import RunWriter, StepWriter, open_writer

_AT_ONCE = 256  # characters


class TextState:
    """A text in the making: feed it, look at what may come, draw, fork, save and restore.

    Made by `CharGenerator.state`. One state belongs to one thread at a time; any number of states
    may run at once.

    Args:
        engine: the model that is open, `CharGenerator.engine`.
        options: how it draws.
        row: number of the row in the seed's family of texts.
        unknown: policy for characters that the model does not know; None is the model's own.

    Attributes:
        piece_size: how many tokens it feeds in one call of the graph.
        texts: of the tokens, by number; the end token's is empty.

    Raises:
        OptionError: an argument of another kind or out of its range.
    """

    def __init__(
        self,
        engine: Engine,
        options: SamplingOptions,
        row: int = 0,
        unknown: UnknownPolicy | None = None,
    ) -> None:
        instance("engine", engine, Engine)
        instance("options", options, SamplingOptions)
        vocabulary = engine.vocabulary
        vocabulary.check_writable(options.stops)
        self._engine = engine
        self._options = options
        self._unknown = check_policy(unknown)
        self.texts = engine.config.tokens  # the end token's is empty
        self._by_character = vocabulary.unit == "char"  # each token is a character
        self._decoder = vocabulary.decoder()
        self._rest = self._ready = ""  # taken back from what was fed; drawn and not handed out
        self._end = vocabulary.end_token
        self._writer: RunWriter | StepWriter | ConfinedWriter
        self._place: Place | None = None
        self._ended_tokens: list[int] = []  # of the last text that is confined and has ended
        if options.controlled:
            self._writer = ConfinedWriter(engine, options, row)
            self._place = self._writer.place
        else:
            self._writer = open_writer(engine, options, (row,))
        self._fed = False
        self.piece_size = engine.steps_per_call()

    @property
    def options(self) -> SamplingOptions:
        """How it draws."""
        return self._options

    @property
    def vocab_size(self) -> int:
        """How many tokens the model has."""
        return len(self.texts)

    @property
    def at_beginning(self) -> bool:
        """Whether nothing of a text was read or drawn yet: of the first, or after an end."""
        return not self._fed and not self._rest

    @property
    def seed(self) -> int:
        """The seed of the draws: the one given, or the fresh one that was taken instead."""
        return self._writer.draws.seed

    @property
    def drawn(self) -> int:
        """How many tokens were drawn so far."""
        return self._writer.drawn(0)

    def feed(self, text: str) -> None:
        """Read `text` as if it had been written: all of it, or nothing where this raises.

        Of the units word and bpe, its last run is kept back, see `chargen_ort.healing`, unless the
        text is confined. Characters that were drawn and not handed out, see `rest`, are no part of
        the text any more; the model has read them nevertheless.

        Raises:
            UnknownCharacterError: it has a character that the model does not know.
            OptionError: not a string, or the text is confined and cannot go on so.
        """
        vocabulary = self._engine.vocabulary
        if self._by_character:
            self._feed(vocabulary.encode(text, self._unknown))
            return
        instance("a text", text, str)
        known = vocabulary.known_part(text, self._unknown or vocabulary.unknown)
        if known and self._place is not None:  # nothing is kept back
            self._feed(vocabulary.encode(known))
            self._ready = ""
        elif known:
            tokens, rest = vocabulary.encode_open(self._rest + known)
            self._feed(tokens)
            self.keep_back(rest)

    def feed_piece(self, tokens: NDArray[np.integer]) -> None:
        """Feed a few tokens ``[time]``; none of them are nothing fed.

        Raises:
            OptionError: not integers ``[time]``, a token that the model does not have, or the text
                is confined and cannot go on so.
        """
        given = token_array(tokens, len(self.texts), 1)
        if len(given):
            if self._rest:
                self._feed(self._engine.vocabulary.encode(self._rest))
            self._feed(given)
            self.keep_back("")

    def keep_back(self, rest: str) -> None:
        """Have what follows begin with `rest`, a run of characters that the model knows.

        Raises:
            OptionError: `rest` is longer than a run; or it is not empty, and the model's unit is
                char or byte, or the text is confined.
        """
        instance("rest", rest, str)
        if rest:
            free = self._engine.vocabulary.has_pieces and self._place is None
            longest = MAX_RUN + 1 if free else 0
            if len(rest) > longest:
                raise OptionError(f"rest has {len(rest)} characters; give at most {longest}")
            self._engine.vocabulary.encode(rest, "error")
        self._rest, self._ready = rest, ""
        self._decoder.restart()

    def _feed(self, tokens: NDArray[np.int64]) -> None:
        """Feed tokens ``[time]``, `piece_size` in one call of the graph.

        Before the first of a text that has an end comes its separator, which is the end token.
        """
        if not len(tokens):
            return
        if self._place is not None:
            self._place.check(tokens.tolist())
        if not self._fed and self._end is not None:
            self._begin_text()
        self._read(tokens)
        if self._place is not None:
            self._place.feed(tokens.tolist())

    def _read(self, tokens: NDArray[np.int64]) -> None:
        now, logits, seen = self._writer.hidden, self._writer.logits, self._writer.seen(0)
        hidden = now  # [1, num_layers, hidden_size]
        for begin in range(0, len(tokens), self.piece_size):
            piece = tokens[None, begin : begin + self.piece_size]
            scores, hidden = self._engine.run_steps(piece, hidden)
        last = scores[:, -1]  # [1, vocab_size]
        # from here on nothing is called: an interruption finds all of it done, or nothing
        now[:] = hidden
        logits[:] = last
        self._fed = True
        if seen is not None:
            seen[tokens] = True

    def begin(self) -> None:
        """Where nothing was fed yet, feed the separator that stands before a text."""
        if self._fed:
            return
        if self._end is not None:
            self._begin_text()
        else:
            self._writer.hidden[:] = 0  # a text that was confined may have ended before
            self._read(np.array([self._engine.config.separator_token]))

    def _begin_text(self) -> None:
        """Feed the end token before the first character: it is no token that a text has seen."""
        token = np.array([[self._end]])  # [1, time]
        logits, hidden = self._engine.run_steps(token, self._engine.zero_hidden(1))
        seen = self._writer.seen(0)
        if seen is not None:
            seen[:] = False
        self._writer.hidden[:], self._writer.logits[:] = hidden, logits[:, -1]
        self._fed = True

    def logits(self) -> NDArray[np.float32]:
        """Scores of the next token before temperature, a copy, float32 ``[vocab_size]``.

        Tokens that do not go on as the run does that was kept back have minus infinity.
        """
        self.begin()
        if self._rest:
            return masked(self._engine.vocabulary, self._writer.logits[0], self._rest)
        return np.array(self._writer.logits[0])

    def hidden(self) -> NDArray[np.float32]:
        """The hidden state, a copy, float32 ``[num_layers, hidden_size]``."""
        return np.array(self._writer.hidden[0] if self._fed else self._engine.zero_hidden(1)[0])

    def probabilities(self, top: int | None = None) -> dict[str, float]:
        """The model's probabilities of the next character, likeliest first; `top` of them or all.

        They are the model's own: no temperature, no filters. Of units other than char, see
        `chargen_ort.healing.next_characters`.
        """
        if self._by_character:
            return rank_probabilities(self.logits(), self.texts, top)
        top = check_top(top)
        if self._ready:
            return {self._ready[0]: 1.0}
        self.begin()
        state = self._writer.hidden, self._writer.logits[0]
        found = next_characters(self._engine, *state, self._rest, self._decoder.partial)
        return dict(islice(found.items(), top))

    def draw(self) -> str:
        """Draw the next character with the sampling options, feed it, and return it.

        An empty string is the end of the text, of a model whose texts have one: the state then
        stands before the next text, and its draws go on. Where it raises, or is interrupted,
        nothing was drawn: the next call draws the same.
        """
        if self._options.exact:
            raise OptionError(
                "exact is for whole texts, which it may begin anew; use stream, generate or a batch"
            )
        if not self._by_character:
            text = self._next_text()
            self._ready = text[1:]
            return text[:1]
        if not self._fed:
            self.begin()
        token = self._writer.draw()
        if token == self._end or token < 0:
            self._end_text()
            return ""
        return self.texts[token]

    def _end_text(self) -> None:
        """Stand before the next text."""
        self._fed = False
        self._decoder.restart()
        if self._place is not None:
            self._ended_tokens = [each for each in self._place.tokens if each != self._end]
            self._place.restart()

    def confine(self, start: NDArray[np.int64], length: int | None) -> None:
        """Have a text that is confined go on by `start` and end within `length` more characters.

        Stop strings are looked for behind `start`. A text that is not confined is as it was.

        Raises:
            OptionError: no text of its language does.
        """
        if self._place is not None:
            self._writer.settle()  # what was written ahead was within other bounds
            ready = 0 if len(start) else len(self._ready)
            self._place.confine(start.tolist(), length, ready)

    def draw_whole(self, most: int | None, over: Callable[[], bool]) -> str:
        """Draw, with ``exact``, all of a text that is in its language: see `ConfinedWriter`.

        Args:
            most: characters at most; None is any number.
            over: whether to leave off.

        Raises:
            OptionError: no try was in the language, or the options are without ``exact``.
        """
        if not isinstance(self._writer, ConfinedWriter) or not self._options.exact:
            raise OptionError("draw_whole is for options with exact; use draw or draw_piece")
        self.begin()
        count, ended = self._writer.draw_whole(most, self._options.stops, over)
        tokens = self._writer.place.tokens
        text = "".join([self.texts[token] for token in tokens[len(tokens) - count :]])
        if ended:
            self._end_text()
        return text

    def log_weight(
        self, before: Sequence[int], drawn: Sequence[int], length: int | None, ended: bool
    ) -> float | None:
        """The log weight of the tokens `drawn`; see `chargen_ort.confined.log_weight`."""
        ends = ended and self._end is not None
        return log_weight(self._engine, self._options, before, drawn, length, ends)

    def tokens_after(self, count: int, ended: bool) -> list[int]:
        """The tokens but the first `count` of a text that is confined, without an end token.

        With `ended`, of the last text that has ended.
        """
        place = self._place
        return [] if place is None else (self._ended_tokens if ended else place.tokens)[count:]

    def text_tokens(self) -> list[int] | None:
        """The tokens of a text that is confined, so far; None of another."""
        return None if self._place is None else list(self._place.tokens)

    def draw_piece(self, most: int) -> str:
        """Draw the next characters, at least one and at most `most`, as many as are had at once.

        Fewer, or none, where the text ends: the state then stands before the next text, see
        `at_beginning`. One that is interrupted may have drawn some of them.

        Raises:
            OptionError: `most` is not 1 or more.
        """
        most = whole_number("most", most, 1, MAX_LENGTH)
        if self._options.exact:
            return self.draw()
        if not self._by_character:
            text = ""
            while len(text) < min(most, _AT_ONCE) and (following := self._next_text()):
                text, self._ready = text + following, ""
            self._ready = text[most:]
            return text[:most]
        self.begin()
        tokens = self._writer.draw_several(most, self._end)
        if tokens[-1] == self._end or tokens[-1] < 0:
            self._end_text()
            tokens = tokens[:-1]
        return "".join([self.texts[token] for token in tokens])

    def _next_text(self) -> str:
        """The characters that come next, some at once; none where the text has ended."""
        while not self._ready:
            self.begin()
            if self._rest:
                self._heal()
                continue
            token = self._writer.draw()
            if token == self._end or token < 0:
                self._end_text()
                break
            self._ready = self._decoder.feed((token,))
        return self._ready

    def _heal(self) -> None:
        """Draw tokens that cover the run that was kept back."""
        writer, seed = self._writer, self.seed
        row, drawn = writer.draws.rows[0], self.drawn
        sampler = new_healer(self._options, seed, row, drawn, len(self.texts))
        counted, before = sampler.seen(0), writer.seen(0)
        if counted is not None and before is not None:
            counted[:] = before
        healed = heal(self._engine, sampler, writer.hidden, writer.logits[0], self._rest)
        writer.hidden[:], writer.logits[:] = healed.hidden, healed.logits
        writer.draws.start_row(0, row, drawn + len(healed.tokens))
        if counted is not None and before is not None:
            before[:] = counted
        self._rest, self._ready = "", healed.text

    def rest(self) -> str:
        """Hand out the characters that were drawn with others and have not come yet."""
        ready, self._ready = self._ready, ""
        return ready

    def expect(self, most: int | None, certain: bool = False) -> None:
        """Hear how many more characters will be drawn at most, and whether so many for certain.

        The state may run ahead of what is drawn: then it runs no further, and there the sooner.
        It changes no character. None: there may be any number.

        Raises:
            OptionError: `most` is not a whole number, or `certain` not a bool.
        """
        instance("certain", certain, bool)
        if most is not None:
            most = whole_number("most", most, 0, MAX_LENGTH)
        self._writer.expect(most, certain and self._end is None and self._by_character)

    def fork(self) -> "TextState":
        """An independent copy that goes on with the same draws; it shares the model."""
        return TextState.restore(self._engine, self.snapshot())

    def __copy__(self) -> "TextState":
        return self.fork()

    def __deepcopy__(self, memo: dict[int, object]) -> "TextState":
        return self.fork()

    def __reduce__(self) -> tuple[object, tuple[Engine, bytes]]:
        return TextState.restore, (self._engine, self.snapshot())

    def snapshot(self) -> bytes:
        """All of the state as bytes, for `CharGenerator.restore` in this or another process."""
        writer = self._writer
        seen = writer.seen(0) if self._fed else None
        if not self._fed:  # before a text there is no state
            writer.hidden[:], writer.logits[:] = 0, 0
        header = Header(
            model=self._engine.artifact.sha256,
            options=self.options,
            seed=self.seed,
            row=writer.draws.rows[0],
            drawn=self.drawn,
            fed=self._fed,
            unknown=self._unknown,
            seen=() if seen is None else tuple(np.flatnonzero(seen).tolist()),
            rest=self._rest,
            ready=self._ready,
            partial=tuple(self._decoder.partial),
        )
        return snapshot_bytes(header, (writer.hidden, writer.logits), self._course())

    def _course(self) -> Course | None:
        place = self._place
        if place is None:
            return None
        return Course(tokens=tuple(place.tokens), begun=place.begun, room=place.room)

    @classmethod
    def restore(cls, engine: Engine, snapshot: bytes) -> "TextState":
        """The state that `snapshot` was taken of.

        Raises:
            ArtifactError: not a snapshot, damaged, or of another model.
            OptionError: not an engine, or not bytes.
        """
        instance("engine", engine, Engine)
        header, floats, course = parse_snapshot(snapshot, engine)
        try:
            options = replace(header.options, seed=header.seed)
            state = cls(engine, options, header.row, header.unknown)
            seen = np.array(header.seen, dtype=np.int64)
            seen = token_array(seen, len(engine.vocabulary), 1)
            state.keep_back(header.rest)
            if header.partial and engine.vocabulary.unit != "byte":
                raise OptionError("it has bytes, of a model that has none")
            engine.vocabulary.known_part(header.ready, "error")
            state._ready = header.ready
            state._decoder.restart(bytes(header.partial))
            if state._place is not None and course is not None:
                tokens = token_array(np.array(course.tokens, dtype=np.int64), len(state.texts), 1)
                state._place.restart(tokens.tolist(), course.begun, course.room)
        except (OptionError, UnknownCharacterError, ValueError) as error:
            raise ArtifactError(f"the snapshot is damaged: {error}") from None
        writer = state._writer
        writer.draws.start_row(0, header.row, header.drawn)
        counted = writer.seen(0)
        if counted is not None:
            counted[seen] = True
        state._fed = header.fed
        writer.hidden[:] = floats[: -len(engine.vocabulary)].reshape(writer.hidden.shape)
        writer.logits[:] = floats[-len(engine.vocabulary) :]
        return state

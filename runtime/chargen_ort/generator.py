"""The public class: load a model once, then stream, generate and score from any thread."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Unpack

import numpy as np

from chargen_ort.artifact import Artifact, parse_artifact, read_artifact
from chargen_ort.batch import write_texts
from chargen_ort.checks import instance, iterate_texts, number, printable, whole_number
from chargen_ort.config import Config
from chargen_ort.engine import Engine
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.options import MAX_LENGTH, ROW_LIMIT, SamplingOptions, SamplingOverrides
from chargen_ort.ranking import check_top
from chargen_ort.sampling import fresh_seed
from chargen_ort.score import Score
from chargen_ort.scoring import iterate_scores, score_text, score_texts
from chargen_ort.state import TextState
from chargen_ort.stepper import MAX_BATCH, Stepper
from chargen_ort.stream import TextStream
from chargen_ort.vocabulary import UnknownPolicy, Vocabulary, check_policy

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

DEFAULT_LENGTH = 200
DEFAULT_BATCH = 64
DEFAULT_SCORED = 256
DEFAULT_ITERATED = 16_384
MAX_TIMEOUT = 1e9  # seconds, 31 years


class CharGenerator:
    """A loaded model. Share one between threads: it has no state that a call changes.

    Args:
        artifact: as `read_artifact` gives it.
        threads: intra-op threads; more pay only for models of millions of weights.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph.
        OptionError: not an artifact, or `threads` out of range.

    Attributes:
        engine: the model that is open; what is below this class takes it.
    """

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.engine = Engine(artifact, threads)  # and nothing else, so that pickles share it

    @classmethod
    def load(cls, path: str | os.PathLike[str], threads: int = 1) -> "CharGenerator":
        """Read, check and open a model file.

        Raises:
            ArtifactError: missing, damaged, foreign, or of a newer format; its text names the file.
            OptionError: not a path, or `threads` out of range.
        """
        artifact = read_artifact(path)
        try:
            return cls(artifact, threads)
        except ArtifactError as error:
            raise ArtifactError(f"{printable(os.fspath(path))}: {error}") from None

    @classmethod
    def from_bytes(cls, data: bytes, threads: int = 1) -> "CharGenerator":
        """Check and open the bytes of a model file.

        Raises:
            ArtifactError: damaged, foreign, or of a newer format.
            OptionError: not bytes, or `threads` out of range.
        """
        return cls(parse_artifact(data), threads)

    @property
    def artifact(self) -> Artifact:
        """The model file, as it was read."""
        return self.engine.artifact

    @property
    def config(self) -> Config:
        """What the model is."""
        return self.engine.config

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the model, and the characters that it knows."""
        return self.engine.vocabulary

    @property
    def session(self) -> "InferenceSession":
        """The ONNX Runtime session; in a forked child a new one, made at first use."""
        return self.engine.session

    def new_stepper(self, batch: int) -> Stepper:
        """Arrays and bindings for `batch` rows, whose state is zero.

        Raises:
            OptionError: `batch` is not a whole number from 1 to 65,536.
        """
        return self.engine.new_stepper(batch)

    def options(
        self, options: SamplingOptions | None = None, **overrides: Unpack[SamplingOverrides]
    ) -> SamplingOptions:
        """`options`, or else the model's defaults, with `overrides` on top.

        Raises:
            OptionError: a value out of range, an option that does not exist, or a stop string that
                the model cannot write.
        """
        if options is not None:
            instance("options", options, SamplingOptions)
        unknown = sorted(set(overrides) - {field.name for field in fields(SamplingOptions)})
        if unknown:
            raise OptionError(f"no such option: {', '.join(unknown)}")
        chosen = replace(options or self.config.sampling, **overrides)
        self.vocabulary.check_writable(chosen.stops)
        return chosen

    def stream(
        self,
        start: str = "",
        length: int | None = None,
        *,
        options: SamplingOptions | None = None,
        row: int = 0,
        unknown: UnknownPolicy | None = None,
        timeout: float | None = None,
        **overrides: Unpack[SamplingOverrides],
    ) -> "TextStream":
        """Write on from `start`, character by character.

        Args:
            start: the text to go on from, not part of the result; empty begins a text.
            length: new characters at most; None goes on until the end, a stop string or `close`.
            options: how to draw; None takes the model's defaults.
            row: number of the row in the seed's family of texts; row i of a batch is row i here.
            unknown: policy for characters of `start` that the model lacks; None is the model's.
            timeout: seconds after which the stream ends.
            overrides: single sampling options, such as ``temperature=0.7``.

        Raises:
            OptionError: an option out of range.
            UnknownCharacterError: `start` has a character that the model does not know.
        """
        chosen = self.options(options, **overrides)
        length, deadline = _length(length), _deadline(timeout)
        tokens, rest = self.vocabulary.encode_open(start, unknown, chosen.controlled)
        state = TextState(self.engine, chosen, whole_number("row", row, 0, ROW_LIMIT - 1), unknown)
        return TextStream(state, tokens, length, chosen.stops, deadline, rest)

    def generate(
        self,
        start: str = "",
        length: int = DEFAULT_LENGTH,
        *,
        options: SamplingOptions | None = None,
        row: int = 0,
        unknown: UnknownPolicy | None = None,
        timeout: float | None = None,
        **overrides: Unpack[SamplingOverrides],
    ) -> str:
        """The text that `stream` writes, joined; the arguments are the same."""
        if length is None:
            raise OptionError("length is None; give a number, or use stream for unbounded text")
        stream = self.stream(
            start,
            length,
            options=options,
            row=row,
            unknown=unknown,
            timeout=timeout,
            **overrides,
        )
        return stream.read()

    def generate_batch(
        self,
        starts: Sequence[str],
        length: int = DEFAULT_LENGTH,
        *,
        options: SamplingOptions | None = None,
        batch_size: int = DEFAULT_BATCH,
        unknown: UnknownPolicy | None = None,
        **overrides: Unpack[SamplingOverrides],
    ) -> list[str]:
        """A text for each start, in their order; text i is row i.

        Raises:
            OptionError: no starts, or an option out of range.
            UnknownCharacterError: a start has a character that the model does not know.
        """
        starts = _list_of_texts("starts", starts)
        for start in starts:
            self.vocabulary.encode(start, unknown)  # refuse a bad one before any is written
        texts = [""] * len(starts)
        finished = self.iterate_batch(
            starts, length, options=options, batch_size=batch_size, unknown=unknown, **overrides
        )
        for index, text in finished:
            texts[index] = text
        return texts

    def iterate_batch(
        self,
        starts: Iterable[str],
        length: int = DEFAULT_LENGTH,
        *,
        options: SamplingOptions | None = None,
        batch_size: int = DEFAULT_BATCH,
        unknown: UnknownPolicy | None = None,
        **overrides: Unpack[SamplingOverrides],
    ) -> Iterator[tuple[int, str]]:
        """Texts as they are finished, as (index of the start, text); `starts` may be endless.

        A row that ends leaves the batch and the next start takes its place.
        """
        texts = iterate_texts("starts", starts)
        length = whole_number("length", length, 0, MAX_LENGTH)
        batch_size = whole_number("batch_size", batch_size, 1, MAX_BATCH)
        unknown = check_policy(unknown)
        chosen = self.options(options, **overrides)
        if chosen.seed is None:
            chosen = replace(chosen, seed=fresh_seed())
        written = write_texts(self.engine, texts, length, chosen, batch_size, unknown)
        return ((one.index, one.text) for one in written)

    def state(
        self,
        start: str = "",
        *,
        options: SamplingOptions | None = None,
        row: int = 0,
        unknown: UnknownPolicy | None = None,
        **overrides: Unpack[SamplingOverrides],
    ) -> TextState:
        """The state of a text that begins with `start`, to feed, draw, fork and save.

        Raises:
            OptionError: an option out of range.
            UnknownCharacterError: `start` has a character that the model does not know.
        """
        chosen = self.options(options, **overrides)
        state = TextState(self.engine, chosen, whole_number("row", row, 0, ROW_LIMIT - 1), unknown)
        state.feed(start)
        return state

    def resume(
        self, state: TextState, length: int | None = None, *, timeout: float | None = None
    ) -> "TextStream":
        """Write on from where `state` stands, with its options; see `stream`.

        Raises:
            OptionError: not a state, or a length or timeout out of range.
        """
        instance("state", state, TextState)
        nothing = np.zeros(0, dtype=np.int64)
        return TextStream(state, nothing, _length(length), state.options.stops, _deadline(timeout))

    def restore(self, snapshot: bytes) -> TextState:
        """The state that `TextState.snapshot` saved, in this or another process.

        Raises:
            ArtifactError: not a snapshot, damaged, or of another model.
        """
        return TextState.restore(self.engine, snapshot)

    def next_probabilities(
        self, text: str = "", top: int | None = None, *, unknown: UnknownPolicy | None = None
    ) -> dict[str, float]:
        """Probabilities of the character after `text`, likeliest first; `top` of them or all.

        The empty string is the end of the text, in models of documents.

        Raises:
            UnknownCharacterError: `text` has a character that the model does not know.
            OptionError: `top` is not 1 or more.
        """
        top = check_top(top)
        return self.state(text, unknown=unknown).probabilities(top)

    def score(
        self,
        text: str,
        *,
        window: int | None = None,
        unknown: UnknownPolicy | None = None,
        per_character: bool = True,
    ) -> Score:
        """How likely the model finds `text`: every character but the first, given all before it.

        A model that was trained on documents has an end token, and scores `text` as a document:
        each character, the first too, and the end.

        A character that the model does not know counts as likely as the character that the model
        finds least likely at that place, and is counted in `Score.unknown`.

        Args:
            text: at least two characters; any number where texts have an end.
            window: begin from a zero state again after each so many characters; None carries the
                state through. Of units other than char, windows have whole tokens, and so many
                characters on average.
            unknown: what the model reads on after a character that it lacks: ``skip`` leaves the
                character out, ``replace`` reads the replacement. ``error`` refuses the text. None
                is the model's own policy, but ``skip`` where that is ``error``.
            per_character: keep each token's log probability; without, memory is constant.

        Raises:
            OptionError: fewer than two characters, a window below 1, or a window where texts end.
            UnknownCharacterError: a character that the model does not know, with ``error``.
        """
        if window is not None:
            window = whole_number("window", window, 1, MAX_LENGTH)
        return score_text(self.engine, text, window, unknown, per_character)

    def score_batch(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = DEFAULT_SCORED,
        unknown: UnknownPolicy | None = None,
        end: bool | None = None,
    ) -> list[Score]:
        """A score for each text, as a text of its own: its first character counts too.

        Each text is preceded by the model's separator, so one character is enough. Characters
        that the model does not know are scored as in `score`.

        Args:
            texts: at least one text, each of at least one character.
            batch_size: how many texts are scored side by side at most.
            unknown: as in `score`.
            end: score the end of each text too: the end token of a model of documents, or else
                the line end, if the model knows it. It counts as a character, and then a text may
                be empty. None does so in models of documents, which makes `Score.percentile` known.

        Raises:
            OptionError: no texts, or an empty one.
            UnknownCharacterError: a character that the model does not know, with ``error``.
        """
        texts = _list_of_texts("texts", texts)
        batch_size = whole_number("batch_size", batch_size, 1, MAX_BATCH)
        return score_texts(self.engine, texts, batch_size, unknown, self._scores_end(end))

    def iterate_scores(
        self,
        texts: Iterable[str],
        *,
        batch_size: int = DEFAULT_ITERATED,
        unknown: UnknownPolicy | None = None,
        end: bool | None = None,
    ) -> Iterator[Score]:
        """Scores in the order of `texts`, which may be endless; see `score_batch`.

        A score is the same bits whatever stands beside its text and however many are read at a
        time, so that a list may be cut anywhere and its parts scored by different machines.

        Args:
            batch_size: how many texts are taken at a time; they are sorted to read once what
                begins alike, and scored 256 side by side.

        Raises:
            OptionError: an empty text, where ends are not scored.
            UnknownCharacterError: a character that the model does not know, with ``error``.
        """
        batch_size = whole_number("batch_size", batch_size, 1, MAX_BATCH)
        listed = iterate_texts("texts", texts)
        return iterate_scores(self.engine, listed, batch_size, unknown, self._scores_end(end))

    def _scores_end(self, end: object) -> bool:
        if end is not None and not isinstance(end, (bool, np.bool_)):
            raise OptionError(f"end must be True or False, got {type(end).__name__}")
        return self.config.end if end is None else bool(end)


def _list_of_texts(name: str, texts: Iterable[str]) -> list[str]:
    listed = list(iterate_texts(name, texts))
    if not listed:
        raise OptionError(f"{name} is empty; give at least one text")
    return listed


def _length(length: int | None) -> int | None:
    return None if length is None else whole_number("length", length, 0, MAX_LENGTH)


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    cure = f"seconds, 0 to {MAX_TIMEOUT:g}"
    return time.monotonic() + number("timeout", timeout, 0, MAX_TIMEOUT, cure)

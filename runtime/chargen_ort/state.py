"""The state of one text: what was fed, what comes next, and where its draws stand."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.sampling import Sampler, SamplingOptions
from chargen_ort.step import run_steps, steps_per_call
from chargen_ort.vocabulary import UnknownPolicy

if TYPE_CHECKING:
    from chargen_ort.generator import CharGenerator

_MAGIC = b"chargen-state-1\n"


class TextState:
    """A text in the making: feed it, look at what may come, draw, fork, save and restore.

    Made by `CharGenerator.state`. One state belongs to one thread at a time; any number of states
    may run at once.
    """

    def __init__(
        self,
        generator: "CharGenerator",
        options: SamplingOptions,
        row: int = 0,
        unknown: UnknownPolicy | None = None,
    ) -> None:
        self._generator = generator
        self._unknown = unknown
        vocabulary = generator.vocabulary
        self._characters = vocabulary.characters
        self._stepper = generator.new_stepper(1)
        self._sampler = Sampler(options, len(vocabulary), (row,))
        self._logits = self._stepper.logits[0]  # [vocab_size], as the last step left them
        self._fed = False
        self.piece_size = steps_per_call(generator.config)

    @property
    def options(self) -> SamplingOptions:
        """How it draws."""
        return self._sampler.options

    @property
    def seed(self) -> int:
        """The seed of the draws: the one given, or the fresh one that was taken instead."""
        return self._sampler.seed

    @property
    def drawn(self) -> int:
        """How many tokens were drawn so far."""
        return self._sampler.drawn(0)

    def feed(self, text: str) -> None:
        """Read `text` as if it had been written.

        Raises:
            UnknownCharacterError: it has a character that the model does not know.
        """
        self._feed_tokens(self._generator.vocabulary.encode(text, self._unknown))

    def _feed_tokens(self, tokens: NDArray[np.int64]) -> None:
        size = self.piece_size
        for begin in range(0, len(tokens), size):
            self.feed_piece(tokens[begin : begin + size])

    def feed_piece(self, tokens: NDArray[np.int64]) -> None:
        """Feed a few tokens ``[time]``, at least one, in one call of the graph."""
        logits, hidden = run_steps(
            self._generator.session, tokens[None], self._stepper.hidden
        )  # [1, time, vocab_size], [1, num_layers, hidden_size]
        self._stepper.hidden[:] = hidden
        self._stepper.logits[:] = logits[:, -1]
        self._sampler.see(0, tokens)
        self._fed = True

    def begin(self) -> None:
        """Where nothing was fed yet, feed the separator that stands before a text."""
        if not self._fed:
            separator = self._generator.config.separator
            self.feed_piece(self._generator.vocabulary.encode(separator))

    def logits(self) -> NDArray[np.float32]:
        """Scores of the next token before temperature, a copy, float32 ``[vocab_size]``."""
        self.begin()
        return np.array(self._stepper.logits[0])

    def hidden(self) -> NDArray[np.float32]:
        """The hidden state, a copy, float32 ``[num_layers, hidden_size]``."""
        return np.array(self._stepper.hidden[0])

    def probabilities(self, top: int | None = None) -> dict[str, float]:
        """The model's probabilities of the next character, likeliest first; `top` of them or all.

        They are the model's own: no temperature, no filters.
        """
        return rank_probabilities(self.logits(), self._characters, top)

    def draw(self) -> str:
        """Draw the next character with the sampling options, feed it, and return it."""
        if not self._fed:
            self.begin()
        token = self._sampler.sample_one(self._logits)
        self._stepper.step(token)
        return self._characters[token]

    def fork(self) -> "TextState":
        """An independent copy that goes on with the same draws."""
        return TextState.restore(self._generator, self.snapshot())

    def snapshot(self) -> bytes:
        """All of the state as bytes, for `CharGenerator.restore` in this or another process."""
        options = self._sampler.options
        seen = self._sampler.seen(0)
        header = {
            "model": self._generator.artifact.sha256,
            "options": {
                "temperature": options.temperature,
                "top_k": options.top_k,
                "top_p": options.top_p,
                "min_p": options.min_p,
                "repetition_penalty": options.repetition_penalty,
                "stop": list(options.stops),
                "seed": self._sampler.seed,
            },
            "row": self._sampler.rows[0],
            "drawn": self.drawn,
            "fed": self._fed,
            "unknown": self._unknown,
            "seen": [] if seen is None else np.flatnonzero(seen).tolist(),
        }
        arrays = (self._stepper.hidden, self._stepper.logits)
        return (
            _MAGIC
            + json.dumps(header).encode()
            + b"\n"
            + b"".join(array.astype("<f4").tobytes() for array in arrays)
        )

    @classmethod
    def restore(cls, generator: "CharGenerator", snapshot: bytes) -> "TextState":
        """The state that `snapshot` was taken of.

        Raises:
            ArtifactError: not a snapshot, damaged, or of another model.
        """
        header, floats = _parse_snapshot(snapshot, generator)
        try:
            options = SamplingOptions(**header["options"])
            state = cls(generator, options, header["row"], header["unknown"])
            state._sampler.start_row(0, header["row"], header["drawn"])
            state._sampler.see(0, np.asarray(header["seen"], dtype=np.int64))
            state._fed = bool(header["fed"])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ArtifactError(f"the snapshot is damaged: {error}") from None
        hidden = state._stepper.hidden
        hidden[:] = floats[: hidden.size].reshape(hidden.shape)
        state._stepper.logits[:] = floats[hidden.size :]
        return state


def rank_probabilities(
    logits: NDArray[np.float32], characters: str, top: int | None
) -> dict[str, float]:
    """Softmax of logits ``[vocab_size]`` as a dict, likeliest first, ties by token.

    Raises:
        OptionError: `top` is not a whole number of 1 or more.
    """
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise OptionError(f"top is {top!r}; give 1 or more, or None for all")
    weights = np.exp(logits.astype(np.float64) - logits.max())  # [vocab_size]
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")[:top]
    return {characters[i]: float(weights[i]) for i in order}


def _parse_snapshot(
    snapshot: bytes, generator: "CharGenerator"
) -> tuple[Mapping[str, Any], NDArray[np.float32]]:
    if not isinstance(snapshot, bytes):
        raise OptionError(f"a snapshot is bytes, got {type(snapshot).__name__}")
    head, _, rest = snapshot.removeprefix(_MAGIC).partition(b"\n")
    if not snapshot.startswith(_MAGIC):
        raise ArtifactError("these bytes are not a snapshot of this version of chargen-ort")
    try:
        header = json.loads(head)
        model = header["model"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ArtifactError("the snapshot is damaged: its header is not JSON") from None
    if model != generator.artifact.sha256:
        raise ArtifactError(f"the snapshot is of another model: {str(model)[:12]}…")
    config = generator.config
    expected = 4 * (config.num_layers * config.hidden_size + len(config.vocabulary))
    if len(rest) != expected:
        raise ArtifactError(f"the snapshot has {len(rest)} bytes of state, {expected} are needed")
    floats = np.frombuffer(rest, dtype="<f4").astype(np.float32)
    if not np.isfinite(floats).all():
        raise ArtifactError("the snapshot is damaged: a number in it is not finite")
    return header, floats

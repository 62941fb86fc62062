"""The step: one token in every row of a fixed batch, or many steps in one call."""

from threading import get_ident
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import shown_number, shown_value, token_array, whole_number
from chargen_ort.errors import OptionError
from chargen_ort.graphs.spec import HIDDEN, LOGITS, NEXT_HIDDEN, TOKEN
from chargen_ort.sessions import bind, ending, inside, refuse_daemon, running, share, translated

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

MAX_BATCH = 1 << 16


class Stepper:
    """The step of a fixed batch: arrays allocated once, and two bindings over them.

    The first binding reads one hidden array and writes the other, the second the reverse, so that
    a step moves nothing and allocates nothing. Logits have two arrays as well: a step that fails or
    is interrupted leaves the state as it was.

    Args:
        session: as `open_session` gives it.
        batch: number of rows, at least 1.
        shape: vocab_size, num_layers, hidden_size.

    Attributes:
        current: 0 or 1, which of the two arrays of each kind holds the state now.
        first_rows: the first row of both arrays of logits, float32 ``[vocab_size]``.

    Raises:
        OptionError: an argument of another kind or out of range.
    """

    def __init__(self, session: "InferenceSession", batch: int, shape: tuple[int, int, int]):
        if not hasattr(session, "run_with_iobinding"):
            raise OptionError(f"session must be an InferenceSession, got {type(session).__name__}")
        batch = whole_number("batch", batch, 1, MAX_BATCH)
        vocab_size, num_layers, hidden_size = sizes = _sizes(session)
        names = ("vocab_size", "num_layers", "hidden_size")
        if not isinstance(shape, tuple) or len(shape) != len(names):
            raise OptionError(f"shape must be a tuple of {', '.join(names)}")
        for name, given, size in zip(names, shape, sizes, strict=True):
            whole_number(name, given, size, size, f"this model's, {size}")
        self._session = session
        self._run = session.run_with_iobinding
        self._vocab_size = vocab_size
        self._token = np.zeros((batch, 1), dtype=np.int64)
        self._tokens = self._token[:, 0]  # [batch]
        self._cell = self._tokens.data if batch == 1 else None  # takes an int sooner
        self._unsigned = self._tokens.view(np.uint64)  # a negative token is a huge one here
        self._hidden = [
            np.zeros((batch, num_layers, hidden_size), dtype=np.float32) for _ in range(2)
        ]
        self._logits = [np.zeros((batch, 1, vocab_size), dtype=np.float32) for _ in range(2)]
        self._rows = [logits[:, 0] for logits in self._logits]  # [batch, vocab_size] each
        self.first_rows = [rows[0] for rows in self._rows]
        self._bindings = [self._bind(0, 1), self._bind(1, 0)]
        self.current = 0

    def _bind(self, source: int, target: int) -> "IOBinding":
        return bind(
            self._session,
            {TOKEN: share(self._token), HIDDEN: share(self._hidden[source])},
            {LOGITS: share(self._logits[target]), NEXT_HIDDEN: share(self._hidden[target])},
        )

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The state now, ``[batch, num_layers, hidden_size]``; it may be written to."""
        return self._hidden[self.current]

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits of the last step, ``[batch, vocab_size]``; they may be written to."""
        return self._rows[self.current]

    def step(self, tokens: NDArray[np.integer] | int) -> None:
        """Feed one token a row, integers ``[batch]`` or one int for all of them.

        `logits` and `hidden` then hold the result. Where it raises, they are what they were.

        Raises:
            OptionError: not integers, not one a row, or a token that the model does not have.
            ArtifactError: ONNX Runtime does not run the model.
        """
        if type(tokens) is int:
            if not 0 <= tokens < self._vocab_size:
                raise OptionError(
                    f"a token is {shown_number(tokens)}; give 0 to {self._vocab_size - 1}"
                )
            if self._cell is None:
                self._tokens[...] = tokens
            else:
                self._cell[0] = tokens
        else:
            self._take(tokens)
        # `inside`, written out: this is the one place where a tenth of a microsecond counts
        thread = get_ident()
        running.add(thread)
        try:
            if ending:
                refuse_daemon()
            self._run(self._bindings[self.current])
        except Exception as error:
            raise translated(error, "does not run the model") from None
        finally:
            running.discard(thread)
        self.current ^= 1

    def _take(self, tokens: object) -> None:
        if not isinstance(tokens, np.ndarray) or not tokens.ndim:
            self._tokens[...] = whole_number("a token", tokens, 0, self._vocab_size - 1)
            return
        if tokens.dtype.kind not in "iu":
            raise OptionError(f"tokens must be an array of integers, got one of {tokens.dtype}")
        if tokens.shape != self._tokens.shape:
            raise OptionError(
                f"tokens must have the shape {self._tokens.shape}, got {tokens.shape}"
            )
        self._tokens[...] = tokens
        if self._unsigned.max() >= self._vocab_size:
            wrong = self._tokens[self._unsigned >= self._vocab_size][0]
            raise OptionError(f"a token is {wrong}; give 0 to {self._vocab_size - 1}")


def run_steps(
    session: "InferenceSession", token: NDArray[np.integer], hidden: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Feed ``[batch, time]`` tokens in one call, from hidden ``[batch, num_layers, hidden_size]``.

    Returns:
        logits ``[batch, time, vocab_size]`` and the next hidden
        ``[batch, num_layers, hidden_size]``.

    Raises:
        OptionError: arrays of another type or shape, or a token that the model does not have.
        ArtifactError: ONNX Runtime does not run the model.
    """
    if not hasattr(session, "get_outputs"):
        raise OptionError(f"session must be an InferenceSession, got {type(session).__name__}")
    vocab_size, *state = _sizes(session)
    token = token_array(token, vocab_size, 2)
    if not token.size:
        raise OptionError(f"tokens have the shape {token.shape}; give at least one of each")
    _check_hidden(hidden, (len(token), *state))
    try:
        with inside():
            logits, next_hidden = session.run(
                [LOGITS, NEXT_HIDDEN], {TOKEN: token, HIDDEN: np.ascontiguousarray(hidden)}
            )
    except Exception as error:
        raise translated(error, "does not run the model") from None
    return np.asarray(logits), np.asarray(next_hidden)


def _sizes(session: "InferenceSession") -> tuple[int, int, int]:
    """vocab_size, num_layers and hidden_size of the model in a session."""
    return (session.get_outputs()[0].shape[-1], *session.get_inputs()[1].shape[1:])


def _check_hidden(hidden: object, shape: tuple[int, ...]) -> None:
    if not isinstance(hidden, np.ndarray) or hidden.dtype != np.float32:
        what = f"one of {hidden.dtype}" if isinstance(hidden, np.ndarray) else shown_value(hidden)
        raise OptionError(f"hidden must be an array of float32, got {what}")
    if hidden.shape != shape:
        raise OptionError(f"hidden must have the shape {shape}, got {hidden.shape}")

"""Running the graph: one ONNX Runtime session, driven through two bindings that swap roles."""

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.artifact import HIDDEN, LOGITS, NEXT_HIDDEN, TOKEN, ModelConfig

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

_WORK_AT_ONCE = 1 << 28  # multiply-adds in one call: far below 100 ms, so that a stop is prompt
_MOST_STEPS = 1024
_TWO_THREADS_FROM = 512  # hidden size at which a second thread pays


def default_threads(hidden_size: int) -> int:
    """Intra-op threads for a model: 1, or 2 for wide models on machines that have them."""
    return min(2, os.cpu_count() or 1) if hidden_size >= _TWO_THREADS_FROM else 1


def steps_per_call(config: ModelConfig, rows: int = 1) -> int:
    """How many steps of `rows` rows to feed in one call, so that none takes long."""
    work = 6 * config.num_layers * config.hidden_size**2
    work += config.hidden_size * len(config.vocabulary)
    return max(1, min(_MOST_STEPS, _WORK_AT_ONCE // (rows * work)))


def open_session(data: bytes, threads: int) -> "InferenceSession":
    """An ONNX Runtime session on the CPU that neither spins, nor prints, nor falls back."""
    import onnxruntime  # here, because it takes longer to import than the rest together

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


class Stepper:
    """The step of a fixed batch: arrays allocated once, and two bindings over them.

    The first binding reads one hidden array and writes the other, the second the reverse, so that
    a step moves nothing and allocates nothing.

    Args:
        session: as `open_session` gives it.
        batch: number of rows, at least 1.
        shape: vocab_size, num_layers, hidden_size.
    """

    def __init__(self, session: "InferenceSession", batch: int, shape: tuple[int, int, int]):
        vocab_size, num_layers, hidden_size = shape
        self._session = session
        self._run = session.run_with_iobinding
        self._token = np.zeros((batch, 1), dtype=np.int64)
        self._tokens = self._token[:, 0]  # [batch]
        self._hidden = [
            np.zeros((batch, num_layers, hidden_size), dtype=np.float32) for _ in range(2)
        ]
        self._logits = np.zeros((batch, 1, vocab_size), dtype=np.float32)
        self._bindings = [self._bind(0, 1), self._bind(1, 0)]
        self._current = 0
        self.logits: NDArray[np.float32] = self._logits[:, 0]  # [batch, vocab_size]

    def _bind(self, source: int, target: int) -> "IOBinding":
        binding = self._session.io_binding()
        for name, array in ((TOKEN, self._token), (HIDDEN, self._hidden[source])):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in ((LOGITS, self._logits), (NEXT_HIDDEN, self._hidden[target])):
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding

    @property
    def hidden(self) -> NDArray[np.float32]:
        """The state now, ``[batch, num_layers, hidden_size]``; it may be written to."""
        return self._hidden[self._current]

    def step(self, tokens: NDArray[np.int64] | int) -> None:
        """Feed one token a row, int64 ``[batch]`` or one int for all of them.

        `logits` and `hidden` then hold the result.
        """
        self._tokens[...] = tokens
        self._run(self._bindings[self._current])
        self._current ^= 1


def run_steps(
    session: "InferenceSession", token: NDArray[np.int64], hidden: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Feed ``[batch, time]`` tokens in one call.

    Returns:
        logits ``[batch, time, vocab_size]`` and the next hidden
        ``[batch, num_layers, hidden_size]``.
    """
    logits, next_hidden = session.run([LOGITS, NEXT_HIDDEN], {TOKEN: token, HIDDEN: hidden})
    return np.asarray(logits), np.asarray(next_hidden)

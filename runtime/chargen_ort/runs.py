"""Runs that write: the arrays of a batch, and what binds them to a session."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.graphs.spec import HIDDEN, LOGITS, NEXT_HIDDEN, Sizes
from chargen_ort.graphs.writer import (
    CHILDREN,
    INVERSE_TEMPERATURE,
    MASKS,
    NEXT_LOGITS,
    NEXT_NODE,
    NODE,
    TOKENS,
    UNIFORMS,
)
from chargen_ort.sessions import bind, run_bound, share

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue

    Shared = dict[str, OrtValue]

_WRITTEN_AT_ONCE = 1 << 26  # multiply-adds in one run: few milliseconds, so that a stop is prompt
MOST_WRITTEN = 64  # steps; more in one run gain nothing


def steps_per_run(sizes: Sizes, rows: int) -> int:
    """How many steps of `rows` rows to write in one run, so that none takes long."""
    # one row waits for the weights to be read; some twenty compute in that time
    work = step_work(sizes) * (20 + rows) // 20
    return max(1, min(MOST_WRITTEN, _WRITTEN_AT_ONCE // work))


def step_work(sizes: Sizes) -> int:
    """Multiply-adds of a step of one row."""
    cells = 6 * sizes.num_layers * sizes.hidden_size**2
    return cells + sizes.hidden_size * sizes.vocab_size


class Runs:
    """The arrays of a batch and, as they are needed, the bindings over them.

    Args:
        sizes: of the model.
        batch: number of rows.

    Attributes:
        hidden: two arrays ``[batch, num_layers, hidden_size]``: a run reads one, and writes the
            other.
        logits: the same of ``[batch, vocab_size]``.
        inverse: one divided by the temperature of each row, ``[batch, 1]``.
        uniforms: what a run draws by, ``[most_steps, batch, 1]``.
        tokens: what it drew, ``[most_steps, batch]``.
    """

    def __init__(self, sizes: Sizes, batch: int) -> None:
        most_steps = steps_per_run(sizes, batch)
        hidden, logits = (batch, sizes.num_layers, sizes.hidden_size), (batch, sizes.vocab_size)
        self.hidden = [np.zeros(hidden, dtype=np.float32) for _ in range(2)]
        self.logits = [np.zeros(logits, dtype=np.float32) for _ in range(2)]
        self.inverse = np.ones((batch, 1), dtype=np.float32)
        self.uniforms = np.zeros((most_steps, batch, 1))
        self.tokens = np.zeros((most_steps, batch), dtype=np.int64)
        self._session: InferenceSession | None = None
        self._bindings: dict[tuple[int, int], IOBinding] = {}

    def begin(self, temperature: float) -> None:
        """Have states of zero, for a text at this temperature."""
        self.hidden[0][:], self.logits[0][:] = 0, 0
        self.inverse[:] = 1 / temperature if temperature else 1

    def run(self, open_session: Callable[[], "InferenceSession"], steps: int, source: int) -> None:
        """Write `steps` tokens a row from the states number `source` into the others.

        `open_session` gives the session of `chargen_ort.graphs.writer`, the same every time.

        Raises:
            ArtifactError: ONNX Runtime does not run the graph.
        """
        if self._session is None:
            self._session = open_session()
        if (steps, source) not in self._bindings:
            inputs, outputs = self._shared(steps, source)
            self._bindings[steps, source] = bind(self._session, inputs, outputs)
        run_bound(self._session, self._bindings[steps, source])

    def _shared(self, steps: int, source: int) -> "tuple[Shared, Shared]":
        """What a run reads and what it writes, by the names in the graph."""
        inputs = {
            HIDDEN: share(self.hidden[source]),
            LOGITS: share(self.logits[source]),
            INVERSE_TEMPERATURE: share(self.inverse),
            UNIFORMS: share(self.uniforms[:steps]),
        }
        outputs = {
            NEXT_HIDDEN: share(self.hidden[1 - source]),
            NEXT_LOGITS: share(self.logits[1 - source]),
            TOKENS: share(self.tokens[:steps]),
        }
        return inputs, outputs


class ConfinedRuns(Runs):
    """The same for texts that are confined: each row has its place in the language.

    Attributes:
        nodes: two arrays ``[batch]``: a run begins at the nodes in one, and writes the other.
    """

    def __init__(self, sizes: Sizes, batch: int) -> None:
        super().__init__(sizes, batch)
        self.nodes = [np.zeros(batch, dtype=np.int64) for _ in range(2)]
        self._language: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None

    def use(self, masks: NDArray[np.float32], children: NDArray[np.int64]) -> None:
        """Have the tables of the language, see `chargen_ort.patterns.Control`, for the next run."""
        known = self._language
        if known is None or known[0] is not masks or known[1] is not children:
            self._language = masks, children
            self._bindings.clear()

    def _shared(self, steps: int, source: int) -> "tuple[Shared, Shared]":
        inputs, outputs = super()._shared(steps, source)
        if self._language is None:
            raise AssertionError("a run is made before its language is there")
        masks, children = self._language
        inputs |= {
            NODE: share(self.nodes[source]),
            MASKS: share(masks),
            CHILDREN: share(children[:, :, None]),
        }
        outputs[NEXT_NODE] = share(self.nodes[1 - source])
        return inputs, outputs

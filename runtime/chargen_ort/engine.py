"""Running a model: the sessions that it has open, and what it remembers for other texts.

An `Engine` is a model that is open: it survives a fork and goes through a pickle by its bytes. Its
session runs whole pieces of text with `run_steps`, and single steps of a batch with a `Stepper`
(`chargen_ort.stepper`); `writer_session` has the graph that writes many steps in one run.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.artifact import STEP, Artifact, read_weights
from chargen_ort.calibration import Calibration
from chargen_ort.checks import instance, whole_number
from chargen_ort.config import Config
from chargen_ort.form import fill, render
from chargen_ort.graphs.cells import cell_weights
from chargen_ort.graphs.reader import reader_graph
from chargen_ort.graphs.spec import LOGITS, Graph
from chargen_ort.graphs.writer import INVERSE_TEMPERATURE, SUMS, sums_graph, writer_graph
from chargen_ort.options import SamplingOptions
from chargen_ort.runs import Runs, step_work
from chargen_ort.sampling import draw_sums
from chargen_ort.sessions import inside, translated
from chargen_ort.sessions import open_session as open_session
from chargen_ort.stepper import Stepper, run_steps
from chargen_ort.vocabulary import Vocabulary

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from chargen_ort.beginnings import Beginnings
    from chargen_ort.patterns import Control

MAX_THREADS = 256
_WORK_AT_ONCE = 1 << 28  # multiply-adds in one call: far below 100 ms, so that a stop is prompt
_MOST_STEPS = 1024
_MOST_CONTROLS = 16  # languages that are remembered
_MOST_WAYS = 4  # to draw, whose texts' beginnings are
_MOST_IDLE = 64  # runs that wait for a text

_inherited: list["_Sessions"] = []  # of a parent process, never destroyed: what it inherits is


@dataclass(frozen=True)
class _Sessions:
    """What an engine has open in one process.

    Attributes:
        process: its number.
        steps: the session of the file's graph.
        private: those of private graphs, by their names.
        opening: held by the thread that opens one of those.
        idle: runs of one row that wait for the next text, at a temperature and greedy, and the same
            of confined texts.
    """

    process: int
    steps: "InferenceSession"
    private: dict[str, "InferenceSession"] = field(default_factory=dict)
    opening: Lock = field(default_factory=Lock)
    idle: tuple[deque[Runs], ...] = field(
        default_factory=lambda: tuple(deque(maxlen=_MOST_IDLE) for _ in range(4))
    )


class Engine:
    """A model that is open. Threads share one: it has no state that a call changes.

    Args:
        artifact: as `read_artifact` gives it; of a sampler the model that it was made of is opened.
        threads: intra-op threads; see `CharGenerator`.

    Attributes:
        artifact: of the model.
        threads: as given.
        config: what the model is.
        vocabulary: the characters that it knows.
        calibration: how odd a score is; None where the file has no quantiles.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph.
        OptionError: not an artifact, or `threads` is out of its range.
    """

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        instance("artifact", artifact, Artifact)
        if artifact.graph != STEP:
            from chargen_ort.samplers import as_step  # few programs need it

            artifact = as_step(artifact)
        self.artifact = artifact
        self.config: Config = artifact.config
        self.vocabulary: Vocabulary = artifact.config.vocabulary
        self.threads = whole_number("threads", threads, 1, MAX_THREADS)
        self._controls: dict[object, Control] = {}
        self._beginnings: dict[tuple[float, ...], Beginnings] = {}
        quantiles = artifact.training.score_quantiles
        self.calibration = Calibration.of(quantiles) if quantiles else None
        self._open()

    def _open(self) -> None:
        session = open_session(self.artifact.data, self.threads)
        self._sessions = _Sessions(os.getpid(), session)

    def _own_sessions(self) -> _Sessions:
        if self._sessions.process != os.getpid():
            # destroying an inherited session would wait for threads that the child does not have
            _inherited.append(self._sessions)
            self._open()
        return self._sessions

    def __reduce__(self) -> tuple[type, tuple[Artifact, int]]:
        return type(self), (self.artifact, self.threads)  # sessions do not pickle, bytes do

    @property
    def session(self) -> "InferenceSession":
        """The ONNX Runtime session; in a forked child a new one, made at first use."""
        return self._own_sessions().steps

    def writer_session(self, greedy: bool, confined: bool = False) -> "InferenceSession":
        """The session of `chargen_ort.graphs.writer`, opened when it is first asked for.

        Raises:
            ArtifactError: ONNX Runtime refuses the graph.
        """
        sizes, precision = self.config.sizes, self.config.precision
        name = ("write greedily" if greedy else "write") + (" confined" if confined else "")
        return self._private_session(name, lambda: writer_graph(sizes, precision, greedy, confined))

    def idle_runs(self, greedy: bool, confined: bool = False) -> deque[Runs]:
        """The runs of one row that no text uses: to take one, and to put it back."""
        return self._own_sessions().idle[greedy + 2 * confined]

    def control(self, options: SamplingOptions) -> "Control":
        """The language that these options confine texts to; texts that are alike share it.

        Raises:
            OptionError: a pattern that is none, or llguidance is not installed.
        """
        from chargen_ort.patterns import Control  # here, because few texts are confined

        lengths = options.min_length, options.max_length
        key = options.pattern, lengths, options.ban, options.stops
        found = self._controls.get(key)
        if found is None or found.full:
            found = Control(self.config, options)
            if len(self._controls) >= _MOST_CONTROLS:
                self._controls.clear()
            self._controls[key] = found
        return found

    def beginnings(self, options: SamplingOptions, in_runs: bool) -> "Beginnings":
        """What is remembered of texts by these options; batches whose draws are alike share it.

        Args:
            options: with a temperature above 0 and no penalty.
            in_runs: whether `writer_session` draws; else a `Sampler` does.
        """
        from chargen_ort.beginnings import Beginnings  # here, because few texts are so many

        filters = () if in_runs else (options.top_k, options.top_p, options.min_p)
        key = options.temperature, *filters
        found = self._beginnings.get(key)
        if found is None:
            if len(self._beginnings) >= _MOST_WAYS:
                self._beginnings.clear()
            own = partial(self.draw_sums, temperature=options.temperature)
            found = Beginnings(own if in_runs else partial(draw_sums, options=options), in_runs)
            self._beginnings[key] = found
        return found

    def draw_sums(self, logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
        """What the writer draws by, ``[rows, vocab_size]``: sums of the first probabilities.

        Args:
            logits: ``[rows, vocab_size]``.
            temperature: above 0.

        Raises:
            ArtifactError: ONNX Runtime does not run the graph.
        """
        session = self._private_session("sums", lambda: sums_graph(self.config.sizes))
        inverse = np.full((len(logits), 1), 1 / temperature, dtype=np.float32)
        try:
            with inside():
                (sums,) = session.run([SUMS], {LOGITS: logits, INVERSE_TEMPERATURE: inverse})
        except Exception as error:
            raise translated(error, "does not run the model") from None
        return np.asarray(sums)

    def _private_session(self, name: str, graph: Callable[[], Graph]) -> "InferenceSession":
        """The session of a graph that no file has, with the weights of the file."""
        sessions = self._own_sessions()
        if name not in sessions.private:
            with sessions.opening:  # of many threads one opens it
                if name not in sessions.private:
                    form = render(graph())
                    weights = read_weights(self.artifact) if form.holes else {}
                    if weights and self.config.precision != "int8":
                        weights = cell_weights(weights, self.config.sizes)
                    sessions.private[name] = open_session(fill(form, weights), self.threads)
        return sessions.private[name]

    def new_stepper(self, batch: int) -> "Stepper":
        """Arrays and bindings for `batch` rows, 1 to `MAX_BATCH`, whose state is zero.

        Raises:
            OptionError: `batch` is out of its range.
        """
        config = self.config
        shape = len(self.vocabulary), config.num_layers, config.hidden_size
        return Stepper(self.session, batch, shape)

    def run_steps(
        self, token: NDArray[np.integer], hidden: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Feed many steps in one call; arguments, results and errors are those of `run_steps`."""
        return run_steps(self.session, token, hidden)

    def run_rows(
        self, token: NDArray[np.integer], hidden: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, sooner where there are many rows; the results differ by about 1e-6."""
        if not self.has_row_reader:
            return self.run_steps(token, hidden)
        session = self._private_session("read", lambda: reader_graph(self.config.sizes))
        return run_steps(session, token, hidden)

    @property
    def has_row_reader(self) -> bool:
        """Whether there is a quicker way for many rows: for one layer in fp32 or fp16.

        For several layers the operator is as quick: it reads their weights once for all steps.
        """
        return self.config.precision != "int8" and self.config.num_layers == 1

    def zero_hidden(self, rows: int) -> NDArray[np.float32]:
        """The state before any text, ``[rows, num_layers, hidden_size]``."""
        return np.zeros((rows, self.config.num_layers, self.config.hidden_size), dtype=np.float32)

    def steps_per_call(self, rows: int = 1) -> int:
        """How many steps of `rows` rows to feed in one call, so that none takes long."""
        work = rows * step_work(self.config.sizes)
        return max(1, min(_MOST_STEPS, _WORK_AT_ONCE // work))

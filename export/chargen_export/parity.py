"""Proof that the exported graph computes what the PyTorch model computes."""

import copy
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from chargen_export.vectors import first_tokens, make_vectors
from chargen_ort.certificate import Certificate, TextComparison
from chargen_ort.engine import open_session
from chargen_ort.errors import ParityError
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Tolerance
from chargen_ort.sampling import Sampler, SamplingOptions, uniform_draws
from chargen_ort.stepper import Stepper, run_steps
from chargen_train.model import CharGRU
from chargen_train.ranges import distinct

Floats = NDArray[np.float32]

STEPS = 1000  # teacher-forced, the state carried within a text
BATCHES = (1, 8)
COMPARED = STEPS + max(BATCHES) * 17  # tokens of a text that are used
TEXT_LENGTH = 200  # tokens of greedy and of seeded text
SEED = 0
FLOAT32_TOLERANCE = VARIANTS["fp32"].tolerance
_TEXTS = SamplingOptions(temperature=0, seed=SEED), SamplingOptions(temperature=1, seed=SEED)
_GROWN = 0.25  # of a tolerance: of two float32 programs that differ, one is as far from exact


def verify_parity(
    model_bytes: bytes,
    model: CharGRU,
    tokens: NDArray[np.integer],
    tolerance: Tolerance = FLOAT32_TOLERANCE,
    against: str = "the PyTorch model",
    end: int | None = None,
) -> Certificate:
    """Compare the graph in `model_bytes` with `model` on the text `tokens` ``[characters]``.

    ONNX Runtime runs at its default optimisation, as it will for users. Compared are the logits at
    each of `STEPS` single steps and the carried hidden state, at several batch sizes; the same
    steps fed in one call; greedy text; and seeded text at temperature 1. Each document of a text
    begins with the end token from a zero state, as it does when one is written.

    Some models let a rounding error grow from step to step, and then no two programs agree for
    long, as PyTorch in float32 and in float64 does not. Of such a model each step is compared from
    the state that the graph has before it, and the certificate says so.

    Args:
        model_bytes: the file, or its graph alone.
        model: what it should compute.
        tokens: a text ``[characters]``.
        tolerance: the largest differences that are allowed.
        against: what `model` is, in words, for the certificate.
        end: the end token, if the model has one.

    Raises:
        ParityError: a difference above the tolerance; the message says where and by how much.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    text = first_tokens(tokens, COMPARED, end)
    comparison = _Comparison.of(model_bytes, model, text, tolerance, end)
    try:
        found = comparison.run()
    except ParityError:
        if not comparison.rounding_grows():
            raise
        found = replace(comparison, carried=False).run()
        against += ", each step from the graph's own state, as rounding errors grow"
    return Certificate(
        against=against,
        steps=STEPS,
        batches=BATCHES,
        largest_logits_difference=found.logits,
        largest_hidden_difference=found.hidden,
        largest_prefill_difference=found.prefill,
        greedy=found.greedy,
        seeded=found.seeded,
        vectors=make_vectors(partial(comparison.new_stepper, 1), text, end),
        versions={"torch": torch.__version__, **library_versions()},
    )


def texts_of(token: NDArray[np.int64], end: int | None) -> list[tuple[int, int, int]]:
    """The texts in rows of tokens ``[rows, time]``: row, place and length, by rising length.

    A row is one text, or as many as end tokens begin in it, and what stands before the first.
    """
    rows, time = token.shape
    if end is None:
        return [(row, 0, time) for row in range(rows)]
    places: list[tuple[int, int, int]] = []
    for row, tokens in enumerate(token):
        begins = distinct(np.append(0, np.flatnonzero(tokens == end)))
        sizes = np.diff(begins, append=time)
        places += zip([row] * len(begins), begins.tolist(), sizes.tolist(), strict=True)
    return sorted(places, key=lambda place: place[2])


def library_versions() -> dict[str, str]:
    """What computed a certificate, besides PyTorch."""
    return {
        "onnx": version("onnx"),
        "onnxruntime": version("onnxruntime"),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


def _shape(model: CharGRU) -> tuple[int, int, int]:
    return model.vocab_size, model.num_layers, model.hidden_size


@dataclass(frozen=True)
class _Found:
    """The largest differences, and the two texts."""

    logits: float
    hidden: float
    prefill: float
    greedy: TextComparison
    seeded: TextComparison


@dataclass(frozen=True)
class _Comparison:
    """A graph beside a model on one text.

    Attributes:
        new_stepper: takes steps of the graph in so many rows, from a zero state.
        feed: runs the graph on tokens ``[rows, time]`` and a state; gives logits and a state.
        model: in evaluation mode.
        text: tokens ``[COMPARED]``.
        tolerance: the largest differences that are allowed.
        end: the end token, if the model has one.
        carried: whether the model carries its own state; else it has the graph's at each step.
    """

    new_stepper: Callable[[int], Stepper]
    feed: Callable[[NDArray[np.int64], Floats], tuple[Floats, Floats]]
    model: CharGRU
    text: NDArray[np.int64]
    tolerance: Tolerance
    end: int | None
    carried: bool = True

    @classmethod
    def of(
        cls,
        model_bytes: bytes,
        model: CharGRU,
        text: NDArray[np.int64],
        tolerance: Tolerance,
        end: int | None,
    ) -> Self:
        """The comparison of the graph in `model_bytes`."""
        session = open_session(model_bytes, threads=1)

        def new_stepper(rows: int) -> Stepper:
            return Stepper(session, rows, _shape(model))

        return cls(new_stepper, partial(run_steps, session), model, text, tolerance, end)

    def run(self) -> _Found:
        """Compare steps, calls of many steps, and texts.

        Raises:
            ParityError: a difference above the tolerance.
        """
        found = []
        for batch in BATCHES:
            token = self._rows(batch)
            *differences, logits = self._steps(token)
            found.append((*differences, self._in_one_call(token, logits)))
        greedy, seeded = (self._text(options) for options in _TEXTS)
        logits, hidden, prefill = map(max, zip(*found, strict=True))
        return _Found(logits, hidden, prefill, greedy, seeded)

    def rounding_grows(self) -> bool:
        """Whether the model's own logits depend on how precisely it is computed."""
        exact = replace(self, model=copy.deepcopy(self.model).double())
        written = (self._write(options)[0][:, :-1] for options in _TEXTS)
        return any(
            _difference(self._model_steps(token)[0], exact._model_steps(token)[0])
            > _GROWN * self.tolerance.logits
            for token in (self._rows(max(BATCHES)), *written)
        )

    def _rows(self, batch: int) -> NDArray[np.int64]:
        """As many texts that overlap, ``[batch, STEPS]``."""
        return np.stack([self.text[17 * row : 17 * row + STEPS] for row in range(batch)])

    def _steps(self, token: NDArray[np.int64]) -> tuple[float, float, Floats]:
        """The largest differences of single steps, in logits and state, and all their logits.

        Args:
            token: ``[batch, time]``.
        """
        batch, stepper = len(token), self.new_stepper(len(token))
        logits_difference = hidden_difference = 0.0
        expected = np.empty((*token.shape, self.model.vocab_size), dtype=np.float32)
        if self.carried:
            expected, last = self._model_steps(token)
        for time in range(STEPS):
            before = self._feed(stepper, token[:, time])
            hidden: Floats | None = None  # the model's own is known after the last step alone
            if self.carried:
                logits, hidden = expected[:, time], last if time == STEPS - 1 else None
            else:
                logits, hidden = self._model_step(token[:, time], before)
                expected[:, time] = stepper.logits  # what the call of many steps must give
            at = f"step {time}, batch {batch}"
            difference = _difference(stepper.logits, logits)
            _require(difference, self.tolerance.logits, f"logits at {at}")
            logits_difference = max(logits_difference, difference)
            if hidden is not None:
                difference = _difference(stepper.hidden, hidden)
                _require(difference, self.tolerance.hidden, f"hidden after {at}")
                hidden_difference = max(hidden_difference, difference)
        return logits_difference, hidden_difference, expected

    def _feed(self, stepper: Stepper, token: NDArray[np.int64]) -> Floats:
        """Feed the graph ``[batch]`` tokens.

        Returns:
            the state from which it took the step, zero where a document begins,
            ``[batch, num_layers, hidden_size]``.
        """
        if self.end is not None:
            stepper.hidden[token == self.end] = 0
        before = stepper.hidden.copy()
        stepper.step(token)
        return before

    @torch.no_grad()
    def _model_step(self, token: NDArray[np.int64], hidden: Floats) -> tuple[Floats, Floats]:
        """The model's logits ``[batch, vocab_size]`` and states after one step from these."""
        logits, after = self.model(torch.from_numpy(token[:, None]), torch.from_numpy(hidden))
        return logits[:, 0].numpy(), after.numpy()

    @torch.no_grad()
    def _model_steps(self, token: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """The model's logits ``[batch, time, vocab_size]``, and its last state."""
        begins = None if self.end is None else torch.from_numpy(token == self.end)
        zero = self.model.zero_hidden(len(token))
        logits, hidden = self.model(torch.from_numpy(token), zero, begins)
        return logits.numpy(), hidden.numpy()

    def _in_one_call(self, token: NDArray[np.int64], expected: Floats) -> float:
        """The largest difference of logits where the steps of a text are fed in one call.

        Args:
            token: ``[batch, time]``.
            expected: logits ``[batch, time, vocab_size]``.
        """
        batch, (_, *state) = len(token), _shape(self.model)
        places = texts_of(token, self.end)
        largest = 0.0
        for first in range(0, len(places), batch):
            some = places[first : first + batch]
            fed = np.zeros((len(some), max(size for *_, size in some)), dtype=np.int64)
            for row, (text, begin, size) in zip(fed, some, strict=True):
                row[:size] = token[text, begin : begin + size]
            zero = np.zeros((len(some), *state), dtype=np.float32)
            logits, _ = self.feed(fed, zero)  # [texts, time, vocab_size]
            for found, (text, begin, size) in zip(logits, some, strict=True):
                difference = _difference(found[:size], expected[text, begin : begin + size])
                at = f"logits of {size} steps in one call, {batch=}"
                _require(difference, self.tolerance.logits, at)
                largest = max(largest, difference)
        return largest

    def _write(self, options: SamplingOptions) -> tuple[NDArray[np.int64], Floats]:
        """A text of the graph's ``[1, 1 + TEXT_LENGTH]``, and its state before each step.

        Those are ``[TEXT_LENGTH, num_layers, hidden_size]``.
        """
        stepper, states = self.new_stepper(1), []
        sampler, tokens = Sampler(options, self.model.vocab_size), [self.text[:1]]
        for _ in range(TEXT_LENGTH):
            states.append(self._feed(stepper, tokens[-1])[0])
            tokens.append(sampler.sample(stepper.logits))
        return np.stack(tokens, axis=1), np.stack(states)

    def _text(self, options: SamplingOptions) -> TextComparison:
        """Let the graph write, and the model choose each token by the same draws.

        Where they part, it must be a near tie: a draw that lands on a boundary between two tokens
        within the tolerance may fall to either side. Such cases are counted in the certificate, and
        both go on with the graph's token, so that the model reads the whole text at once.
        """
        text, states = self._write(options)
        if self.carried:
            seen = self._model_steps(text[:, :-1])[0][0]  # [TEXT_LENGTH, vocab_size]
        else:
            seen, _ = self._model_step(text[0, :-1], states)
        theirs = Sampler(options, self.model.vocab_size)
        near_ties = 0
        for position, (token, logits) in enumerate(zip(text[0, 1:], seen, strict=True)):
            [other] = theirs.sample(logits[None])
            if token != other:
                margin = _margin(logits, int(token), int(other), options, position)
                _require(
                    margin,
                    self.tolerance.logits,
                    f"text at temperature {options.temperature:g}, "
                    f"character {position}: the draw's distance from the boundary",
                )
                near_ties += 1
        return TextComparison(
            characters=TEXT_LENGTH,
            temperature=options.temperature,
            seed=SEED,
            equal=near_ties == 0,
            near_ties=near_ties,
        )


def _margin(
    logits: Floats, ours: int, theirs: int, options: SamplingOptions, position: int
) -> float:
    """How far the PyTorch side was from choosing `ours`: in logits if greedy, else in mass."""
    if options.temperature == 0:
        return float(abs(logits[ours] - logits[theirs]))
    weights = np.exp(logits.astype(np.float64) - logits.max())
    cdf = np.cumsum(weights) / weights.sum()
    u = uniform_draws(SEED, 0, position, 1)[0]
    return float(np.abs(cdf[min(ours, theirs) : max(ours, theirs)] - u).max())


def _difference(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max())


def _require(difference: float, tolerance: float, where: str) -> None:
    if not difference <= tolerance:
        raise ParityError(
            f"the exported graph differs from the PyTorch model in {where}: "
            f"{difference:.3g}, the tolerance is {tolerance:g}; nothing was written"
        )

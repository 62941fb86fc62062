"""Proof that the int8 graph computes the quantised GRU: a second account of it in NumPy.

A state that lands within a rounding error of the boundary between two integers may fall to either
side, and the difference would then grow from step to step. So the reference follows the graph: it
takes the states that the graph reports, at each step and below each layer, and must arrive at the
same results from there. What remains is float32 rounding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen_export.graph import StepWeights
from chargen_export.int8 import WEIGHT_LEVELS, quantise
from chargen_export.parity import BATCHES, library_versions
from chargen_export.vectors import first_tokens, make_vectors
from chargen_ort.certificate import Certificate
from chargen_ort.engine import open_session
from chargen_ort.errors import ParityError
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.int8 import ACTIVATION_LEVELS
from chargen_ort.graphs.spec import Tolerance
from chargen_ort.stepper import Stepper, run_steps

STEPS = 250  # each is compared on its own: nothing builds up
INT8_TOLERANCE = VARIANTS["int8"].tolerance

_Matrix = NDArray[np.float64]
Product = Callable[[_Matrix], _Matrix]


class QuantisedGRU:
    """The computation of the int8 graph in float64, layer by layer, integers exact."""

    def __init__(self, weights: StepWeights) -> None:
        self._biases = [b.astype(np.float64) for _, _, b in weights.layers]
        vectors = _dequantised(weights.embedding, 1, ACTIVATION_LEVELS)  # [vocab_size, embedding]
        first = _dequantised(weights.layers[0][0].T, 0, ACTIVATION_LEVELS)  # [embedding, 3 hidden]
        self._table = vectors @ first  # [vocab_size, 3 hidden]
        self._inputs = [_quantised_product(w.T) for w, _, _ in weights.layers[1:]]
        self._recurrent = [_quantised_product(r.T) for _, r, _ in weights.layers]
        self._output = _quantised_product(weights.output_weight)
        self._output_bias = weights.output_bias.astype(np.float64)

    def layer(self, index: int, below: NDArray[Any], hidden: NDArray[np.float32]) -> _Matrix:
        """The next state of a layer, ``[batch, hidden]``.

        Args:
            index: of the layer.
            below: tokens ``[batch]`` for the first layer, else the new state of the layer below.
            hidden: the layer's own state, ``[batch, hidden]``.
        """
        x = self._inputs[index - 1](_integers(below)) if index else self._table[below]
        h = self._recurrent[index](_integers(hidden))
        bias_x, bias_h = np.split(self._biases[index], 2)
        x_update, x_reset, x_new = np.split(x + bias_x, 3, axis=1)
        h_update, h_reset, h_new = np.split(h + bias_h, 3, axis=1)
        update, reset = _sigmoid(x_update + h_update), _sigmoid(x_reset + h_reset)
        new = np.tanh(x_new + reset * h_new)
        return np.asarray(new + update * (hidden - new))

    def logits(self, hidden: NDArray[np.float32]) -> _Matrix:
        """Logits ``[batch, vocab_size]`` of the last layer's new state ``[batch, hidden]``."""
        return self._output(_integers(hidden)) + self._output_bias


def verify_int8(
    model_bytes: bytes,
    weights: StepWeights,
    tokens: NDArray[np.integer],
    tolerance: Tolerance = INT8_TOLERANCE,
    end: int | None = None,
) -> Certificate:
    """Compare the graph in `model_bytes` with the quantised GRU on the text `tokens`.

    Compared are the states and logits of each of `STEPS` single steps, the state carried by the
    graph, at several batch sizes, and the same steps fed in one call with the single ones.

    Raises:
        ParityError: a difference above the tolerance; the message says where and by how much.
    """
    reference = QuantisedGRU(weights)
    session = open_session(model_bytes, threads=1)
    text = first_tokens(tokens, STEPS + max(BATCHES) * 17, end)
    largest = {"logits": 0.0, "hidden": 0.0, "prefill": 0.0}

    def check(kind: str, ours: NDArray[Any], expected: NDArray[Any], at: str) -> None:
        difference = float(np.abs(ours - expected).max())
        limit = tolerance.hidden if kind == "hidden" else tolerance.logits
        if not difference <= limit:
            raise ParityError(
                f"the int8 graph differs from the quantised GRU in {at}: {difference:.3g}, "
                f"the tolerance is {limit:g}; nothing was written"
            )
        largest[kind] = max(largest[kind], difference)

    for batch in BATCHES:
        token = np.stack([text[17 * row : 17 * row + STEPS] for row in range(batch)])
        stepper = Stepper(session, batch, weights.shape)
        single = np.empty((batch, STEPS, weights.shape[0]), dtype=np.float32)
        for time in range(STEPS):
            at = f"step {time}, {batch=}"
            old = stepper.hidden.copy()  # [batch, num_layers, hidden]
            stepper.step(token[:, time])
            new = stepper.hidden
            below: NDArray[Any] = token[:, time]
            for index in range(weights.shape[1]):
                expected = reference.layer(index, below, old[:, index])
                check("hidden", new[:, index], expected, f"layer {index} at {at}")
                below = new[:, index]
            check("logits", stepper.logits, reference.logits(new[:, -1]), f"logits at {at}")
            single[:, time] = stepper.logits
        logits, _ = run_steps(session, token, np.zeros_like(stepper.hidden))
        check("prefill", logits, single, f"{STEPS} steps in one call, {batch=}")
    return Certificate(
        against="the quantised GRU in NumPy, from the graph's own states",
        steps=STEPS,
        batches=BATCHES,
        largest_logits_difference=largest["logits"],
        largest_hidden_difference=largest["hidden"],
        largest_prefill_difference=largest["prefill"],
        vectors=make_vectors(lambda: Stepper(session, 1, weights.shape), text, end),
        versions=library_versions(),
    )


def _quantised_product(matrix: NDArray[np.float32]) -> Product:
    """X ``[batch, in]`` of integers times `matrix` ``[in, out]``, back in real units."""
    integers, scale = quantise(np.ascontiguousarray(matrix), 0, WEIGHT_LEVELS)
    whole = integers.astype(np.float64)  # sums below 2**53: exact
    step = (scale[0] / np.float32(ACTIVATION_LEVELS)).astype(np.float64)  # [out]
    return lambda x: (x @ whole) * step


def _dequantised(matrix: NDArray[np.float32], axis: int, levels: int) -> _Matrix:
    integers, scale = quantise(np.ascontiguousarray(matrix), axis, levels)
    return integers.astype(np.float64) * scale.astype(np.float64)


def _integers(hidden: NDArray[np.float32]) -> _Matrix:
    """States as the integers -128 … 127 that stand for them, ties to even."""
    step = np.float32(1 / ACTIVATION_LEVELS)
    integers: _Matrix = np.clip(np.rint(hidden / step), -128, 127).astype(np.float64)
    return integers


def _sigmoid(x: _Matrix) -> _Matrix:
    return np.asarray(1 / (1 + np.exp(-x)))

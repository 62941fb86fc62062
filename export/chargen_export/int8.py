"""The step in 8-bit integers: the GRU as integer products and elementwise operators.

ONNX has no quantised GRU, so the cell is written out and the loop over time is a Scan. Only
operators of the standard domain are used. How the numbers are chosen:

- States lie in -1 … 1, so that one fixed step of 1/127 serves all activations. A scale that is
  measured on the fly would make a row's text depend on the other rows of its batch.
- Weights have one scale per output channel and the integers -63 … 63. Processors without VNNI add
  pairs of products in 16 bits, and 2 * 255 * 63 is the most that fits: so every machine computes
  the same integers.
- The first layer's input product has only vocab_size results. ONNX Runtime computes this table
  once, on load, from the file's embedding and weights.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from chargen_export.graph import PRODUCER
from chargen_ort import __version__
from chargen_ort.artifact import HIDDEN, IR_VERSION, LOGITS, NEXT_HIDDEN, OPSET, TOKEN
from chargen_ort.errors import OptionError

ACTIVATION_LEVELS = 127
ACTIVATION_ZERO = 128
WEIGHT_LEVELS = 63
MAX_TABLE = 1 << 26  # numbers in the first layer's table, 256 MB once loaded

TABLE_ARRAYS = ("embedding", "embedding_scale", "layer_0_W", "layer_0_W_scale", "layer_0_bias")


@dataclass(frozen=True)
class StepWeights:
    """The weights of a step as in the fp32 graph: gates in ONNX's order update, reset, new.

    Attributes:
        embedding: ``[vocab_size, embedding_dim]``.
        layers: per layer W ``[3 hidden, input]``, R ``[3 hidden, hidden]``, B ``[6 hidden]``.
        output_weight: ``[hidden, vocab_size]``.
        output_bias: ``[vocab_size]``.
    """

    embedding: NDArray[np.float32]
    layers: tuple[tuple[NDArray[np.float32], ...], ...]
    output_weight: NDArray[np.float32]
    output_bias: NDArray[np.float32]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """vocab_size, num_layers, hidden_size."""
        return len(self.embedding), len(self.layers), len(self.output_weight)


def quantise(
    matrix: NDArray[np.float32], axis: int, levels: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The nearest integers -levels … levels, one scale for each slice along the other axis.

    Returns:
        int8 of the matrix's shape, and the scales with `axis` reduced to 1.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(levels), np.float32(1)).astype(np.float32)
    integers = np.clip(np.rint(matrix / scale), -levels, levels).astype(np.int8)
    return integers, scale


def int8_arrays(weights: StepWeights) -> dict[str, NDArray[np.generic]]:
    """The initializers of the int8 graph, in the order of the file.

    Raises:
        OptionError: vocabulary and hidden size are too large for the table.
    """
    vocab_size, num_layers, hidden_size = weights.sizes
    gates = 3 * hidden_size
    if vocab_size * gates > MAX_TABLE:
        raise OptionError(
            f"int8 keeps a table of vocabulary x 3 hidden = {vocab_size * gates} numbers, "
            f"the limit is {MAX_TABLE}; give --precision fp16"
        )
    # both biases of update and reset are added to the input side of the first layer, where they
    # are free, and to the recurrent side of the others; the new gate needs its two apart
    recurrent_scale = np.empty((num_layers, gates), dtype=np.float32)
    recurrent_bias = np.zeros((num_layers, gates), dtype=np.float32)
    arrays: dict[str, NDArray[np.generic]] = {}
    integers, scale = quantise(weights.embedding, 1, ACTIVATION_LEVELS)
    arrays["embedding"], arrays["embedding_scale"] = integers[:, None], scale[:, None]
    for index, (w, r, b) in enumerate(weights.layers):
        inner = b[:gates].copy()  # [3 hidden]
        inner[: 2 * hidden_size] += b[gates : gates + 2 * hidden_size]
        recurrent_bias[index, 2 * hidden_size :] = b[gates + 2 * hidden_size :]
        levels = WEIGHT_LEVELS if index else ACTIVATION_LEVELS  # the table is no integer product
        integers, scale = quantise(np.ascontiguousarray(w.T), 0, levels)
        arrays[f"layer_{index}_W"] = integers
        if index == 0:
            arrays["layer_0_W_scale"], arrays["layer_0_bias"] = scale[0], inner
        else:
            arrays[f"layer_{index}_W_scale"] = scale[0] / np.float32(ACTIVATION_LEVELS)
            recurrent_bias[index, : 2 * hidden_size] = inner[: 2 * hidden_size]
            arrays[f"layer_{index}_bias"] = inner[2 * hidden_size :]
        integers, scale = quantise(np.ascontiguousarray(r.T), 0, WEIGHT_LEVELS)
        arrays[f"layer_{index}_R"] = integers
        recurrent_scale[index] = scale[0] / np.float32(ACTIVATION_LEVELS)
    arrays["recurrent_scale"] = recurrent_scale.ravel()
    arrays["recurrent_bias"] = recurrent_bias.ravel()
    integers, scale = quantise(weights.output_weight, 0, WEIGHT_LEVELS)
    arrays["output_weight"] = integers
    arrays["output_scale"] = scale[0] / np.float32(ACTIVATION_LEVELS)
    arrays["output_bias"] = weights.output_bias
    arrays["activation_scale"] = np.array(1 / ACTIVATION_LEVELS, dtype=np.float32)
    arrays["activation_zero"] = np.array(ACTIVATION_ZERO, dtype=np.uint8)
    arrays["recurrent_sizes"] = np.array([2 * hidden_size, hidden_size] * num_layers)
    if num_layers > 1:
        arrays["input_sizes"] = arrays["recurrent_sizes"][:2]
    else:
        arrays["input_sizes"] = arrays.pop("recurrent_sizes")
    arrays["time_axis"] = np.array([1])
    return arrays


def build_int8_model(weights: StepWeights) -> onnx.ModelProto:
    """The graph: a table of the first layer's input products, and a Scan over time.

    Its names and shapes are those of the fp32 graph, and the same weights give the same bytes.

    Raises:
        OptionError: vocabulary and hidden size are too large for the table.
    """
    vocab_size, num_layers, hidden_size = weights.sizes
    hidden_shape: list[str | int | None] = ["batch", num_layers, hidden_size]
    float_info = helper.make_tensor_value_info
    initializers = [numpy_helper.from_array(a, name) for name, a in int8_arrays(weights).items()]
    body = helper.make_graph(
        _body_nodes(num_layers),
        "one_step",
        [
            float_info("state", TensorProto.FLOAT, hidden_shape),
            float_info("current", TensorProto.INT64, ["batch"]),
        ],
        [
            float_info("next_state", TensorProto.FLOAT, hidden_shape),
            float_info("step_logits", TensorProto.FLOAT, ["batch", vocab_size]),
        ],
        initializers[len(TABLE_ARRAYS) :],
        doc_string="One character of every row.",
    )
    nodes = [
        *_table_nodes(),
        helper.make_node("Transpose", [TOKEN], ["token_by_time"], "time_first", perm=[1, 0]),
        helper.make_node(
            "Scan",
            [HIDDEN, "token_by_time"],
            [NEXT_HIDDEN, "logits_by_time"],
            "steps",
            "one step after the other",
            body=body,
            num_scan_inputs=1,
        ),
        helper.make_node("Transpose", ["logits_by_time"], [LOGITS], "batch_first", perm=[1, 0, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "chargen_step",
        [
            float_info(TOKEN, TensorProto.INT64, ["batch", "time"]),
            float_info(HIDDEN, TensorProto.FLOAT, hidden_shape),
        ],
        [
            float_info(LOGITS, TensorProto.FLOAT, ["batch", "time", vocab_size]),
            float_info(NEXT_HIDDEN, TensorProto.FLOAT, hidden_shape),
        ],
        initializers[: len(TABLE_ARRAYS)],
        doc_string="A character-level GRU language model in int8: as many steps as it is fed.",
    )
    return helper.make_model(
        graph,
        producer_name=PRODUCER,
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def _table_nodes() -> list[onnx.NodeProto]:
    """The first layer's input product of every token: [vocab_size, 1, 3 hidden]."""
    node = helper.make_node
    return [
        node("Cast", ["embedding"], ["embedding_integers"], "embedding_cast", "", to=1),
        node("Mul", ["embedding_integers", "embedding_scale"], ["vectors"], "embedding_rescale"),
        node("Cast", ["layer_0_W"], ["layer_0_W_integers"], "layer_0_W_cast", "", to=1),
        node("Mul", ["layer_0_W_integers", "layer_0_W_scale"], ["layer_0_W_float"], "W_rescale"),
        node("MatMul", ["vectors", "layer_0_W_float"], ["products"], "table_product"),
        node("Add", ["products", "layer_0_bias"], ["table"], "table_bias"),
    ]


def _body_nodes(num_layers: int) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def quantised(name: str) -> str:
        return add(
            "QuantizeLinear", [name, "activation_scale", "activation_zero"], f"{name}_quantised"
        )

    def product(name: str, weight: str) -> str:
        return add("MatMulInteger", [name, weight, "activation_zero"], f"{weight}_sums")

    def rescaled(sums: str, scale: str, name: str) -> str:
        return add("Mul", [add("Cast", [sums], f"{name}_integers", to=1), scale], name)

    layers = range(num_layers)
    old, fed = ["state"], [quantised("state")]
    if num_layers > 1:
        old, fed = [f"layer_{i}_old" for i in layers], [f"layer_{i}_fed" for i in layers]
        add("Split", ["state"], *old, axis=1)  # [batch, 1, hidden] each
        add("Split", ["state_quantised"], *fed, axis=1)
    sums = [product(fed[i], f"layer_{i}_R") for i in layers]
    together = sums[0]
    if num_layers > 1:
        together = add("Concat", sums, "recurrent_sums", axis=2)  # [batch, 1, layers * 3 hidden]
    recurrent = add(
        "Add", [rescaled(together, "recurrent_scale", "recurrent_products"), "recurrent_bias"],
        "recurrent",
    )  # fmt: skip
    sizes = "recurrent_sizes" if num_layers > 1 else "input_sizes"
    add(
        "Split", [recurrent, sizes],
        *(f"layer_{i}_recurrent_{part}" for i in layers for part in ("gates", "new")), axis=2,
    )  # fmt: skip
    x = add("Gather", ["table", "current"], "layer_0_input")  # [batch, 1, 3 hidden]
    new_states: list[str] = []
    for i in layers:
        at = f"layer_{i}"
        if i:
            x = rescaled(product(x, f"{at}_W"), f"{at}_W_scale", f"{at}_input")
        add("Split", [x, "input_sizes"], f"{at}_input_gates", f"{at}_input_new", axis=2)
        gates = add("Add", [f"{at}_input_gates", f"{at}_recurrent_gates"], f"{at}_gate_sums")
        gates = add("Sigmoid", [gates], f"{at}_gates")
        add("Split", [gates], f"{at}_update", f"{at}_reset", axis=2)
        kept = add("Mul", [f"{at}_reset", f"{at}_recurrent_new"], f"{at}_kept")
        new = f"{at}_input_new"
        if i:
            new = add("Add", [new, f"{at}_bias"], f"{at}_input_new_biased")
        new = add("Tanh", [add("Add", [new, kept], f"{at}_new_sums")], f"{at}_new")
        change = add("Sub", [old[i], new], f"{at}_change")
        change = add("Mul", [f"{at}_update", change], f"{at}_carried")
        name = f"{at}_state" if num_layers > 1 else "next_state"
        new_states.append(add("Add", [new, change], name))
        x = quantised(name)
    if num_layers > 1:
        add("Concat", new_states, "next_state", axis=1)
    scores = rescaled(product(x, "output_weight"), "output_scale", "output_products")
    scores = add("Add", [scores, "output_bias"], "scores")  # [batch, 1, vocab_size]
    add("Squeeze", [scores, "time_axis"], "step_logits")
    return nodes

"""The step in the precision int8: the GRU as integer products and elementwise operators.

ONNX has no quantised GRU, so the cell is written out and the loop over time is a Scan, with the
weights in its body. `chargen_export.int8` says how the numbers are chosen.
"""

from collections.abc import Sequence

import numpy as np

from chargen_ort.errors import ArtifactError
from chargen_ort.graphs.spec import (
    FLOAT,
    HIDDEN,
    INT8,
    INT64,
    LOGITS,
    NEXT_HIDDEN,
    TOKEN,
    UINT8,
    Attribute,
    Graph,
    Node,
    Sizes,
    Tensor,
    Value,
    named_node,
    step_graph,
)

MAX_TABLE = 1 << 26  # numbers in the first layer's table, 256 MB once loaded
ACTIVATION_LEVELS, ACTIVATION_ZERO = 127, 128
_ACTIVATION_SCALE = float(np.float32(1 / ACTIVATION_LEVELS))


def int8_graph(sizes: Sizes) -> Graph:
    """A table of the first layer's input products, and a Scan over time.

    Raises:
        ArtifactError: vocabulary and hidden size are too large for the table.
    """
    vocab_size, hidden_size = sizes.vocab_size, sizes.hidden_size
    if vocab_size * 3 * hidden_size > MAX_TABLE:
        raise ArtifactError(
            f"the table of int8 has vocabulary x 3 hidden = {vocab_size * 3 * hidden_size} "
            f"numbers; the limit is {MAX_TABLE}"
        )
    nodes = [*table_nodes(), *step_nodes(sizes, body_tensors(sizes))]
    doc = "A GRU language model in int8: as many steps as it is fed."
    return step_graph(sizes, doc, nodes, table_tensors(sizes))


def step_nodes(sizes: Sizes, tensors: Sequence[Tensor]) -> list[Node]:
    """From `TOKEN` and `HIDDEN` to `LOGITS` and `NEXT_HIDDEN`, with `tensors` in the body."""
    vocab_size, hidden_size = sizes.vocab_size, sizes.hidden_size
    state = ("batch", sizes.num_layers, hidden_size)
    inputs = (
        Value("state", FLOAT, state),
        Value("layer_0_input", FLOAT, ("batch", 1, 3 * hidden_size)),
    )
    logits = Value("step_logits", FLOAT, ("batch", vocab_size))
    body = Graph(
        "one_step",
        "One step of every row.",
        tuple(body_nodes(sizes.num_layers)),
        tuple(tensors),
        inputs,
        (Value("next_state", FLOAT, state), logits),
    )
    options: dict[str, Attribute] = {"body": body, "num_scan_inputs": 1}
    fed, made = (HIDDEN, "input_by_time"), (NEXT_HIDDEN, "logits_by_time")
    return [
        Node("time_first", "Transpose", (TOKEN,), ("token_by_time",), {"perm": (1, 0)}),
        # outside of the body, which thus needs no value but its inputs: OpenVINO asks for that
        named_node("Gather", ("table", "token_by_time"), fed[1]),
        Node("steps", "Scan", fed, made, options, "one step after the other"),
        Node("batch_first", "Transpose", made[1:], (LOGITS,), {"perm": (1, 0, 2)}),
    ]


def table_nodes() -> list[Node]:
    """The first layer's input product of every token: ``[vocab_size, 1, 3 hidden]``."""
    return [
        named_node("Cast", ("embedding",), "embedding_integers", to=FLOAT),
        named_node("Mul", ("embedding_integers", "embedding_scale"), "vectors"),
        named_node("Cast", ("layer_0_W",), "layer_0_W_integers", to=FLOAT),
        named_node("Mul", ("layer_0_W_integers", "layer_0_W_scale"), "layer_0_W_float"),
        named_node("MatMul", ("vectors", "layer_0_W_float"), "products"),
        named_node("Add", ("products", "layer_0_bias"), "table"),
    ]


def table_tensors(sizes: Sizes) -> list[Tensor]:
    """The weights that the table is made of."""
    gates = 3 * sizes.hidden_size
    return [
        Tensor("embedding", INT8, (sizes.vocab_size, 1, sizes.embedding_dim)),
        Tensor("embedding_scale", FLOAT, (sizes.vocab_size, 1, 1)),
        Tensor("layer_0_W", INT8, (sizes.embedding_dim, gates)),
        Tensor("layer_0_W_scale", FLOAT, (gates,)),
        Tensor("layer_0_bias", FLOAT, (gates,)),
    ]


def body_tensors(sizes: Sizes) -> list[Tensor]:
    """The weights of a step, and the numbers that its nodes need."""
    hidden, layers = sizes.hidden_size, sizes.num_layers
    gates = 3 * hidden
    tensors = []
    for layer in range(layers):
        if layer:
            tensors += [
                Tensor(f"layer_{layer}_W", INT8, (hidden, gates)),
                Tensor(f"layer_{layer}_W_scale", FLOAT, (gates,)),
                Tensor(f"layer_{layer}_bias", FLOAT, (hidden,)),
            ]
        tensors.append(Tensor(f"layer_{layer}_R", INT8, (hidden, gates)))
    parts = (2 * hidden, hidden)
    tensors += [
        Tensor("recurrent_scale", FLOAT, (layers * gates,)),
        Tensor("recurrent_bias", FLOAT, (layers * gates,)),
        Tensor("output_weight", INT8, (hidden, sizes.vocab_size)),
        Tensor("output_scale", FLOAT, (sizes.vocab_size,)),
        Tensor("output_bias", FLOAT, (sizes.vocab_size,)),
        Tensor("activation_scale", FLOAT, (), (_ACTIVATION_SCALE,)),
        Tensor("activation_zero", UINT8, (), (ACTIVATION_ZERO,)),
    ]
    if layers > 1:
        tensors.append(Tensor("recurrent_sizes", INT64, (2 * layers,), parts * layers))
    return [
        *tensors,
        Tensor("input_sizes", INT64, (2,), parts),
        Tensor("time_axis", INT64, (1,), (1,)),
    ]


def body_nodes(num_layers: int) -> list[Node]:
    """One step of every row: `state` and `layer_0_input` to `next_state` and `step_logits`.

    Values are ``[batch, 1, …]`` but for state and logits.
    """
    nodes: list[Node] = []

    def add(op: str, inputs: tuple[str, ...], *outputs: str, **attributes: int) -> str:
        nodes.append(named_node(op, inputs, *outputs, **attributes))
        return outputs[0]

    def quantised(name: str) -> str:
        levels = ("activation_scale", "activation_zero")
        return add("QuantizeLinear", (name, *levels), f"{name}_quantised")

    def product(name: str, weight: str) -> str:
        return add("MatMulInteger", (name, weight, "activation_zero"), f"{weight}_sums")

    def rescaled(sums: str, scale: str, name: str) -> str:
        return add("Mul", (add("Cast", (sums,), f"{name}_integers", to=FLOAT), scale), name)

    layers, many = range(num_layers), num_layers > 1
    old: tuple[str, ...] = ("state",)
    fed: tuple[str, ...] = (quantised("state"),)
    if many:
        old = tuple(f"layer_{layer}_old" for layer in layers)
        fed = tuple(f"layer_{layer}_fed" for layer in layers)
        add("Split", ("state",), *old, axis=1)
        add("Split", ("state_quantised",), *fed, axis=1)
    sums = tuple(product(fed[layer], f"layer_{layer}_R") for layer in layers)
    together = add("Concat", sums, "recurrent_sums", axis=2) if many else sums[0]
    scaled = rescaled(together, "recurrent_scale", "recurrent_products")
    recurrent = add("Add", (scaled, "recurrent_bias"), "recurrent")
    parts = (f"layer_{layer}_recurrent_{part}" for layer in layers for part in ("gates", "new"))
    add("Split", (recurrent, "recurrent_sizes" if many else "input_sizes"), *parts, axis=2)
    x = "layer_0_input"
    states: list[str] = []
    for layer in layers:
        at = f"layer_{layer}"
        if layer:
            x = rescaled(product(x, f"{at}_W"), f"{at}_W_scale", f"{at}_input")
        add("Split", (x, "input_sizes"), f"{at}_input_gates", f"{at}_input_new", axis=2)
        gates = add("Add", (f"{at}_input_gates", f"{at}_recurrent_gates"), f"{at}_gate_sums")
        gates = add("Sigmoid", (gates,), f"{at}_gates")
        add("Split", (gates,), f"{at}_update", f"{at}_reset", axis=2)
        kept = add("Mul", (f"{at}_reset", f"{at}_recurrent_new"), f"{at}_kept")
        new = f"{at}_input_new"
        if layer:
            new = add("Add", (new, f"{at}_bias"), f"{at}_input_new_biased")
        new = add("Tanh", (add("Add", (new, kept), f"{at}_new_sums"),), f"{at}_new")
        change = add("Sub", (old[layer], new), f"{at}_change")
        change = add("Mul", (f"{at}_update", change), f"{at}_carried")
        states.append(add("Add", (new, change), f"{at}_state" if many else "next_state"))
        x = quantised(states[-1])
    if many:
        add("Concat", tuple(states), "next_state", axis=1)
    return [*nodes, *projection_nodes(x)]


def projection_nodes(quantised: str) -> list[Node]:
    """From the last layer's state, quantised ``[batch, 1, hidden_size]``, to `step_logits`."""
    sums, numbers = "output_weight_sums", "output_products_integers"
    return [
        named_node("MatMulInteger", (quantised, "output_weight", "activation_zero"), sums),
        named_node("Cast", (sums,), numbers, to=FLOAT),
        named_node("Mul", (numbers, "output_scale"), "output_products"),
        named_node("Add", ("output_products", "output_bias"), "scores"),
        named_node("Squeeze", ("scores", "time_axis"), "step_logits"),
    ]

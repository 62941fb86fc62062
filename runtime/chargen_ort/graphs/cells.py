"""The step of fp32 and fp16 written out, where ONNX Runtime is to keep its weights packed.

It repacks those of the GRU operator in every call. The gates stand in ONNX's order update, reset,
new; the biases of a sum are added up beforehand, and the first layer's input products are a table
where that is not too large.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from chargen_ort.graphs.gru import HALF
from chargen_ort.graphs.spec import (
    FLOAT,
    HIDDEN,
    INT64,
    NEXT_HIDDEN,
    Node,
    Sizes,
    Tensor,
    Value,
    named_node,
)

MAX_TABLE = 1 << 20  # numbers: a larger one saves a fiftieth of a step, and takes long to make

Array = NDArray[np.generic]


def has_table(sizes: Sizes) -> bool:
    """Whether the first layer's input products are looked up; else they are computed each time."""
    return sizes.vocab_size * 3 * sizes.hidden_size <= MAX_TABLE


def cell_weights(weights: Mapping[str, Array], sizes: Sizes) -> dict[str, Array]:
    """The weights by their names here, from those of the file."""
    single = {n.removesuffix(HALF): w.astype(np.float32, copy=False) for n, w in weights.items()}
    made: dict[str, Array] = {
        name: single[name] for name in ("embedding", "output_weight", "output_bias")
    }
    gates = slice(0, 2 * sizes.hidden_size), slice(2 * sizes.hidden_size, None)
    for layer in range(sizes.num_layers):
        w, r, bias = (single[f"layer_{layer}_{letter}"][0] for letter in "WRB")
        into, back = np.split(bias, 2)  # [3 hidden_size] each
        summed = into.copy()
        summed[gates[0]] += back[gates[0]]
        products, table = w.T, layer == 0 and has_table(sizes)  # [width, 3 hidden_size]
        if table:
            # in float64: no library's order of summing shows in the rounded result
            exact = made.pop("embedding").astype(np.float64) @ products.astype(np.float64) + summed
            products = exact.astype(np.float32)  # [vocab_size, 3 hidden_size]
        for name, part in zip(("gates", "new"), gates, strict=True):
            at = f"layer_{layer}_{name}"
            made[f"{at}_W"], made[f"{at}_R"] = products[:, part], r[part].T
            if not table:
                made[f"{at}_bias"] = summed[part]
        made[f"layer_{layer}_kept_bias"] = back[gates[1]]
    return made


def first_input(sizes: Sizes, tokens: str, ending: str = "input") -> list[Node]:
    """The first layer's input products, ``layer_0_gates_input`` and ``layer_0_new_input``."""
    at = ("layer_0_gates", "layer_0_new")
    if has_table(sizes):
        return [named_node("Gather", (f"{name}_W", tokens), f"{name}_{ending}") for name in at]
    nodes = [named_node("Gather", ("embedding", tokens), "embedded")]
    for name in at:
        nodes += [
            named_node("MatMul", ("embedded", f"{name}_W"), f"{name}_products"),
            named_node("Add", (f"{name}_products", f"{name}_bias"), f"{name}_{ending}"),
        ]
    return nodes


def first_tensors(sizes: Sizes) -> list[Tensor]:
    """What `first_input` needs."""
    if has_table(sizes):
        return _products(0, sizes.vocab_size, sizes.hidden_size, with_bias=False)
    embedding = Tensor("embedding", FLOAT, (sizes.vocab_size, sizes.embedding_dim))
    return [embedding, *_products(0, sizes.embedding_dim, sizes.hidden_size)]


def cell_nodes(num_layers: int) -> list[Node]:
    """One step of all layers: the first one's inputs and ``layer_N_old`` to ``layer_N_state``.

    All are ``[batch, …]``.
    """
    nodes: list[Node] = []

    def add(op: str, inputs: tuple[str, ...], *outputs: str, **attributes: int) -> str:
        nodes.append(named_node(op, inputs, *outputs, **attributes))
        return outputs[0]

    for layer in range(num_layers):
        at, old = f"layer_{layer}", f"layer_{layer}_old"
        for name in (f"{at}_gates", f"{at}_new") if layer else ():
            below = f"layer_{layer - 1}_state"
            add("Gemm", (below, f"{name}_W", f"{name}_bias"), f"{name}_input")
        gates = add("Gemm", (old, f"{at}_gates_R", f"{at}_gates_input"), f"{at}_gate_sums")
        gates = add("Sigmoid", (gates,), f"{at}_gates")
        add("Split", (gates,), f"{at}_update", f"{at}_reset", axis=1)
        kept = add("Gemm", (old, f"{at}_new_R", f"{at}_kept_bias"), f"{at}_recurrent_new")
        kept = add("Mul", (f"{at}_reset", kept), f"{at}_kept")
        new = add("Add", (kept, f"{at}_new_input"), f"{at}_new_sums")
        new = add("Tanh", (new,), f"{at}_new")
        change = add("Sub", (old, new), f"{at}_change")
        change = add("Mul", (f"{at}_update", change), f"{at}_carried")
        add("Add", (new, change), f"{at}_state")
    return nodes


def cell_tensors(sizes: Sizes) -> list[Tensor]:
    """What `cell_nodes` needs."""
    hidden, tensors = sizes.hidden_size, []
    for layer in range(sizes.num_layers):
        at = f"layer_{layer}"
        tensors += _products(layer, hidden, hidden) if layer else []
        tensors += [
            Tensor(f"{at}_gates_R", FLOAT, (hidden, 2 * hidden)),
            Tensor(f"{at}_new_R", FLOAT, (hidden, hidden)),
            Tensor(f"{at}_kept_bias", FLOAT, (hidden,)),
        ]
    return tensors


def output_tensors(sizes: Sizes) -> list[Tensor]:
    """The projection to the vocabulary."""
    return [
        Tensor("output_weight", FLOAT, (sizes.hidden_size, sizes.vocab_size)),
        Tensor("output_bias", FLOAT, (sizes.vocab_size,)),
    ]


def states(sizes: Sizes, when: str) -> list[Value]:
    """A state ``[batch, hidden_size]`` for each layer."""
    shape = ("batch", sizes.hidden_size)
    return [Value(f"layer_{layer}_{when}", FLOAT, shape) for layer in range(sizes.num_layers)]


def split_hidden(states: list[str]) -> list[Node]:
    """From `HIDDEN` to a state for each layer."""
    return [
        named_node("Reshape", (HIDDEN, "flat_shape"), "hidden_flat"),
        named_node("Split", ("hidden_flat",), *states, axis=1),
    ]


def join_hidden(states: list[str]) -> list[Node]:
    """From a state for each layer to `NEXT_HIDDEN`."""
    return [
        named_node("Concat", tuple(states), "next_hidden_flat", axis=1),
        named_node("Reshape", ("next_hidden_flat", "hidden_shape"), NEXT_HIDDEN),
    ]


def hidden_shapes(sizes: Sizes) -> list[Tensor]:
    """What `split_hidden` and `join_hidden` need."""
    num_layers, hidden = sizes.num_layers, sizes.hidden_size
    return [
        Tensor("flat_shape", INT64, (2,), (-1, num_layers * hidden)),
        Tensor("hidden_shape", INT64, (3,), (-1, num_layers, hidden)),
    ]


def _products(layer: int, rows: int, hidden: int, with_bias: bool = True) -> list[Tensor]:
    tensors = []
    for name, width in ((f"layer_{layer}_gates", 2 * hidden), (f"layer_{layer}_new", hidden)):
        tensors.append(Tensor(f"{name}_W", FLOAT, (rows, width)))
        if with_bias:
            tensors.append(Tensor(f"{name}_bias", FLOAT, (width,)))
    return tensors

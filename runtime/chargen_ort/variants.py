"""The graphs that train-export writes, one for each precision, node by node.

This table is the allow-list of the guard: a file may hold the graph that its precision and sizes
give here, and no other. A new precision is one more entry in `VARIANTS`.
"""

from collections.abc import Mapping

from chargen_ort.graph_spec import (
    FLOAT,
    FLOAT16,
    HIDDEN,
    INT64,
    LOGITS,
    NEXT_HIDDEN,
    TOKEN,
    Graph,
    Node,
    Sizes,
    Tensor,
    Tolerance,
    Variant,
    with_contract,
)
from chargen_ort.variant_int8 import int8_graph


def fp32_graph(sizes: Sizes) -> Graph:
    """Embedding, one GRU a layer, projection; see `chargen_export.graph`."""
    return with_contract(sizes, _gru_nodes(sizes), _gru_tensors(sizes, FLOAT, ""))


def fp16_graph(sizes: Sizes) -> Graph:
    """The same with weights in half precision, each with a Cast to float32 at the start."""
    tensors = _gru_tensors(sizes, FLOAT16, "_fp16")
    casts = [
        Node("Cast", (tensor.name,), (tensor.name.removesuffix("_fp16"),), {"to": FLOAT})
        for tensor in tensors
        if tensor.dtype == FLOAT16
    ]
    return with_contract(sizes, [*casts, *_gru_nodes(sizes)], tensors)


def _gru_nodes(sizes: Sizes) -> list[Node]:
    layers = range(sizes.num_layers)
    swap = {"perm": (1, 0, 2)}
    nodes = [
        Node("Gather", ("embedding", TOKEN), ("embedded",)),
        Node("Transpose", ("embedded",), ("layer_0_in",), swap),
        Node("Transpose", (HIDDEN,), ("hidden_by_layer",), swap),
    ]
    initial = tuple(f"layer_{layer}_hidden" for layer in layers)
    final = tuple(f"layer_{layer}_next_hidden" for layer in layers)
    by_layer = "next_hidden_by_layer"
    if sizes.num_layers == 1:
        initial, by_layer = ("hidden_by_layer",), final[0]
    else:
        nodes.append(Node("Split", ("hidden_by_layer",), initial, {"axis": 0}))
    for layer in layers:
        weights = (f"layer_{layer}_{part}" for part in ("W", "R", "B"))
        out = f"layer_{layer}_out4"
        nodes += [
            Node(
                "GRU",
                (f"layer_{layer}_in", *weights, "", initial[layer]),
                (out, final[layer]),
                {"hidden_size": sizes.hidden_size, "linear_before_reset": 1},
            ),
            Node("Squeeze", (out, "direction"), (f"layer_{layer + 1}_in",)),
        ]
    if sizes.num_layers > 1:
        nodes.append(Node("Concat", final, (by_layer,), {"axis": 0}))
    return [
        *nodes,
        Node("Transpose", (by_layer,), (NEXT_HIDDEN,), swap),
        Node("Transpose", (f"layer_{sizes.num_layers}_in",), ("features",), swap),
        Node("MatMul", ("features", "output_weight"), ("scores",)),
        Node("Add", ("scores", "output_bias"), (LOGITS,)),
    ]


def _gru_tensors(sizes: Sizes, dtype: int, suffix: str) -> list[Tensor]:
    """The weights, and the axis of the GRU's one direction."""
    hidden = sizes.hidden_size
    tensors = [
        Tensor(f"embedding{suffix}", dtype, (sizes.vocab_size, sizes.embedding_dim)),
        Tensor("direction", INT64, (1,), (1,)),
    ]
    for layer in range(sizes.num_layers):
        width = hidden if layer else sizes.embedding_dim
        tensors += [
            Tensor(f"layer_{layer}_W{suffix}", dtype, (1, 3 * hidden, width)),
            Tensor(f"layer_{layer}_R{suffix}", dtype, (1, 3 * hidden, hidden)),
            Tensor(f"layer_{layer}_B{suffix}", dtype, (1, 6 * hidden)),
        ]
    return [
        *tensors,
        Tensor(f"output_weight{suffix}", dtype, (hidden, sizes.vocab_size)),
        Tensor(f"output_bias{suffix}", dtype, (sizes.vocab_size,)),
    ]


# Carried states of int8 may fall to another integer on another machine: with each state moved by
# two units in its last place at every step, the logits of 2 x 512 moved by 0.042 at most.
_INT8_TOLERANCE = Tolerance(vectors=0.1)

VARIANTS: Mapping[str, Variant] = {
    "fp32": Variant(fp32_graph),
    "fp16": Variant(fp16_graph),
    "int8": Variant(int8_graph, _INT8_TOLERANCE),
}

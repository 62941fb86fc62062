"""The step in the precisions fp32 and fp16: embedding, one GRU operator a layer, projection.

The gates of W, R and B stand in ONNX's order update, reset, new, and B holds the input biases
before the recurrent ones; PyTorch's order is reset, update, new.
"""

from chargen_ort.graphs.spec import (
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
    step_graph,
)

HALF = "_fp16"  # ends the names of tensors in half precision
_DOC = "A GRU language model: as many steps as it is fed."


def fp32_graph(sizes: Sizes) -> Graph:
    """The graph with its weights in single precision."""
    return step_graph(sizes, _DOC, gru_nodes(sizes), gru_tensors(sizes, "fp32"))


def fp16_graph(sizes: Sizes) -> Graph:
    """The same with weights in half precision, each with a Cast to float32 at the start.

    ONNX Runtime carries the casts out once, on load.
    """
    tensors = gru_tensors(sizes, "fp16")
    return step_graph(sizes, _DOC, [*cast_nodes(tensors), *gru_nodes(sizes)], tensors)


def cast_nodes(tensors: list[Tensor]) -> list[Node]:
    """From the weights in half precision to those that `gru_nodes` takes."""
    names = [tensor.name.removesuffix(HALF) for tensor in tensors if tensor.kind == FLOAT16]
    doc, to_float = "stored in half precision", {"to": FLOAT}
    return [Node(f"{n}_cast", "Cast", (n + HALF,), (n,), to_float, doc) for n in names]


def gru_nodes(sizes: Sizes) -> list[Node]:
    """The step, with its weights in single precision."""
    swap, fed = {"perm": (1, 0, 2)}, ("embedding", TOKEN)
    doc, by_layer_doc = "[time, batch, embedding_dim]", "[num_layers, batch, hidden_size]"
    nodes = [
        Node("embed", "Gather", fed, ("embedded",), {}, "[batch, time, embedding_dim]"),
        Node("time_first", "Transpose", ("embedded",), ("layer_0_in",), swap, doc),
        Node("layer_first", "Transpose", (HIDDEN,), ("hidden_by_layer",), swap, by_layer_doc),
    ]
    layers = range(sizes.num_layers)
    initial = tuple(f"layer_{layer}_hidden" for layer in layers)
    final = tuple(f"layer_{layer}_next_hidden" for layer in layers)
    by_layer = "next_hidden_by_layer"
    if sizes.num_layers == 1:
        initial, by_layer = ("hidden_by_layer",), final[0]
    else:
        doc = "one state a layer: [1, batch, hidden_size] each"
        nodes.append(Node("split_hidden", "Split", ("hidden_by_layer",), initial, {"axis": 0}, doc))
    options = {"hidden_size": sizes.hidden_size, "linear_before_reset": 1}
    for layer in layers:
        at = f"layer_{layer}"
        given = (f"{at}_in", f"{at}_W", f"{at}_R", f"{at}_B", "", initial[layer])
        out, above = f"{at}_out4", (f"layer_{layer + 1}_in",)
        doc = "[time, 1, batch, hidden_size], [1, batch, hidden_size]"
        nodes += [
            Node(f"{at}_gru", "GRU", given, (out, final[layer]), options, doc),
            Node(f"{at}_squeeze", "Squeeze", (out, "direction"), above, {}, "one direction only"),
        ]
    if sizes.num_layers > 1:
        node = Node("join_hidden", "Concat", final, (by_layer,), {"axis": 0}, by_layer_doc)
        nodes.append(node)
    doc, last = "[batch, num_layers, hidden_size]", f"layer_{sizes.num_layers}_in"
    scores, bias = ("features", "output_weight"), ("scores", "output_bias")
    return [
        *nodes,
        Node("batch_first_hidden", "Transpose", (by_layer,), (NEXT_HIDDEN,), swap, doc),
        Node(
            "batch_first", "Transpose", (last,), ("features",), swap, "[batch, time, hidden_size]"
        ),
        Node("project", "MatMul", scores, ("scores",), {}, "to the vocabulary"),
        Node("bias", "Add", bias, (LOGITS,), {}, "[batch, time, vocab_size], before temperature"),
    ]


def gru_tensors(sizes: Sizes, precision: str) -> list[Tensor]:
    """The weights, and the axis of the GRU's one direction."""
    kind, suffix = (FLOAT16, HALF) if precision == "fp16" else (FLOAT, "")
    hidden = sizes.hidden_size
    tensors = [
        Tensor(f"embedding{suffix}", kind, (sizes.vocab_size, sizes.embedding_dim)),
        Tensor("direction", INT64, (1,), (1,)),
    ]
    for layer in range(sizes.num_layers):
        width = hidden if layer else sizes.embedding_dim
        tensors += [
            Tensor(f"layer_{layer}_W{suffix}", kind, (1, 3 * hidden, width)),
            Tensor(f"layer_{layer}_R{suffix}", kind, (1, 3 * hidden, hidden)),
            Tensor(f"layer_{layer}_B{suffix}", kind, (1, 6 * hidden)),
        ]
    return [
        *tensors,
        Tensor(f"output_weight{suffix}", kind, (hidden, sizes.vocab_size)),
        Tensor(f"output_bias{suffix}", kind, (sizes.vocab_size,)),
    ]

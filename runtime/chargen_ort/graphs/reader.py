"""The graph that reads many rows: the inputs and outputs of a file's, with the step written out.

It stands in no file. An engine makes it in memory for batches of fp32 and fp16, where it is sooner
than the GRU operator; of one row, that operator is the quickest way to read.
"""

from chargen_ort.graphs.cells import (
    cell_nodes,
    cell_tensors,
    first_input,
    first_tensors,
    hidden_shapes,
    join_hidden,
    output_tensors,
    split_hidden,
    states,
)
from chargen_ort.graphs.spec import (
    FLOAT,
    LOGITS,
    TOKEN,
    Attribute,
    Graph,
    Node,
    Sizes,
    Value,
    named_node,
    placed,
    step_graph,
)


def reader_graph(sizes: Sizes) -> Graph:
    """As many steps as it is fed; inputs and outputs are those of `step_graph`."""
    hidden, layers = sizes.hidden_size, range(sizes.num_layers)
    fed, made = ([f"layer_{layer}_{when}" for layer in layers] for when in ("first", "final"))
    last = f"layer_{layers[-1]}_state"
    inputs = (
        Value("layer_0_gates_input", FLOAT, ("batch", 2 * hidden)),
        Value("layer_0_new_input", FLOAT, ("batch", hidden)),
    )
    inside, beside = placed(cell_tensors(sizes))
    body = Graph(
        "one_step",
        "One step of every row.",
        (*cell_nodes(sizes.num_layers), named_node("Identity", (last,), "top")),
        inside,
        (*states(sizes, "old"), *inputs),
        (*states(sizes, "state"), Value("top", FLOAT, ("batch", hidden))),
    )
    by_time = ("layer_0_gates_by_time", "layer_0_new_by_time")  # [time, batch, …] each
    options: dict[str, Attribute] = {"body": body, "num_scan_inputs": len(by_time)}
    scores = ("features", "output_weight"), ("scores", "output_bias")
    nodes = [
        Node("time_first", "Transpose", (TOKEN,), ("token_by_time",), {"perm": (1, 0)}),
        *first_input(sizes, "token_by_time", "by_time"),
        *split_hidden(fed),
        Node("steps", "Scan", (*fed, *by_time), (*made, "features_by_time"), options),
        *join_hidden(made),
        Node("batch_first", "Transpose", ("features_by_time",), ("features",), {"perm": (1, 0, 2)}),
        Node("project", "MatMul", scores[0], ("scores",)),
        Node("bias", "Add", scores[1], (LOGITS,)),
    ]
    tensors = [*beside, *first_tensors(sizes), *output_tensors(sizes), *hidden_shapes(sizes)]
    return step_graph(sizes, "A GRU language model that reads many rows.", nodes, tensors)

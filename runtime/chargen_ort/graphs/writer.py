"""The graph that writes: a Scan whose every step draws a token from the last logits and reads it.

It stands in no file. An engine makes it in memory of the weights of the sealed file, because many
steps in one run cost far less than as many runs. The step of int8 is the file's own; that of fp32
and fp16 is the GRU operator written out, as ONNX Runtime then keeps the weights packed from step to
step. Gates stand in ONNX's order update, reset, new.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_ort.graphs.gru import HALF
from chargen_ort.graphs.int8 import body_nodes, body_tensors, table_nodes, table_tensors
from chargen_ort.graphs.spec import (
    DOUBLE,
    FLOAT,
    HIDDEN,
    INT64,
    LOGITS,
    NEXT_HIDDEN,
    Graph,
    Node,
    Sizes,
    Tensor,
    Value,
    named_node,
)

INVERSE_TEMPERATURE, UNIFORMS = "inverse_temperature", "uniforms"
NEXT_LOGITS, TOKENS = "next_logits", "tokens"
MAX_TABLE = 1 << 22  # numbers in the first layer's table of fp32 and fp16: 16 MB

Array = NDArray[np.generic]


@dataclass(frozen=True)
class _Step:
    """What the precisions differ in: the step, and what stands around the Scan.

    Attributes:
        nodes, tensors: of the step, from `old` and ``current`` to `new` and ``step_logits``.
        old, new: the states before and after a step.
        fed, made: names of the states before and after the Scan.
        before, after: nodes from `HIDDEN` to `fed`, and from `made` to `NEXT_HIDDEN`.
        outer_tensors: what `before` and `after` need.
    """

    nodes: list[Node]
    tensors: list[Tensor]
    old: list[Value]
    new: list[Value]
    fed: list[str]
    made: list[str]
    before: list[Node]
    after: list[Node]
    outer_tensors: list[Tensor]


def writer_graph(sizes: Sizes, precision: str, greedy: bool) -> Graph:
    """The graph that writes as many tokens a row as it gets uniforms.

    Its inputs are `HIDDEN` float32 ``[batch, num_layers, hidden_size]``, `LOGITS` float32
    ``[batch, vocab_size]``, `INVERSE_TEMPERATURE` float32 ``[batch, 1]`` and `UNIFORMS`
    float64 ``[time, batch, 1]``; its outputs `NEXT_HIDDEN`, `NEXT_LOGITS` and `TOKENS` int64
    ``[time, batch]``.

    Args:
        sizes: of the model.
        precision: how the file keeps its weights.
        greedy: take the likeliest token, the lowest among equals, whatever the uniforms.
    """
    step = _int8_step(sizes) if precision == "int8" else _float_step(sizes)
    logits = ("batch", sizes.vocab_size)
    body = Graph(
        "one_character",
        "Draws a token in every row and reads it.",
        (*_draw_nodes(greedy), *step.nodes),
        (*_draw_tensors(sizes, greedy), *step.tensors),
        (*step.old, Value("last_logits", FLOAT, logits), Value("uniform", DOUBLE, ("batch", 1))),
        (*step.new, Value("step_logits", FLOAT, logits), Value("current", INT64, ("batch",))),
    )
    fed, made = (*step.fed, LOGITS, UNIFORMS), (*step.made, NEXT_LOGITS, TOKENS)
    scan = Node("write", "Scan", fed, made, {"body": body, "num_scan_inputs": 1})
    hidden = ("batch", sizes.num_layers, sizes.hidden_size)
    inputs = Value(HIDDEN, FLOAT, hidden), Value(LOGITS, FLOAT, logits)
    options = (
        Value(INVERSE_TEMPERATURE, FLOAT, ("batch", 1)),
        Value(UNIFORMS, DOUBLE, ("time", "batch", 1)),
    )
    outputs = Value(NEXT_HIDDEN, FLOAT, hidden), Value(NEXT_LOGITS, FLOAT, logits)
    return Graph(
        "chargen_writer",
        "A GRU language model that writes.",
        (*step.before, scan, *step.after),
        tuple(step.outer_tensors),
        inputs + options,
        (*outputs, Value(TOKENS, INT64, ("time", "batch"))),
    )


def writer_weights(weights: Mapping[str, Array], sizes: Sizes, precision: str) -> dict[str, Array]:
    """The weights of the writer, by their names in its graph, from those of the file."""
    if precision == "int8":
        return dict(weights)
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


def has_table(sizes: Sizes) -> bool:
    """Whether fp32 and fp16 look the first layer's input products up, or compute them each time."""
    return sizes.vocab_size * 3 * sizes.hidden_size <= MAX_TABLE


def _draw_tensors(sizes: Sizes, greedy: bool) -> list[Tensor]:
    if greedy:
        return []
    last = Tensor("last_token", INT64, (1,), (sizes.vocab_size - 1,))
    return [Tensor("token_axis", INT64, (), (1,)), last]


def _draw_nodes(greedy: bool) -> list[Node]:
    """From ``last_logits`` to ``current``."""
    if greedy:
        return [named_node("ArgMax", ("last_logits",), "current", axis=1, keepdims=0)]
    return [
        named_node("Mul", ("last_logits", INVERSE_TEMPERATURE), "scaled"),
        named_node("Softmax", ("scaled",), "probabilities", axis=1),
        named_node("Cast", ("probabilities",), "terms", to=DOUBLE),
        named_node("CumSum", ("terms", "token_axis"), "sums"),
        named_node("Gather", ("sums", "last_token"), "total", axis=1),
        named_node("Mul", ("uniform", "total"), "sought"),
        # from the first sum that reaches what is sought on, all are equal to it: the maximum
        named_node("Min", ("sums", "sought"), "capped"),
        named_node("ArgMax", ("capped",), "current", axis=1, keepdims=0),
    ]


def _int8_step(sizes: Sizes) -> _Step:
    """The step of the file, node for node."""
    state = ("batch", sizes.num_layers, sizes.hidden_size)
    return _Step(
        nodes=[
            named_node("Gather", ("table", "current"), "layer_0_input"),
            *body_nodes(sizes.num_layers),
        ],
        tensors=body_tensors(sizes),
        old=[Value("state", FLOAT, state)],
        new=[Value("next_state", FLOAT, state)],
        fed=[HIDDEN],
        made=[NEXT_HIDDEN],
        before=table_nodes(),
        after=[],
        outer_tensors=table_tensors(sizes),
    )


def _float_step(sizes: Sizes) -> _Step:
    """The cell written out, with a state ``[batch, hidden_size]`` for each layer."""
    layers, hidden = range(sizes.num_layers), sizes.hidden_size
    fed, made = ([f"layer_{layer}_{when}" for layer in layers] for when in ("first", "final"))
    nodes, tensors = _embedding(sizes)
    for layer in layers:
        nodes += _cell_nodes(layer, layer == 0 and has_table(sizes))
        tensors += _cell_tensors(layer, sizes)
    scores = (f"layer_{layers[-1]}_state", "output_weight", "output_bias")
    return _Step(
        nodes=[*nodes, named_node("Gemm", scores, "step_logits")],
        tensors=[
            *tensors,
            Tensor("output_weight", FLOAT, (hidden, sizes.vocab_size)),
            Tensor("output_bias", FLOAT, (sizes.vocab_size,)),
        ],
        old=[Value(f"layer_{layer}_old", FLOAT, ("batch", hidden)) for layer in layers],
        new=[Value(f"layer_{layer}_state", FLOAT, ("batch", hidden)) for layer in layers],
        fed=fed,
        made=made,
        before=[
            named_node("Reshape", (HIDDEN, "flat_shape"), "hidden_flat"),
            named_node("Split", ("hidden_flat",), *fed, axis=1),
        ],
        after=[
            named_node("Concat", tuple(made), "final_flat", axis=1),
            named_node("Reshape", ("final_flat", "hidden_shape"), NEXT_HIDDEN),
        ],
        outer_tensors=[
            Tensor("flat_shape", INT64, (2,), (-1, sizes.num_layers * hidden)),
            Tensor("hidden_shape", INT64, (3,), (-1, sizes.num_layers, hidden)),
        ],
    )


def _embedding(sizes: Sizes) -> tuple[list[Node], list[Tensor]]:
    """What makes the first layer's input where there is no table."""
    if has_table(sizes):
        return [], []
    look_up = named_node("Gather", ("embedding", "current"), "embedded")
    return [look_up], [Tensor("embedding", FLOAT, (sizes.vocab_size, sizes.embedding_dim))]


def _cell_nodes(layer: int, table: bool) -> list[Node]:
    """One layer of one step; `table`: its input products are looked up."""
    nodes: list[Node] = []

    def add(op: str, inputs: tuple[str, ...], *outputs: str, **attributes: int) -> str:
        nodes.append(named_node(op, inputs, *outputs, **attributes))
        return outputs[0]

    at = f"layer_{layer}"
    old, x = f"{at}_old", f"layer_{layer - 1}_state" if layer else "embedded"
    given = []  # [batch, 2 hidden_size] of the gates and [batch, hidden_size] of the new state
    for name in (f"{at}_gates", f"{at}_new"):
        weights = (f"{name}_W", "current") if table else (x, f"{name}_W", f"{name}_bias")
        given.append(add("Gather" if table else "Gemm", weights, f"{name}_input"))
    sums = add("Gemm", (old, f"{at}_gates_R", given[0]), f"{at}_gate_sums")
    add("Split", (add("Sigmoid", (sums,), f"{at}_gates"),), f"{at}_update", f"{at}_reset", axis=1)
    kept = add("Gemm", (old, f"{at}_new_R", f"{at}_kept_bias"), f"{at}_recurrent_new")
    kept = add("Mul", (f"{at}_reset", kept), f"{at}_kept")
    new = add("Tanh", (add("Add", (kept, given[1]), f"{at}_new_sums"),), f"{at}_new")
    change = add("Sub", (old, new), f"{at}_change")
    change = add("Mul", (f"{at}_update", change), f"{at}_carried")
    add("Add", (new, change), f"{at}_state")
    return nodes


def _cell_tensors(layer: int, sizes: Sizes) -> list[Tensor]:
    at, hidden = f"layer_{layer}", sizes.hidden_size
    rows = hidden if layer else sizes.vocab_size if has_table(sizes) else sizes.embedding_dim
    tensors = [Tensor(f"{at}_kept_bias", FLOAT, (hidden,))]
    for name, width in (("gates", 2 * hidden), ("new", hidden)):
        tensors += [
            Tensor(f"{at}_{name}_W", FLOAT, (rows, width)),
            Tensor(f"{at}_{name}_R", FLOAT, (hidden, width)),
        ]
        if layer or not has_table(sizes):
            tensors.append(Tensor(f"{at}_{name}_bias", FLOAT, (width,)))
    return tensors

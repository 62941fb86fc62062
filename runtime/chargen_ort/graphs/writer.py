"""The graph that writes: a Scan whose every step draws a token from the last logits and reads it.

It stands in no file. An engine makes it in memory of the weights of the sealed file, because many
steps in one run cost far less than as many runs. The step of int8 is the file's own; that of fp32
and fp16 is written out in `chargen_ort.graphs.cells`.
"""

from dataclasses import dataclass, replace

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
    placed,
)

INVERSE_TEMPERATURE, UNIFORMS = "inverse_temperature", "uniforms"
NEXT_LOGITS, TOKENS = "next_logits", "tokens"
SUMS = "sums"
# of a writer that is confined: where each row stands in its language, and the language
NODE, NEXT_NODE = "node", "next_node"
MASKS, CHILDREN = "masks", "children"
LOWEST = -3e38  # a score that is never drawn; infinity would make sums of nothing


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


def writer_graph(sizes: Sizes, precision: str, greedy: bool, confined: bool = False) -> Graph:
    """The graph that writes as many tokens a row as it gets uniforms.

    Its inputs are `HIDDEN` float32 ``[batch, num_layers, hidden_size]``, `LOGITS` float32
    ``[batch, vocab_size]``, `INVERSE_TEMPERATURE` float32 ``[batch, 1]`` and `UNIFORMS`
    float64 ``[time, batch, 1]``; its outputs `NEXT_HIDDEN`, `NEXT_LOGITS` and `TOKENS` int64
    ``[time, batch]``.

    Args:
        sizes: of the model.
        precision: how the file keeps its weights.
        greedy: take the likeliest token, the lowest among equals, whatever the uniforms.
        confined: draw none of the tokens that are blocked where a row stands, and walk on by the
            one that is drawn. The batch is then one row, and there are inputs more: `NODE` int64
            ``[1]`` and the tables of `chargen_ort.patterns`, `MASKS` float32
            ``[nodes, vocab_size]`` and `CHILDREN` int64 ``[nodes, vocab_size, 1]``; and the output
            `NEXT_NODE`.
    """
    step = _int8_step(sizes) if precision == "int8" else _float_step(sizes)
    inside, beside = placed(step.tensors)
    logits = ("batch", sizes.vocab_size)
    body = Graph(
        "one_character",
        "Draws a token in every row and reads it.",
        (*_draw_nodes(greedy, confined), *(_WALK if confined else ()), *step.nodes),
        (*_draw_tensors(sizes, greedy), *inside),
        (
            *([Value("old_node", INT64, ("batch",))] if confined else []),
            *step.old,
            Value("last_logits", FLOAT, logits),
            Value("uniform", DOUBLE, ("batch", 1)),
        ),
        (
            *([Value("new_node", INT64, ("batch",))] if confined else []),
            *step.new,
            Value("step_logits", FLOAT, logits),
            Value("current", INT64, ("batch",)),
        ),
    )
    nodes = ((NODE,), (NEXT_NODE,)) if confined else ((), ())
    fed = (*nodes[0], *step.fed, LOGITS, UNIFORMS)
    made = (*nodes[1], *step.made, NEXT_LOGITS, TOKENS)
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
        (*beside, *step.outer_tensors),
        (*inputs, *options, *(_language(sizes) if confined else ())),
        (
            *outputs,
            Value(TOKENS, INT64, ("time", "batch")),
            *([Value(NEXT_NODE, INT64, ("batch",))] if confined else []),
        ),
    )


def sums_graph(sizes: Sizes) -> Graph:
    """What the writer draws by: of each row, the sums of the probabilities of its first tokens.

    Its inputs are `LOGITS` and `INVERSE_TEMPERATURE` as `writer_graph` has them, its output is
    `SUMS` float64 ``[batch, vocab_size]``.
    """
    logits = ("batch", sizes.vocab_size)
    return Graph(
        "chargen_sums",
        "What a GRU language model draws its next token by.",
        tuple(_sum_nodes(LOGITS, SUMS)),
        tuple(_draw_tensors(sizes, greedy=False)[:1]),
        (Value(LOGITS, FLOAT, logits), Value(INVERSE_TEMPERATURE, FLOAT, ("batch", 1))),
        (Value(SUMS, DOUBLE, logits),),
    )


def _language(sizes: Sizes) -> tuple[Value, ...]:
    return (
        Value(NODE, INT64, ("batch",)),
        Value(MASKS, FLOAT, ("nodes", sizes.vocab_size)),
        Value(CHILDREN, INT64, ("nodes", sizes.vocab_size, 1)),
    )


# from ``current`` and ``old_node`` to ``new_node``; no other way has fewer operators
_WALK = (
    Node("walked", "Concat", ("old_node", "current"), ("walked",), {"axis": 0}),
    named_node("GatherND", (CHILDREN, "walked"), "new_node"),
)


def _draw_tensors(sizes: Sizes, greedy: bool) -> list[Tensor]:
    if greedy:
        return []
    last = Tensor("last_token", INT64, (1,), (sizes.vocab_size - 1,))
    return [Tensor("token_axis", INT64, (), (1,)), last]


def _draw_nodes(greedy: bool, confined: bool = False) -> list[Node]:
    """From ``last_logits`` to ``current``."""
    if confined:
        rest = _draw_nodes(greedy)
        return [
            named_node("Gather", (MASKS, "old_node"), "mask"),
            named_node("Add", ("last_logits", "mask"), "open_logits"),
            replace(rest[0], inputs=("open_logits", *rest[0].inputs[1:])),
            *rest[1:],
        ]
    if greedy:
        return [named_node("ArgMax", ("last_logits",), "current", axis=1, keepdims=0)]
    return [
        *_sum_nodes("last_logits", SUMS),
        named_node("Gather", (SUMS, "last_token"), "total", axis=1),
        named_node("Mul", ("uniform", "total"), "sought"),
        # from the first sum that reaches what is sought on, all are equal to it: the maximum
        named_node("Min", (SUMS, "sought"), "capped"),
        named_node("ArgMax", ("capped",), "current", axis=1, keepdims=0),
    ]


def _sum_nodes(logits: str, sums: str) -> list[Node]:
    return [
        named_node("Mul", (logits, INVERSE_TEMPERATURE), "scaled"),
        named_node("Softmax", ("scaled",), "probabilities", axis=1),
        named_node("Cast", ("probabilities",), "terms", to=DOUBLE),
        named_node("CumSum", ("terms", "token_axis"), sums),
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
    """The step written out, with a state for each layer."""
    fed, made = (
        [f"layer_{layer}_{when}" for layer in range(sizes.num_layers)]
        for when in ("first", "final")
    )
    scores = (f"layer_{sizes.num_layers - 1}_state", "output_weight", "output_bias")
    return _Step(
        nodes=[
            *first_input(sizes, "current"),
            *cell_nodes(sizes.num_layers),
            named_node("Gemm", scores, "step_logits"),
        ],
        tensors=[*first_tensors(sizes), *cell_tensors(sizes), *output_tensors(sizes)],
        old=states(sizes, "old"),
        new=states(sizes, "state"),
        fed=fed,
        made=made,
        before=split_hidden(fed),
        after=join_hidden(made),
        outer_tensors=hidden_shapes(sizes),
    )

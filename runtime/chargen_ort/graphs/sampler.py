"""The graph of a sampler: one run is a text, from code points to code points.

It stands in a file of its own, with the very weights of the model that it is made of. The prompt is
read by that model's step; what is written, and the draws, are those of `chargen_ort.graphs.writer`,
whose weights are made of the file's when it is loaded. So its texts are those of chargen-ort.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chargen_ort.graphs.cells import (
    cell_nodes,
    first_input,
    has_table,
    hidden_shapes,
    join_hidden,
    split_hidden,
    states,
)
from chargen_ort.graphs.draws import (
    MIN_P,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    draw_nodes,
    option_nodes,
)
from chargen_ort.graphs.gru import cast_nodes, gru_nodes, gru_tensors
from chargen_ort.graphs.int8 import (
    body_nodes,
    body_tensors,
    projection_nodes,
    step_nodes,
    table_nodes,
    table_tensors,
)
from chargen_ort.graphs.philox import DRAWN, LENGTH, SEED, philox_nodes, philox_tensors
from chargen_ort.graphs.spec import (
    BOOL,
    DOUBLE,
    FLOAT,
    HIDDEN,
    INT64,
    LOGITS,
    NEXT_HIDDEN,
    TOKEN,
    Attribute,
    Graph,
    Node,
    Sizes,
    Tensor,
    Value,
    named_node,
)

PROMPT, UNIFORMS, CODE_POINTS = "prompt", "uniforms", "code_points"
END_CODE_POINT = -1  # stands in the place of the end of a text
_OPSET = 18  # the first with the operators that Philox needs


@dataclass(frozen=True)
class Alphabet:
    """What the tokens stand for.

    Attributes:
        code_points: of the tokens but the end token, in their order.
        end: whether there is one token more, which ends a text.
        separator: the token that stands before a text: the end token, if there is one.
        unknown: the token that is read in the place of unknown code points; None refuses them.
    """

    code_points: tuple[int, ...]
    end: bool
    separator: int
    unknown: int | None


def sampler_graph(sizes: Sizes, precision: str, alphabet: Alphabet, seeded: bool) -> Graph:
    """The graph that writes a text a row; its inputs and outputs stand in ARTIFACT.md.

    Args:
        sizes: of the model.
        precision: how the file keeps its weights.
        alphabet: of the model.
        seeded: whether it draws by a seed, or else by the numbers that it is given.
    """
    quantised = precision == "int8"
    hidden = ("batch", sizes.num_layers, sizes.hidden_size)
    start = Value(PROMPT, INT64, ("batch", "time")), Value(HIDDEN, FLOAT, hidden)
    draws = [Value(name, INT64, (1,)) for name in (SEED, DRAWN, LENGTH)]
    if not seeded:
        draws = [Value(UNIFORMS, DOUBLE, ("batch", "length"))]
    options = [Value(name, DOUBLE, (1,)) for name in (TEMPERATURE, TOP_P, MIN_P)]
    options.insert(1, Value(TOP_K, INT64, (1,)))
    weights = [*table_tensors(sizes), *body_tensors(sizes)]
    if not quantised:
        weights = [*gru_tensors(sizes, precision), *_made_tensors(sizes), *hidden_shapes(sizes)]
    nodes = [
        *(table_nodes() if quantised else _made_nodes(sizes, precision)),
        *_token_nodes(alphabet),
        *_read_nodes(sizes, quantised),
        *option_nodes(),
        *_uniform_nodes(seeded),
        *_write_nodes(sizes, quantised, alphabet),
    ]
    return Graph(
        "chargen_sampler",
        "A GRU language model that writes texts: one run is a text.",
        tuple(_of_opset_18(nodes)),
        (*weights, *_tensors(sizes, alphabet), *(philox_tensors() if seeded else ())),
        (*start, *draws, *options),
        (Value(CODE_POINTS, INT64, ("batch", "written")), Value(NEXT_HIDDEN, FLOAT, hidden)),
        _OPSET,
    )


def _tensors(sizes: Sizes, alphabet: Alphabet) -> list[Tensor]:
    """The literals of the nodes below."""
    count = len(alphabet.code_points)
    unknown = sizes.vocab_size if alphabet.unknown is None else alphabet.unknown
    numbers = {
        "token_axis": 1,
        "letter_axis": 2,
        "first": 0,
        "last": -1,
        "none": 0,
        "unknown_token": unknown,
        "all_tokens": sizes.vocab_size,
        "last_rank": sizes.vocab_size - 1,
    }
    if alphabet.end:
        numbers["end_code_point"] = END_CODE_POINT
        numbers["end_token"] = count
    return [
        Tensor("characters", INT64, (count,), alphabet.code_points),
        Tensor("separator", INT64, (1, 1), (alphabet.separator,)),
        *(Tensor(name, INT64, (1,), (value,)) for name, value in numbers.items()),
        *(
            Tensor(name, DOUBLE, (1,), (value,))
            for name, value in (("zero", 0.0), ("one", 1.0), ("no_limit", float("inf")))
        ),
        Tensor("zero_state", FLOAT, (1,), (0,)),
        Tensor("sum_axis", INT64, (), (1,)),
        Tensor("always", BOOL, (), (True,)),
        *([Tensor("not_ended", BOOL, (1,), (False,))] if alphabet.end else []),
    ]


def _token_nodes(alphabet: Alphabet) -> list[Node]:
    """From `PROMPT` to `TOKEN` ``[batch, time]``, with what stands before a text."""
    bare = [named_node("Cast", ("beginning",), "head_size_scalar", to=INT64)]
    if not alphabet.end:  # running text needs a separator where nothing else is read
        bare = [
            named_node("Equal", ("prompt_size", "none"), "is_empty"),
            named_node("And", ("beginning", "is_empty"), "is_bare"),
            named_node("Cast", ("is_bare",), "head_size_scalar", to=INT64),
        ]
    return [
        named_node("Shape", (PROMPT,), "prompt_shape"),
        named_node("Gather", ("prompt_shape", "first"), "batch_size", axis=0),
        named_node("Gather", ("prompt_shape", "last"), "prompt_size", axis=0),
        named_node("Unsqueeze", (PROMPT, "letter_axis"), "letters"),
        named_node("Equal", ("letters", "characters"), "matches"),
        named_node("Cast", ("matches",), "match_numbers", to=FLOAT),
        named_node("ArgMax", ("match_numbers",), "candidates", axis=2, keepdims=0),
        named_node("Gather", ("characters", "candidates"), "candidate_letters"),
        named_node("Equal", ("candidate_letters", PROMPT), "is_known"),
        named_node("Where", ("is_known", "candidates", "unknown_token"), "prompt_tokens"),
        # a state of zeros is the one before a text
        named_node("Abs", (HIDDEN,), "magnitudes"),
        named_node("ReduceMax", ("magnitudes",), "largest", keepdims=0),
        named_node("Equal", ("largest", "zero_state"), "beginning"),
        *bare,
        named_node("Reshape", ("head_size_scalar", "token_axis"), "head_size"),
        named_node("Concat", ("batch_size", "head_size"), "head_shape", axis=0),
        named_node("Expand", ("separator", "head_shape"), "head"),
        named_node("Concat", ("head", "prompt_tokens"), TOKEN, axis=1),
        named_node("Add", ("head_size", "prompt_size"), "token_count"),
        named_node("Greater", ("token_count", "none"), "has_tokens"),
    ]


def _read_nodes(sizes: Sizes, quantised: bool) -> list[Node]:
    """From `TOKEN` and `HIDDEN` to ``read_hidden`` and ``read_logits`` ``[batch, vocab_size]``.

    Where there is no token, the logits are made of the state alone.
    """
    hidden = Value("after_hidden", FLOAT, ("batch", sizes.num_layers, sizes.hidden_size))
    logits = Value("after_logits", FLOAT, ("batch", sizes.vocab_size))
    read_names = {NEXT_HIDDEN: "after_hidden", LOGITS: "logits_of_prompt"}
    read = (
        *_renamed(step_nodes(sizes, ()) if quantised else gru_nodes(sizes), read_names),
        named_node("Gather", ("logits_of_prompt", "last"), "last_logits_of_prompt", axis=1),
        named_node("Squeeze", ("last_logits_of_prompt", "token_axis"), "after_logits"),
    )
    kept_nodes = [named_node("Identity", (HIDDEN,), "kept_hidden")]
    kept_nodes.append(named_node("Gather", (HIDDEN, "last"), "top_state", axis=1))
    if quantised:
        levels = ("activation_scale", "activation_zero")
        kept_nodes.append(named_node("QuantizeLinear", ("top_state", *levels), "top_quantised"))
        kept_nodes += _renamed(projection_nodes("top_quantised"), {"step_logits": "kept_logits"})
    else:
        scores = ("top_features", "output_weight", "output_bias")
        kept_nodes.append(named_node("Squeeze", ("top_state", "token_axis"), "top_features"))
        kept_nodes.append(named_node("Gemm", scores, "kept_logits"))
    kept_values = hidden._replace(name="kept_hidden"), logits._replace(name="kept_logits")
    branches: dict[str, Attribute] = {
        "then_branch": Graph("read", "Reads the prompt.", read, (), (), (hidden, logits)),
        "else_branch": Graph("keep", "Goes on.", tuple(kept_nodes), (), (), kept_values),
    }
    return [Node("read", "If", ("has_tokens",), ("read_hidden", "read_logits"), branches)]


def _uniform_nodes(seeded: bool) -> list[Node]:
    """The draws of each step, ``uniforms_by_time`` ``[length, batch, 1]``, and their number."""
    if seeded:
        made = [
            named_node("Squeeze", ("batch_size",), "batch_scalar"),
            named_node("Squeeze", ("first",), "first_row"),
            named_node("Squeeze", ("token_axis",), "next_row"),
            named_node("Range", ("first_row", "batch_scalar", "next_row"), "rows"),
            *philox_nodes("rows", "token_axis", "first", "always"),
            named_node("Identity", (LENGTH,), "steps"),
        ]
    else:
        made = [
            named_node("Identity", (UNIFORMS,), "drawn_uniforms"),
            named_node("Shape", (UNIFORMS,), "uniforms_shape"),
            named_node("Gather", ("uniforms_shape", "last"), "steps", axis=0),
        ]
    return [
        *made,
        named_node("Transpose", ("drawn_uniforms",), "uniforms_transposed", perm=(1, 0)),
        named_node("Unsqueeze", ("uniforms_transposed", "letter_axis"), "uniforms_by_time"),
    ]


def _write_nodes(sizes: Sizes, quantised: bool, alphabet: Alphabet) -> list[Node]:
    """From the state after the prompt to `CODE_POINTS` and `NEXT_HIDDEN`."""
    layers = range(sizes.num_layers)
    if quantised:
        state = ("batch", sizes.num_layers, sizes.hidden_size)
        old, new = [Value("state", FLOAT, state)], [Value("next_state", FLOAT, state)]
        before: list[Node] = []
        fed, made, after = ["read_hidden"], ["last_hidden"], []
        step = [
            named_node("Gather", ("table", "current"), "layer_0_input"),
            *body_nodes(sizes.num_layers),
        ]
    else:
        old, new = states(sizes, "old"), states(sizes, "state")
        fed, made = ([f"layer_{at}_{when}" for at in layers] for when in ("first", "final"))
        before = _renamed(split_hidden(fed), {HIDDEN: "read_hidden"})
        after = _renamed(join_hidden(made), {NEXT_HIDDEN: "last_hidden"})
        scores = (f"layer_{sizes.num_layers - 1}_state", "output_weight", "output_bias")
        step = [
            *first_input(sizes, "current"),
            *cell_nodes(sizes.num_layers),
            named_node("Gemm", scores, "step_logits"),
        ]
    logits = ("batch", sizes.vocab_size)
    inputs = [Value("step", INT64, ()), Value("going", BOOL, ()), *old]
    inputs.append(Value("last_logits", FLOAT, logits))
    outputs = [Value("goes_on", BOOL, ()), *new, Value("step_logits", FLOAT, logits)]
    fed, made = [*fed, "read_logits"], [*made, "final_logits"]
    if alphabet.end:
        inputs.append(Value("ended", BOOL, ("batch",)))
        outputs.append(Value("now_ended", BOOL, ("batch",)))
        fed, made = [*fed, "begins_ended"], [*made, "is_ended"]
        before = [*before, named_node("Expand", ("not_ended", "batch_size"), "begins_ended")]
    outputs.append(Value("current", INT64, ("batch",)))
    body = Graph(
        "one_character",
        "Draws a token in every row and reads it.",
        (*draw_nodes(alphabet.end, sizes), *step),
        (),
        tuple(inputs),
        tuple(outputs),
    )
    loop = Node(
        "write", "Loop", ("steps", "always", *fed), (*made, "tokens_by_time"), {"body": body}
    )
    return [*before, loop, *after, *_output_nodes(alphabet.end)]


def _output_nodes(end: bool) -> list[Node]:
    """The code points, and zeros for the state of a text that has ended."""
    nodes = [named_node("Transpose", ("tokens_by_time",), "tokens", perm=(1, 0))]
    if not end:
        return [
            *nodes,
            named_node("Gather", ("characters", "tokens"), CODE_POINTS),
            named_node("Identity", ("last_hidden",), NEXT_HIDDEN),
        ]
    return [
        *nodes,
        named_node("Concat", ("characters", "end_code_point"), "all_code_points", axis=0),
        named_node("Gather", ("all_code_points", "tokens"), CODE_POINTS),
        named_node("Unsqueeze", ("is_ended", "token_axis"), "ended_rows"),
        named_node("Unsqueeze", ("ended_rows", "letter_axis"), "ended_states"),
        named_node("Where", ("ended_states", "zero_state", "last_hidden"), NEXT_HIDDEN),
    ]


def _made_tensors(sizes: Sizes) -> list[Tensor]:
    """What `_made_nodes` needs."""
    hidden = sizes.hidden_size
    return [
        Tensor("one_direction", INT64, (1,), (0,)),
        Tensor("halves", INT64, (2,), (3 * hidden, 3 * hidden)),
        Tensor("gate_sizes", INT64, (2,), (2 * hidden, hidden)),
    ]


def _made_nodes(sizes: Sizes, precision: str) -> list[Node]:
    """The weights of `chargen_ort.graphs.cells`, made of the file's as `cell_weights` does."""
    nodes = cast_nodes(gru_tensors(sizes, precision))

    def add(op: str, inputs: tuple[str, ...], *outputs: str, **attributes: Attribute) -> str:
        nodes.append(named_node(op, inputs, *outputs, **attributes))
        return outputs[0]

    for layer in range(sizes.num_layers):
        at = f"layer_{layer}"
        gates, new = f"{at}_gates", f"{at}_new"
        for letter in "WRB":
            add("Squeeze", (f"{at}_{letter}", "one_direction"), f"{at}_{letter}_alone")
        add("Transpose", (f"{at}_W_alone",), f"{at}_products", perm=(1, 0))
        add("Transpose", (f"{at}_R_alone",), f"{at}_recurrent", perm=(1, 0))
        add("Split", (f"{at}_recurrent", "gate_sizes"), f"{gates}_R", f"{new}_R", axis=1)
        add("Split", (f"{at}_B_alone", "halves"), f"{at}_into", f"{at}_back", axis=0)
        add("Split", (f"{at}_into", "gate_sizes"), f"{gates}_into", f"{new}_bias", axis=0)
        add("Split", (f"{at}_back", "gate_sizes"), f"{gates}_back", f"{at}_kept_bias", axis=0)
        add("Add", (f"{gates}_into", f"{gates}_back"), f"{gates}_bias")
        products = f"{at}_products"
        if layer == 0 and has_table(sizes):
            add("Concat", (f"{gates}_bias", f"{new}_bias"), "table_bias", axis=0)
            exact = [
                add("Cast", (name,), f"{name}_exact", to=DOUBLE)
                for name in ("embedding", products, "table_bias")
            ]
            add("MatMul", (exact[0], exact[1]), "table_products")
            add("Add", ("table_products", exact[2]), "table_exact")
            products = add("Cast", ("table_exact",), "table", to=FLOAT)
        add("Split", (products, "gate_sizes"), f"{gates}_W", f"{new}_W", axis=1)
    return nodes


def _renamed(nodes: Sequence[Node], names: Mapping[str, str]) -> list[Node]:
    """The nodes with other names for some values."""
    return [
        replace(
            node,
            name=names.get(node.name, node.name),
            inputs=tuple(names.get(name, name) for name in node.inputs),
            outputs=tuple(names.get(name, name) for name in node.outputs),
        )
        for node in nodes
    ]


def _of_opset_18(nodes: Sequence[Node]) -> list[Node]:
    """The nodes as opset 18 has them: a Split without sizes says into how many parts."""
    made = []
    for node in nodes:
        attributes = {
            name: replace(value, nodes=tuple(_of_opset_18(value.nodes)))
            if isinstance(value, Graph)
            else value
            for name, value in node.attributes.items()
        }
        if node.op == "Split" and len(node.inputs) == 1:
            attributes["num_outputs"] = len(node.outputs)
        made.append(replace(node, attributes=attributes))
    return made

"""The draw of a sampler as ONNX operators: as `chargen_ort.sampling` and the writer make it.

Where the options are temperature alone, the weights are those of `chargen_ort.graphs.writer`, in
float32; otherwise they are made in float64, in the order and with the ties of ARTIFACT.md.
"""

from chargen_ort.graphs.spec import (
    BOOL,
    DOUBLE,
    FLOAT,
    Attribute,
    Graph,
    Node,
    Sizes,
    Value,
    named_node,
)

TEMPERATURE, TOP_K, TOP_P, MIN_P = "temperature", "top_k", "top_p", "min_p"


def option_nodes() -> list[Node]:
    """What the options come to, once for all draws."""
    return [
        named_node("Equal", (TEMPERATURE, "zero"), "is_greedy"),
        named_node("Where", ("is_greedy", "one", TEMPERATURE), "divisor"),
        named_node("Div", ("one", "divisor"), "inverse"),
        named_node("Cast", ("inverse",), "inverse_temperature", to=FLOAT),
        named_node("Greater", (TOP_K, "none"), "limits_rank"),
        named_node("Less", (TOP_K, "all_tokens"), "is_rank"),
        named_node("And", ("limits_rank", "is_rank"), "has_rank"),
        named_node("Sub", (TOP_K, "token_axis"), "rank"),
        named_node("Where", ("has_rank", "rank", "last_rank"), "least_rank"),
        named_node("Less", (TOP_P, "one"), "has_mass"),
        named_node("Where", ("has_mass", TOP_P, "no_limit"), "mass_share"),
        named_node("Greater", (MIN_P, "zero"), "has_least"),
        named_node("Or", ("has_rank", "has_mass"), "has_rank_or_mass"),
        named_node("Or", ("has_rank_or_mass", "has_least"), "is_filtered"),
    ]


def draw_nodes(end: bool, sizes: Sizes) -> list[Node]:
    """From ``last_logits`` to ``current``, and whether to go on."""
    weights = ("batch", sizes.vocab_size)
    plain = (
        named_node("Mul", ("last_logits", "inverse_temperature"), "scaled"),
        named_node("Softmax", ("scaled",), "probabilities", axis=1),
        named_node("Cast", ("probabilities",), "plain_weights", to=DOUBLE),
    )
    branches: dict[str, Attribute] = {
        "then_branch": Graph(
            "filter", "top-k, top-p, min-p.", tuple(_filter_nodes()), (), (),
            (Value("kept_weights", DOUBLE, weights),),
        ),
        "else_branch": Graph(
            "plain", "The temperature alone.", plain, (), (),
            (Value("plain_weights", DOUBLE, weights),),
        ),
    }  # fmt: skip
    chosen = "chosen" if end else "current"
    nodes = [
        named_node("Gather", ("uniforms_by_time", "step"), "uniform", axis=0),
        Node("weigh", "If", ("is_filtered",), ("weights",), branches),
        named_node("CumSum", ("weights", "sum_axis"), "sums"),
        named_node("Gather", ("sums", "last"), "total", axis=1),
        named_node("Mul", ("uniform", "total"), "sought"),
        named_node("Greater", ("sums", "sought"), "exceeds"),
        named_node("Cast", ("exceeds",), "exceeds_numbers", to=FLOAT),
        named_node("ArgMax", ("exceeds_numbers",), "drawn_token", axis=1, keepdims=0),
        named_node("ArgMax", ("last_logits",), "likeliest", axis=1, keepdims=0),
        named_node("Where", ("is_greedy", "likeliest", "drawn_token"), chosen),
    ]
    if not end:
        return [*nodes, named_node("Identity", ("going",), "goes_on")]
    return [
        *nodes,
        named_node("Where", ("ended", "end_token", chosen), "current"),
        named_node("Equal", ("current", "end_token"), "now_ended"),
        named_node("Cast", ("now_ended",), "ended_numbers", to=FLOAT),
        named_node("ReduceMin", ("ended_numbers",), "all_ended", keepdims=0),
        named_node("Cast", ("all_ended",), "is_over", to=BOOL),
        named_node("Not", ("is_over",), "goes_on"),
    ]


def _filter_nodes() -> list[Node]:
    """From ``last_logits`` to ``kept_weights``, in float64; ranks are by weight, ties by token."""
    return [
        named_node("Cast", ("last_logits",), "exact_logits", to=DOUBLE),
        named_node("Div", ("exact_logits", "divisor"), "divided"),
        named_node("TopK", ("divided", "all_tokens"), "ranked", "order", axis=1),
        named_node("Gather", ("ranked", "first"), "best", axis=1),
        named_node("Gather", ("ranked", "least_rank"), "least", axis=1),
        named_node("Sub", ("ranked", "best"), "shifted"),
        named_node("Exp", ("shifted",), "all_weights"),
        named_node("Less", ("ranked", "least"), "is_below_rank"),
        named_node("Where", ("is_below_rank", "zero", "all_weights"), "ranked_weights"),
        named_node("CumSum", ("ranked_weights", "sum_axis"), "masses"),
        named_node("CumSum", ("ranked_weights", "sum_axis"), "masses_above", exclusive=1),
        named_node("Gather", ("masses", "last"), "mass", axis=1),
        named_node("Mul", ("mass", "mass_share"), "mass_limit"),
        named_node("Less", ("masses_above", "mass_limit"), "is_in_mass"),
        named_node("GreaterOrEqual", ("ranked_weights", MIN_P), "is_likely"),
        named_node("And", ("is_in_mass", "is_likely"), "is_kept"),
        named_node("Where", ("is_kept", "ranked_weights", "zero"), "ranked_kept"),
        named_node("ScatterElements", ("divided", "order", "ranked_kept"), "kept_weights", axis=1),
    ]

"""Philox-4x64-10 as ONNX operators: the uniforms of a seed, as `sampling.uniform_draws` has them.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11. The high half of a
product of 64-bit numbers is put together from products of 32-bit halves.
"""

from chargen_ort.graphs.spec import (
    BOOL,
    DOUBLE,
    INT64,
    UINT64,
    Graph,
    Node,
    Tensor,
    Value,
    named_node,
)

SEED, DRAWN, LENGTH = "seed", "drawn", "length"

_LEFT, _RIGHT = 0xD2E7470EE14C6C93, 0xCA5A826395121157  # the multipliers
_KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_LOW_HALF = (1 << 32) - 1
_ROUNDS = 10
_STATE = ("word_0", "word_1", "word_2", "word_3", "key_0", "key_1")


def philox_tensors() -> list[Tensor]:
    """What `philox_nodes` needs."""
    words = {
        "left": _LEFT,
        "left_low": _LEFT & _LOW_HALF,
        "left_high": _LEFT >> 32,
        "right": _RIGHT,
        "right_low": _RIGHT & _LOW_HALF,
        "right_high": _RIGHT >> 32,
        "key_step_0": _KEY_STEPS[0],
        "key_step_1": _KEY_STEPS[1],
        "low_half": _LOW_HALF,
        "half_width": 32,
        "spare_bits": 11,
    }
    wholes = {"block_size": 4, "block_rest": 3, "rounds": _ROUNDS, "block_step": 1}
    return [
        *(Tensor(name, UINT64, (), (value,)) for name, value in words.items()),
        *(Tensor(name, INT64, (1,), (value,)) for name, value in wholes.items()),
        Tensor("first_block", INT64, (), (1,)),
        Tensor("each_word", INT64, (1,), (2,)),
        Tensor("each_row", INT64, (2,), (0, -1)),
        Tensor("unit", DOUBLE, (), (2.0**-53,)),
    ]


def philox_nodes(rows: str, axis_1: str, axis_0: str, always: str) -> list[Node]:
    """From `SEED`, `DRAWN` and `LENGTH`, ``[1]`` each, to ``drawn_uniforms`` ``[batch, length]``.

    The seed is an int64 with the bits of the unsigned one: not all languages have tensors of those.

    Args:
        rows: the row numbers, int64 ``[batch]``.
        axis_1, axis_0: the numbers 1 and 0, int64 ``[1]``.
        always: a bool that is true.
    """
    body = Graph(
        "one_round",
        "One round of Philox.",
        tuple(_round_nodes()),
        (),
        (
            Value("round", INT64, ()),
            Value("more", BOOL, ()),
            *(Value(name, UINT64, ("batch", "blocks")) for name in _STATE),
        ),
        (
            Value("more_rounds", BOOL, ()),
            *(Value(f"{name}_next", UINT64, ("batch", "blocks")) for name in _STATE),
        ),
    )
    begun = ("counters", "zero_words", "zero_words", "zero_words", "seeds", "row_keys")
    made = tuple(f"{name}_made" for name in _STATE)
    return [
        # the blocks that hold the draws: the first has the counter drawn / 4 + 1
        named_node("Div", (DRAWN, "block_size"), "blocks_before"),
        named_node("Mul", ("blocks_before", "block_size"), "draws_before"),
        named_node("Sub", (DRAWN, "draws_before"), "skipped"),
        named_node("Add", ("skipped", LENGTH), "end"),
        named_node("Add", ("end", "block_rest"), "end_rounded"),
        named_node("Div", ("end_rounded", "block_size"), "block_count"),
        named_node("Add", ("blocks_before", "block_step"), "block_begin"),
        named_node("Add", ("block_begin", "block_count"), "block_end"),
        named_node("Squeeze", ("block_begin",), "block_begin_scalar"),
        named_node("Squeeze", ("block_end",), "block_end_scalar"),
        named_node("Range", ("block_begin_scalar", "block_end_scalar", "first_block"), "blocks"),
        named_node("Cast", ("blocks",), "block_words", to=UINT64),
        named_node("Unsqueeze", ("block_words", axis_0), "block_row"),
        named_node("Cast", (rows,), "row_words", to=UINT64),
        named_node("Unsqueeze", ("row_words", axis_1), "row_column"),
        named_node("Sub", ("row_column", "row_column"), "zero_column"),
        named_node("Sub", ("block_row", "block_row"), "zero_row"),
        named_node("Add", ("zero_column", "zero_row"), "zero_words"),
        named_node("Add", ("zero_words", "block_row"), "counters"),
        named_node("Cast", (SEED,), "seed_word", to=UINT64),
        named_node("Add", ("zero_words", "seed_word"), "seeds"),
        named_node("Add", ("zero_words", "row_column"), "row_keys"),
        Node("philox", "Loop", ("rounds", always, *begun), made, {"body": body}),
        *(
            named_node("Unsqueeze", (f"word_{index}_made", "each_word"), f"word_{index}_column")
            for index in range(4)
        ),
        named_node("Concat", tuple(f"word_{i}_column" for i in range(4)), "by_block", axis=2),
        named_node("Reshape", ("by_block", "each_row"), "words"),
        named_node("Slice", ("words", "skipped", "end", axis_1), "drawn_words"),
        named_node("BitShift", ("drawn_words", "spare_bits"), "fraction_words", direction="RIGHT"),
        named_node("Cast", ("fraction_words",), "fractions", to=DOUBLE),
        named_node("Mul", ("fractions", "unit"), "drawn_uniforms"),
    ]


def _round_nodes() -> list[Node]:
    """From `_STATE` to the same after a round."""
    return [
        *_high_nodes("word_0", "left"),
        *_high_nodes("word_2", "right"),
        named_node("BitwiseXor", ("right_high_word", "word_1"), "mixed_0"),
        named_node("BitwiseXor", ("mixed_0", "key_0"), "word_0_next"),
        named_node("Mul", ("word_2", "right"), "word_1_next"),
        named_node("BitwiseXor", ("left_high_word", "word_3"), "mixed_2"),
        named_node("BitwiseXor", ("mixed_2", "key_1"), "word_2_next"),
        named_node("Mul", ("word_0", "left"), "word_3_next"),
        named_node("Add", ("key_0", "key_step_0"), "key_0_next"),
        named_node("Add", ("key_1", "key_step_1"), "key_1_next"),
        named_node("Identity", ("more",), "more_rounds"),
    ]


def _high_nodes(word: str, factor: str) -> list[Node]:
    """The high 64 bits of a word times ``left`` or ``right``, as ``left_high_word``."""
    nodes: list[Node] = []

    def add(op: str, one: str, other: str, name: str) -> str:
        attributes = {"direction": "RIGHT"} if op == "BitShift" else {}
        nodes.append(named_node(op, (one, other), f"{factor}_{name}", **attributes))
        return f"{factor}_{name}"

    above = add("BitShift", word, "half_width", "word_above")
    below = add("BitwiseAnd", word, "low_half", "word_below")
    lowest = add("Mul", below, f"{factor}_low", "lowest")
    crossed = [
        add("Mul", below, f"{factor}_high", "cross_0"),
        add("Mul", above, f"{factor}_low", "cross_1"),
    ]
    carry = add("BitShift", lowest, "half_width", "carry")
    highest = add("Mul", above, f"{factor}_high", "highest")
    for index, cross in enumerate(crossed):
        low = add("BitwiseAnd", cross, "low_half", f"cross_{index}_low")
        high = add("BitShift", cross, "half_width", f"cross_{index}_high")
        carry = add("Add", carry, low, f"carry_{index}")
        highest = add("Add", highest, high, f"highest_{index}")
    carried = add("BitShift", carry, "half_width", "carried")
    add("Add", highest, carried, "high_word")
    return nodes

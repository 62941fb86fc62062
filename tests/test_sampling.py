"""Options, processors and draws: worked examples, an independent account, and properties."""

import dataclasses
import json
import math
import typing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chargen_ort import OptionError, SamplingOptions
from chargen_ort.options import (
    CONTROL_TABLE,
    CONTROLS,
    MAX_PATTERN,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    TABLE,
    SamplingOverrides,
)
from chargen_ort.sampling import BLOCK, Sampler, uniform_draws
from tests.tools.rules import drawn_by_hand, kept_by_hand

ROOT = Path(__file__).parent.parent


def survivors(probabilities, **options):
    """The tokens that can be drawn, found by drawing often."""
    logits = np.log(np.array([probabilities], dtype=np.float64)).astype(np.float32)
    sampler = Sampler(SamplingOptions(seed=1, **options), len(probabilities))
    return {int(sampler.sample(logits)[0]) for _ in range(2_000)}


def draw_one(sampler, logits):
    """What a text state does for a draw."""
    token = sampler.choose_one(logits)
    sampler.column += 1
    sampler.see(0, np.array([token]))
    return token


def by_hand(logits, seen, options, u):
    weights, _ = kept_by_hand(logits, seen, options)
    return drawn_by_hand(weights, u)[0]


# Worked examples


def test_greedy_takes_the_lowest_index_among_equals():
    sampler = Sampler(SamplingOptions(temperature=0), 4)
    assert sampler.sample(np.array([[1, 3, 3, 2]], dtype=np.float32)).tolist() == [1]


def test_top_k_keeps_ties_with_the_kth():
    assert survivors([0.4, 0.2, 0.2, 0.2], top_k=2) == {0, 1, 2, 3}
    assert survivors([0.4, 0.3, 0.2, 0.1], top_k=2) == {0, 1}
    assert survivors([0.4, 0.3, 0.2, 0.1], top_k=9) == {0, 1, 2, 3}


def test_top_p_keeps_the_token_that_crosses():
    assert survivors([0.5, 0.3, 0.15, 0.05], top_p=0.6) == {0, 1}
    assert survivors([0.5, 0.3, 0.15, 0.05], top_p=0.9) == {0, 1, 2}
    assert survivors([0.5, 0.3, 0.15, 0.05], top_p=1e-9) == {0}


def test_top_p_ranks_ties_by_index():
    assert survivors([0.25, 0.25, 0.25, 0.25], top_p=0.45) == {0, 1}


def test_top_p_is_of_what_top_k_left():
    # of 0.4, 0.3, 0.2 the mass ranked above the third is 0.7 / 0.9 = 0.78
    assert survivors([0.4, 0.3, 0.2, 0.1], top_k=3, top_p=0.75) == {0, 1}
    assert survivors([0.4, 0.3, 0.2, 0.1], top_p=0.75) == {0, 1, 2}


def test_min_p_is_relative_to_the_likeliest():
    assert survivors([0.6, 0.3, 0.07, 0.03], min_p=0.1) == {0, 1, 2}
    assert survivors([0.6, 0.3, 0.07, 0.03], min_p=1) == {0}


def test_temperature_comes_before_the_filters():
    # at temperature 2 the probabilities 0.81, 0.09, 0.09, 0.01 become 0.56, 0.19, 0.19, 0.06
    assert survivors([0.81, 0.09, 0.09, 0.01], top_p=0.7) == {0}
    assert survivors([0.81, 0.09, 0.09, 0.01], top_p=0.7, temperature=2) == {0, 1}


def test_the_penalty_divides_positive_and_multiplies_negative_logits_once():
    sampler = Sampler(SamplingOptions(temperature=0, repetition_penalty=2), 3)
    sampler.see(0, np.array([0, 0]))
    assert sampler.sample(np.array([[3, 1.4, -9]], dtype=np.float32)).tolist() == [0]  # 1.5 > 1.4
    sampler = Sampler(SamplingOptions(temperature=0, repetition_penalty=2), 3)
    sampler.see(0, np.array([0]))
    assert sampler.sample(np.array([[-1, -1.9, -9]], dtype=np.float32)).tolist() == [1]  # -2 < -1.9
    # and what was drawn counts as seen: now both are penalised
    assert sampler.sample(np.array([[-1, -1.9, -3]], dtype=np.float32)).tolist() == [0]


def test_the_first_index_whose_cumulative_sum_exceeds_the_draw_is_taken():
    u = uniform_draws(3, 0, 0, 50)
    sampler = Sampler(SamplingOptions(seed=3), 2)
    even = np.zeros((1, 2), dtype=np.float32)
    drawn = [int(sampler.sample(even)[0]) for _ in range(50)]
    assert drawn == [int(x >= 0.5) for x in u]


# Against the independent account

finite = st.floats(-20, 20, width=32)
options = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.integers(0, 8),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([0.8, 1.0, 1.3]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=300, deadline=None)
@given(hnp.arrays(np.float32, (5, 6), elements=finite), options, st.sets(st.integers(0, 5)))
def test_a_draw_is_what_the_rules_say(logits, chosen, seen):
    sampler = Sampler(chosen, 6, (11,))
    sampler.see(0, np.array(sorted(seen), dtype=np.int64))
    seen = set(seen)
    u = uniform_draws(chosen.seed, 11, 0, 5)
    for t in range(5):
        expected = by_hand(logits[t], seen, chosen, u[t])
        assert int(sampler.sample(logits[t : t + 1])[0]) == expected
        seen.add(expected)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, (3, 4, 9), elements=finite), options)
def test_a_row_does_not_depend_on_its_batch(logits, chosen):
    together = Sampler(chosen, 9, (4, 7, 2, 9))
    alone = [Sampler(chosen, 9, (row,)) for row in (4, 7, 2, 9)]
    for step in logits:
        tokens = together.sample(step)
        assert tokens.tolist() == [draw_one(alone[i], step[i]) for i in range(4)]


@given(hnp.arrays(np.float32, (1, 7), elements=finite), st.integers(0, 2**64 - 1))
def test_disabling_values_change_nothing(logits, seed):
    plain = Sampler(SamplingOptions(seed=seed), 7)
    disabled = Sampler(
        SamplingOptions(
            temperature=1, top_k=7, top_p=1, min_p=0, repetition_penalty=1.0, seed=seed
        ),
        7,
    )
    assert plain.sample(logits).tolist() == disabled.sample(logits).tolist()


def test_probabilities_are_met_within_five_standard_errors():
    probabilities = np.array([0.5, 0.25, 0.125, 0.125])
    draws = 20_000
    logits = np.repeat(np.log(probabilities)[None], 100, axis=0).astype(np.float32)
    sampler = Sampler(SamplingOptions(seed=0), 4, range(100))
    counts = sum(np.bincount(sampler.sample(logits), minlength=4) for _ in range(draws // 100))
    error = np.sqrt(probabilities * (1 - probabilities) / draws)
    assert (np.abs(counts / draws - probabilities) < 5 * error).all()


def test_extreme_logits_are_drawn_from():
    logits = np.array([[-3e38, 3e38, 0]], dtype=np.float32)
    for temperature in (1e-6, 1.0, 1e6):
        sampler = Sampler(SamplingOptions(temperature=temperature, seed=0), 3)
        assert sampler.sample(logits).tolist() == [1]


# Uniform draws


def test_draws_are_philox_4x64_10_as_published():
    # known answers of the Random123 distribution: counter and key of all zeros, of all ones
    zeros = np.random.Philox(counter=[2**64 - 1] * 4, key=[0, 0]).random_raw(4)
    assert [f"{x:016x}" for x in zeros] == [
        "16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b",
    ]  # fmt: skip
    first = np.random.Philox(counter=0, key=[0, 0]).random_raw(1)[0]
    assert uniform_draws(0, 0, 0, 1)[0] == (int(first) >> 11) * 2.0**-53


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_draw_t_is_draw_t_wherever_one_begins(seed, row, first):
    whole = uniform_draws(seed, row, 0, first + 5)
    assert np.array_equal(whole[first:], uniform_draws(seed, row, first, 5))
    assert ((whole >= 0) & (whole < 1)).all()


def test_rows_and_seeds_have_draws_of_their_own():
    draws = {uniform_draws(seed, row, 0, 1)[0] for seed in range(50) for row in range(50)}
    assert len(draws) == 2_500


@pytest.mark.parametrize("drawn", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_a_place_in_the_batch_can_be_taken_over_at_any_draw(drawn):
    even = np.zeros((2, 1000), dtype=np.float32)
    reference = Sampler(SamplingOptions(seed=4), 1000, (8,))
    expected = [int(reference.sample(even[:1])[0]) for _ in range(drawn + 300)][drawn:]
    for before in (0, 5, BLOCK, BLOCK + 3):
        sampler = Sampler(SamplingOptions(seed=4), 1000, (0, 1))
        for _ in range(before):
            sampler.sample(even)
        sampler.start_row(1, 8, drawn)
        assert sampler.drawn(1) == drawn
        smaller = sampler.keep_rows([1])
        assert [int(sampler.sample(even)[1]) for _ in range(300)] == expected
        assert [int(smaller.sample(even[:1])[0]) for _ in range(300)] == expected
        assert sampler.drawn(1) == drawn + 300


# Options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 1e-9),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e9),
        ("stop", ("",)),
        ("stop", (3,)),
        ("stop", 3),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 0.5),
    ],
)
def test_options_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(OptionError, match=name):
        SamplingOptions(**{name: value})


def test_stop_is_one_string_or_several():
    assert SamplingOptions(stop="ab").stops == ("ab",)
    assert SamplingOptions(stop=["a", "b"]).stops == ("a", "b")
    assert SamplingOptions(stop="").stops == ()


# The table


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1}, "temperature is -1; give 0 (greedy), or 1e-06 to 1e+06"),
        ({"top_k": -1}, "top_k is -1; give 0 (off) to 2**63 - 1"),
        ({"top_p": 1.5}, "top_p is 1.5; give a value above 0, up to 1 (off)"),
        ({"min_p": 2}, "min_p is 2; give 0 (off) to 1"),
        (
            {"repetition_penalty": 0},
            "repetition_penalty is 0; give a value above 0, up to 100 (1 is off)",
        ),
        ({"seed": -1}, "seed is -1; give 0 to 2**64 - 1"),
    ],
)
def test_a_refusal_names_the_range(given, message):
    with pytest.raises(OptionError) as caught:
        SamplingOptions(**given)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", TABLE)
def test_the_ends_of_a_range_are_taken_and_what_is_beyond_is_not(name):
    row = TABLE[name]
    step = 1 if row.whole else 1e-9
    inside = [row.high, row.low + step, *([] if row.above else [row.low])]
    outside = [row.high + 2 * step * row.high, row.low - step, *([row.low] if row.above else [])]
    for value in (*inside, *(row.special or ())[:1], *([] if row.off is None else [row.off])):
        assert getattr(SamplingOptions(**{name: value}), name) == value
    for value in outside:
        with pytest.raises(OptionError, match=name):
            SamplingOptions(**{name: value})


def test_the_overrides_are_the_fields():
    hints = typing.get_type_hints(SamplingOverrides)
    assert hints == typing.get_type_hints(SamplingOptions)
    assert set(hints) == {*TABLE, "stop", *CONTROLS}


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"seed"}))
def test_the_published_schema_has_the_limits_of_the_table(name):
    schema = json.loads((ROOT / "runtime/chargen_ort/schemas/config.json").read_text())
    sampling = schema["properties"]["sampling"]
    assert set(sampling["required"]) == set(sampling["properties"])
    assert set(sampling["properties"]) == set(TABLE) - {"seed"} | {"stop"}
    limits = dict(sampling["properties"][name])
    limits.pop("description")
    assert limits == TABLE[name].schema


def test_embedding_md_has_the_table():
    text = (ROOT / "runtime/EMBEDDING.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    plain = SamplingOptions()
    strings = f"up to {MAX_STOPS} strings of 1 to {MAX_STOP_LENGTH} characters"
    others = {
        "stop": f"none | {strings} | The text ends before this string, which is not part of it.",
        "pattern": f"none | up to {MAX_PATTERN:,} characters | A regular expression that the whole "
        "text matches, its start included.",
        "ban": f"none | {strings} | The whole text does not have this string.",
        "exact": "off | on or off | Draw freely, and begin a text anew that is not as it should "
        "be.",
    }
    expected = []
    for field in dataclasses.fields(plain):
        if field.name in others:
            expected.append(f"| `{field.name}` | {others[field.name]} |")
            continue
        row = (TABLE | CONTROL_TABLE)[field.name]
        default = getattr(plain, field.name)
        shown = "none" if default is None else f"{default:g}"
        expected.append(f"| `{field.name}` | {shown} | {row.range} | {row.help} |")
    assert rows == expected


@pytest.mark.parametrize("control", [{}, {"pattern": "a+", "ban": ["x"], "exact": True}])
def test_options_go_through_json(control):
    chosen = SamplingOptions(0.5, 3, 0.75, 0.25, 1.5, ["a", "b"], 7, **control)
    saved = json.loads(json.dumps(chosen.to_json()))
    assert dataclasses.replace(SamplingOptions.from_json("sampling", saved), seed=7) == chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": "ab"}, "stop is 'ab'; it must be a list"),
        ({"seed": 3}, "sampling has a key that is not known: 'seed'"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"temperature": "1"}, "temperature must be a number"),
        ({"min_p": 2}, "min_p is 2"),
    ],
)
def test_json_of_options_is_read_strictly(changes, message):
    with pytest.raises(OptionError, match=message):
        SamplingOptions.from_json("sampling", SamplingOptions().to_json() | changes)
    for value, message in (
        ([], "sampling is a list; it must be an object"),
        (None, "sampling is None; it must be an object"),
        ({}, "sampling lacks temperature, top_k"),
    ):
        with pytest.raises(OptionError, match=message):
            SamplingOptions.from_json("sampling", value)

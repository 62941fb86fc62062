"""Numbers: one way to take them, whoever asks."""

import numpy as np
import pytest

from chargen_ort import ChargenError, OptionError, SamplingOptions
from chargen_ort.checks import number, shown_value, token_array, whole_number

WHOLE = [7, np.int8(7), np.uint64(7), np.int64(7), np.array(7), np.array(7, dtype=np.uint8)]
REAL = [0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.longdouble(0.5), np.array(0.5)]
HUGE = 10**400


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_a_whole_number_is_kept_as_an_int(value):
    found = whole_number("x", value, 0, 9)
    assert found == 7
    assert type(found) is int


@pytest.mark.parametrize("value", [*REAL, np.float32(0.5)], ids=repr)
def test_a_number_is_kept_as_a_float(value):
    found = number("x", value)
    assert found == 0.5
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(True),
        7.0,
        np.float32(7),
        "7",
        np.str_("7"),
        np.bytes_(b"7"),
        None,
        np.array([7]),
        np.array(7.0),
        7j,
        [7],
    ],
    ids=repr,
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(OptionError, match="x must be a whole number, got"):
        whole_number("x", value, 0, 9)


@pytest.mark.parametrize(
    "value",
    [False, np.bool_(True), "1", np.str_("1"), None, np.zeros(1), np.array("1"), 1j],
    ids=repr,
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(OptionError, match="x must be a number, got"):
        number("x", value)


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), -HUGE, np.array(np.nan)])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(OptionError, match="give a finite number"):
        number("x", value)


@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**100_000], ids=["huge", "minus", "more"])
def test_a_huge_number_is_out_of_range_in_a_short_line(value):
    for call in (
        lambda: whole_number("x", value, 0, 9),
        lambda: number("x", value),
        lambda: SamplingOptions(seed=value),
        lambda: SamplingOptions(top_k=value),
        lambda: SamplingOptions(temperature=value),
    ):
        with pytest.raises(OptionError) as caught:
            call()
        assert len(str(caught.value)) < 120
        assert "digits" in str(caught.value)


def test_options_keep_plain_numbers():
    options = SamplingOptions(
        temperature=np.float32(0.5),
        top_k=np.int8(3),
        top_p=np.array(0.75),
        min_p=np.float16(0.25),
        repetition_penalty=np.int64(2),
        seed=np.uint64(2**64 - 1),
    )
    assert options == SamplingOptions(0.5, 3, 0.75, 0.25, 2.0, (), 2**64 - 1)
    kinds = {type(getattr(options, name)) for name in ("temperature", "top_p", "min_p")}
    assert kinds == {float}
    assert {type(options.top_k), type(options.seed)} == {int}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.array([-1]), "a token is -1; give 0 to 4"),
        (np.array([5]), "a token is 5; give 0 to 4"),
        (np.array([2**63], dtype=np.uint64), "give 0 to 4"),
        (np.array([1.0]), "must be an array of integers, got an array of float64"),
        (np.array([True]), "must be an array of integers"),
        (np.array([[1]]), "must have 1 dimensions, got 2"),
        ([1], "must be an array of integers, got list"),
    ],
)
def test_tokens_that_a_model_lacks_are_refused(tokens, message):
    with pytest.raises(OptionError, match=message):
        token_array(tokens, 5, 1)


@pytest.mark.parametrize("value", [np.zeros((40, 40)), "a\nb" * 100, [1] * 999, HUGE, object()])
def test_whatever_is_refused_is_shown_in_one_short_line(value):
    shown = shown_value(value)
    assert shown.isprintable()
    assert len(shown) < 120


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (["a"] * 17, "stop has 17 strings; give at most 16"),
        ("a" * 257, "a stop string has 257 characters; give at most 256"),
        (b"a", "stop is bytes; give non-empty strings"),
        (np.array(["a"]), "stop is ndarray; give non-empty strings"),
    ],
)
def test_stop_strings_are_strings_and_not_too_many(stop, message):
    with pytest.raises(ChargenError, match=message):
        SamplingOptions(stop=stop)
    assert SamplingOptions(stop=["a" * 256] * 16).stops

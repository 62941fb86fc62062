"""What the runtime promises to programs that embed it."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chargen_ort
from chargen_ort import (
    ArtifactError,
    CharGenerator,
    OptionError,
    SamplingOptions,
    UnknownCharacterError,
)
from chargen_ort.batch import write_texts
from chargen_ort.stream import hold_back
from tests.conftest import artifact_bytes, random_model


def test_the_lesson_writes_its_phrase(hello):
    assert hello.generate("hell", 30, temperature=0.2, seed=7).startswith("o world hello world")


def test_length_counts_new_characters(generator):
    assert len(generator.generate("hello", length=40, seed=0)) == 40
    assert generator.generate("hello", length=0) == ""
    assert len("".join(generator.stream("hello", 7))) == 7


def test_one_seed_gives_one_text_and_another_another(generator):
    assert generator.generate("a", seed=1) == generator.generate("a", seed=1)
    assert generator.generate("a", seed=1) != generator.generate("a", seed=2)
    assert generator.generate("a", seed=1) != generator.generate("a", seed=1, row=1)


def test_without_a_seed_texts_differ_and_the_stream_tells_its_seed(generator):
    stream = generator.stream("a", 50)
    text = "".join(stream)
    assert generator.generate("a", 50) != generator.generate("a", 50)
    assert generator.generate("a", 50, seed=stream.seed) == text


def test_a_batch_penalises_what_a_stream_does_where_a_text_begins(generator):
    options = {"seed": 1, "repetition_penalty": 3.0}
    texts = generator.generate_batch([""] * 3, 60, **options)
    assert texts == [generator.generate("", 60, row=row, **options) for row in range(3)]


def test_an_empty_start_begins_after_the_separator(generator):
    assert generator.generate("", 40, seed=3) == generator.generate("\n", 40, seed=3)


def test_the_models_own_options_apply_where_a_call_gives_none():
    cold = SamplingOptions(temperature=0)
    model = CharGenerator.from_bytes(artifact_bytes(random_model(), sampling=cold))
    assert model.generate("a", seed=1) == model.generate("a", seed=2)
    assert model.generate("a", seed=1, temperature=1) != model.generate("a", seed=2, temperature=1)
    assert model.generate("a", options=SamplingOptions(seed=1)) == model.generate(
        "a", seed=1, temperature=1
    )


def test_a_stream_is_lazy_and_unbounded(generator):
    stream = generator.stream("a", seed=4)
    first = "".join(islice(stream, 30))
    assert first == generator.generate("a", 30, seed=4)
    assert len(list(islice(stream, 100))) == 100


# Stop strings


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("hello world", ("o w",), "hell"),
        ("hello world", ("xyz",), "hello world"),
        ("aab", ("ab",), "a"),
        ("aaab", ("aab",), "a"),
        ("abcabd", ("abd",), "abc"),
        ("end", ("end",), ""),
        ("one two", ("two three",), "one two"),
        ("abc", ("bc", "abc"), ""),
        ("xay", ("ay", "a"), "x"),
    ],
)
def test_a_stop_string_ends_the_text_and_is_not_part_of_it(text, stops, expected):
    assert "".join(hold_back(iter(text), stops)) == expected


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1))
def test_text_ends_before_the_first_stop_string_that_is_completed(text, stops):
    ends = [i for i in range(len(text) + 1) if text[:i].endswith(tuple(stops)) and i]
    expected = text
    if ends:
        whole = text[: ends[0]]
        longest = max(len(stop) for stop in stops if whole.endswith(stop))
        expected = whole[: ends[0] - longest]
    assert "".join(hold_back(iter(text), tuple(stops))) == expected


def test_characters_are_passed_on_as_soon_as_they_cannot_become_a_stop():
    arrived = []

    def source():
        for character in "hello":
            yield character
            arrived.append(character)

    stream = hold_back(source(), ("lo",))
    assert next(stream) == "h"
    assert arrived == []
    assert next(stream) == "e"
    assert next(stream) == "l"  # held until the second l showed that it is no "lo"
    assert arrived == list("hel")


def test_stop_works_in_streams_and_batches(generator):
    text = generator.generate("a", 200, seed=5)
    stop = text[20:23]
    expected = text[: text.index(stop)]
    assert generator.generate("a", 200, seed=5, stop=stop) == expected
    assert generator.generate_batch(["a"], 200, seed=5, stop=[stop, "zzzz"]) == [expected]


# Batches


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_row_i_of_a_batch_is_what_a_single_call_with_row_i_writes(generator, batch_size):
    starts = ["a", "hello ", "", "the quick brown fox", "b", "a", "z."]
    texts = generator.generate_batch(starts, 60, seed=9, batch_size=batch_size, stop=["e", "qu"])
    for row, (start, text) in enumerate(zip(starts, texts, strict=True)):
        assert text == generator.generate(start, 60, seed=9, row=row, stop=["e", "qu"])
    assert len({len(text) for text in texts}) > 1  # they did end at different times


def test_a_penalty_in_a_batch_counts_each_rows_own_text(generator):
    starts = ["aaa", "bbbb", "c"]
    options = SamplingOptions(repetition_penalty=1.7, seed=2)
    texts = generator.generate_batch(starts, 30, options=options, batch_size=2)
    for row, (start, text) in enumerate(zip(starts, texts, strict=True)):
        assert text == generator.generate(start, 30, options=options, row=row)


def test_endless_starts_give_endless_texts(generator):
    def starts():
        while True:
            yield "a"

    finished = dict(islice(generator.iterate_batch(starts(), 10, seed=1, batch_size=4), 30))
    assert len(finished) == 30
    for row, text in finished.items():
        assert text == generator.generate("a", 10, seed=1, row=row)


def test_a_batch_of_no_length_has_empty_texts(generator):
    assert generator.generate_batch(["a", "b"], 0) == ["", ""]


# States


def test_a_state_goes_on_where_it_was_saved(generator):
    whole = generator.generate("hello", 60, seed=6, repetition_penalty=1.2)
    state = generator.state("hello", seed=6, repetition_penalty=1.2)
    first = "".join(state.draw() for _ in range(25))
    saved = state.snapshot()
    rest = "".join(state.draw() for _ in range(35))
    assert first + rest == whole
    restored = pickle.loads(pickle.dumps(generator)).restore(saved)
    assert "".join(restored.draw() for _ in range(35)) == rest


def test_resuming_at_any_point_gives_the_same_text(generator):
    whole = generator.generate("b", 300, seed=8)
    state = generator.state("b", seed=8)
    written = ""
    for size in (1, 2, 3, 60, 62, 64, 108):
        state = generator.restore(state.snapshot())
        written += "".join(state.draw() for _ in range(size))
    assert written == whole


def test_a_fork_is_independent(generator):
    state = generator.state("hello", seed=1)
    state.draw()
    fork = state.fork()
    fork.feed("zzz")
    other = generator.state("hello", seed=1)
    other.draw()
    assert [state.draw() for _ in range(20)] == [other.draw() for _ in range(20)]


def test_feeding_in_pieces_is_feeding_at_once(generator):
    state = generator.state("hel")
    state.feed("lo wor")
    state.feed("")
    state.feed("ld")
    expected = generator.state("hello world").logits()
    np.testing.assert_allclose(state.logits(), expected, atol=1e-5)


@pytest.mark.parametrize("damage", ["foreign", "short", "long", "header", "nan", "not bytes"])
def test_a_damaged_snapshot_is_refused(generator, damage):
    saved = generator.state("a").snapshot()
    broken = {
        "foreign": b"PK\x03\x04",
        "short": saved[:-4],
        "long": saved + b"\0\0\0\0",
        "header": saved.replace(b'"row"', b'"rov"'),
        "nan": saved[:-4] + np.float32("nan").tobytes(),
        "not bytes": saved.decode("latin1"),
    }[damage]
    with pytest.raises((ArtifactError, OptionError)):
        generator.restore(broken)


def test_a_snapshot_of_another_model_is_refused(generator, hello):
    with pytest.raises(ArtifactError, match="another model"):
        hello.restore(generator.state("a").snapshot())


# Probabilities


def test_next_probabilities_are_ranked_and_sum_to_one(hello):
    ranked = hello.next_probabilities("hel")
    assert next(iter(ranked)) == "l"
    assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert sum(ranked.values()) == pytest.approx(1)
    assert set(ranked) == set(hello.vocabulary.characters)
    assert list(hello.next_probabilities("hel", 2)) == list(ranked)[:2]


# Ending early


def test_a_stream_is_closed_from_another_thread(generator):
    stream = generator.stream("a")
    threading.Timer(0.05, stream.close).start()
    begun = time.monotonic()
    for _ in stream:
        pass
    assert time.monotonic() - begun < 1


def ended(stream, read=None):
    """Why a stream ends, having been read to its end, or so far and then closed."""
    assert stream.ended is None
    for _ in islice(stream, read):
        assert stream.ended is None
    if read is not None:
        stream.close()
    return stream.ended


def test_a_stream_tells_why_it_ended(generator):
    assert ended(generator.stream("a", 5)) == "length"
    assert ended(generator.stream("a", 0)) == "length"
    assert ended(generator.stream("a", 5, stop="zzzz")) == "length"
    text = generator.generate("a", 9, seed=1)
    assert ended(generator.stream("a", 9, seed=1, stop=text[7:])) == "stop"
    assert ended(generator.stream("a", stop=text[3:5], seed=1)) == "stop"
    assert ended(generator.stream("a"), read=3) == "cancelled"
    assert ended(generator.stream("a", timeout=0)) == "cancelled"
    finished = generator.stream("a", 2)
    assert len(list(finished)) == 2
    finished.close()
    assert finished.ended == "length"


def test_a_batch_tells_why_each_text_ended(generator):
    stop = generator.generate("a", 9, seed=1, row=1)[6:9]
    options = generator.options(seed=1, stop=stop)
    for batch_size in (1, 3):
        written = list(write_texts(generator.engine, iter(["a"] * 3), 9, options, batch_size, None))
        assert {w.index: w.ended for w in written} == {0: "length", 1: "stop", 2: "length"}
        for w in written:
            assert w.text == generator.generate("a", 9, options=options, row=w.index)


def test_a_stream_ends_at_its_deadline(generator):
    begun = time.monotonic()
    assert generator.generate("a", 1 << 40, timeout=0.05)
    assert time.monotonic() - begun < 1


def test_a_long_start_is_given_up_at_the_deadline(generator):
    assert generator.generate("ab" * 1_000_000, 5, timeout=0) == ""


# Threads and processes


def test_threads_share_a_model(generator):
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda row: generator.generate("a", 50, seed=1, row=row), range(64)))
    assert texts == [generator.generate("a", 50, seed=1, row=row) for row in range(64)]


def test_a_generator_pickles(generator):
    copy = pickle.loads(pickle.dumps(generator))
    assert copy.generate("a", seed=1) == generator.generate("a", seed=1)


# Bad input


@pytest.mark.parametrize(
    "call",
    [
        lambda g: g.generate("a", -1),
        lambda g: g.generate("a", 1.5),
        lambda g: g.generate("a", True),
        lambda g: g.generate("a", None),
        lambda g: g.generate("a", row=-1),
        lambda g: g.generate("a", timeout=float("nan")),
        lambda g: g.generate(b"a"),
        lambda g: g.generate(None),
        lambda g: g.generate("a", options={"temperature": 1}),
        lambda g: g.generate("a", warmth=1),
        lambda g: g.generate("a", unknown="ignore"),
        lambda g: g.generate_batch([]),
        lambda g: g.generate_batch("abc"),
        lambda g: g.generate_batch(["a"], batch_size=0),
        lambda g: g.generate_batch([1]),
        lambda g: g.next_probabilities("a", top=0),
        lambda g: CharGenerator(g.artifact, threads=0),
    ],
)
def test_bad_arguments_are_refused(generator, call):
    with pytest.raises(OptionError):
        call(generator)


def test_an_unknown_character_in_a_start(generator):
    with pytest.raises(UnknownCharacterError, match=r"'X' .U.0058. at position 1"):
        generator.stream("aX")
    with pytest.raises(UnknownCharacterError):
        generator.generate_batch(["a", "X"])
    assert generator.generate("aX", seed=1, unknown="skip") == generator.generate("a", seed=1)
    assert generator.generate("aX", seed=1, unknown="replace") == generator.generate("a ", seed=1)


@settings(max_examples=30, deadline=None)
@given(st.text("abc \n", max_size=300), st.integers(0, 2**64 - 1))
def test_any_known_start_and_seed_work(generator, start, seed):
    assert len(generator.generate(start, 5, seed=seed)) == 5


def test_the_public_names_are_sorted_and_there():
    assert chargen_ort.__all__ == sorted(chargen_ort.__all__)
    assert all(hasattr(chargen_ort, name) for name in chargen_ort.__all__)

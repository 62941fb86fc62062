"""Bytes, words and pieces: texts come back as they were, and every way of writing agrees."""

import json
import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen_ort import CharGenerator, OptionError, UnknownCharacterError, Vocabulary
from chargen_ort.batch import write_texts
from chargen_ort.pieces import MAX_RUN, join_pairs, split_runs
from chargen_ort.reports import written_objects
from chargen_ort.scoring import score_continuations
from tests.conftest import artifact_bytes, random_model
from tests.tools.serving import serving
from tests.tools.units import LETTERS, bpe, byte, word

UNITS = {"bpe": bpe, "word": word, "byte": byte}
CASES = [(unit, end) for unit in UNITS for end in (False, True)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def writer(request: pytest.FixtureRequest) -> CharGenerator:
    """Random weights over a small vocabulary of each unit, with and without an end."""
    unit, end = request.param
    vocabulary = UNITS[unit](end=end)
    model = random_model(len(vocabulary), seed=3, scale=1.0)
    return CharGenerator.from_bytes(artifact_bytes(model, vocabulary=vocabulary))


def texts_of(unit: str) -> st.SearchStrategy[str]:
    if unit == "byte":
        return st.text(st.characters(exclude_categories=["Cs"]))
    return st.text(st.sampled_from(LETTERS + "h"), max_size=80)


# Texts and tokens


@pytest.mark.parametrize("unit", UNITS)
@given(data=st.data())
def test_every_text_of_the_alphabet_comes_back_as_it_was(unit, data):
    vocabulary = UNITS[unit]()
    text = data.draw(texts_of(unit))
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert int(vocabulary.sizes[tokens].sum()) == len(text)
    parts = vocabulary.encode_pieces(text, size=5)
    assert [token for part in parts for token in part.tolist()] == tokens.tolist()
    begun, rest = vocabulary.encode_open(text)
    assert vocabulary.decode(begun) + rest == text


def test_runs_are_letters_or_others_with_a_space_before():
    text = "It's  the best, no?\n\n  ROMEO:\n大家好。好"
    runs = ["It", "'", "s", " ", " the", " best", ",", " no", "?\n\n", " ", " ROMEO", ":\n"]
    assert split_runs(text) == [*runs, "大家好", "。", "好"]
    assert [len(run) for run in split_runs("x" * 70)] == [MAX_RUN, MAX_RUN, 6]


def test_the_earliest_merge_is_made_first_and_the_first_of_equals():
    merges = {(0, 0): (0, 1), (1, 0): (1, 2), (1, 1): (2, 3)}
    assert join_pairs([0] * 5, merges) == [1, 2]
    assert join_pairs([0] * 3, merges) == [2]


@given(st.lists(st.integers(0, 2), max_size=12), st.permutations(list(range(9))))
def test_joining_is_what_merging_everywhere_in_turn_gives(tokens, order):
    pairs = [(place // 3, place % 3) for place in order][:5]
    merges = {pair: (place, 3 + place) for place, pair in enumerate(pairs)}
    expected = list(tokens)
    for pair in pairs:  # from left to right, each merge everywhere before the next
        place = 0
        while place < len(expected) - 1:
            if tuple(expected[place : place + 2]) == pair:
                expected[place : place + 2] = [merges[pair][1]]
            place += 1
    assert join_pairs(list(tokens), merges) == expected


def test_a_rare_word_is_spelled():
    vocabulary = word()
    assert [vocabulary.texts[t] for t in vocabulary.encode("the rest. the host")] == [
        "the", " rest", ".", " the", " ", "h", "o", "s", "t"
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["bpe", "word"])
def test_unknown_characters_have_the_policies_of_characters(unit):
    vocabulary = UNITS[unit]()
    with pytest.raises(UnknownCharacterError, match="position 4"):
        vocabulary.encode("the é")
    assert vocabulary.decode(vocabulary.encode("thé er", "skip")) == "th er"
    assert vocabulary.decode(vocabulary.encode("thé", "replace")) == "th" + vocabulary.replacement
    tokens = vocabulary.look_up("the é the")
    assert (tokens < 0).sum() == 1


def test_of_bytes_only_lone_surrogates_are_unknown():
    with pytest.raises(UnknownCharacterError, match="position 2"):
        byte().encode("ab\ud800")
    assert byte().look_up("é\ud800a").tolist() == [0xC3, 0xA9, -1, ord("a")]


def test_bytes_become_characters_when_it_is_certain():
    decoder = byte().decoder()
    assert [decoder.feed([each]) for each in "é€".encode()] == ["", "é", "", "", "€"]
    # E2 82 could have become a character until the letter came; FF never could
    assert [decoder.feed([each]) for each in b"\xe2\x82a\xff"] == ["", "", "�a", "�"]
    assert decoder.feed([0xF0, 0x9F]) == ""
    assert decoder.partial == b"\xf0\x9f"
    assert byte().decode([0x61, 0xE2, 0x82]) == "a"


# Writing


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 7, "repetition_penalty": 1.2}, {"temperature": 0}]
)
@pytest.mark.parametrize("start", ["", "the oth", "the best or ", "t"])
def test_every_way_of_writing_gives_the_same_text(writer, options, start):
    options = {"seed": 5, "stop": "ee"} | options
    rows = 4
    streamed = ["".join(writer.stream(start, 60, row=row, **options)) for row in range(rows)]
    assert [writer.generate(start, 60, row=row, **options) for row in range(rows)] == streamed
    assert writer.generate_batch([start] * rows, 60, batch_size=3, **options) == streamed
    plain = options | {"stop": ()}
    whole = writer.generate(start, 60, **plain)
    state = writer.state(start, **plain)
    first = "".join(writer.resume(state, 23))
    other = writer.restore(state.snapshot())
    for each in (state, other):
        if not each.at_beginning:
            assert whole.startswith(first + "".join(islice(writer.resume(each, 37), 37))[:10])
    assert writer.generate(start, 23, **plain) == whole[:23]
    assert len(whole) <= 60


def test_what_follows_begins_with_the_last_run_that_was_taken_back(writer):
    state = writer.state("the best the", seed=1)
    if writer.vocabulary.unit == "byte":  # every token goes on as nothing does
        assert np.isfinite(state.logits()).all()
        return
    _, rest = writer.vocabulary.encode_open("the best the")
    assert rest == " the"
    texts = writer.config.tokens
    finite = {texts[i] for i in np.flatnonzero(np.isfinite(state.logits()))}
    assert finite == {t for t in texts if t and (t.startswith(rest) or rest.startswith(t))}
    assert state.drawn == 0
    state.draw()
    assert state.drawn > 0


def test_a_text_fed_in_parts_is_as_if_fed_at_once(writer):
    whole, parts = writer.state("the other best.\n", seed=2), writer.state("the", seed=2)
    assert not parts.at_beginning
    parts = writer.restore(parts.snapshot())
    parts.feed(" oth")
    parts.feed("er be")
    parts.feed("st.\n")
    np.testing.assert_allclose(whole.logits(), parts.logits(), atol=1e-5)
    assert [whole.draw() for _ in range(20)] == [parts.draw() for _ in range(20)]


def test_next_probabilities_are_of_characters(writer):
    found = writer.next_probabilities("the b")
    assert all(len(character) <= 1 for character in found)
    assert math.isclose(sum(found.values()), 1, abs_tol=0.02)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    counts = dict.fromkeys(found, 0)
    for row in range(400):  # as often as they are drawn
        character = writer.state("the b", seed=9, row=row).draw()
        counts[character] = counts.get(character, 0) + 1
    likeliest = next(iter(found))
    assert abs(counts[likeliest] / 400 - found[likeliest]) < 0.1
    assert list(writer.next_probabilities("the b", top=2)) == list(found)[:2]


def test_characters_of_a_piece_that_are_left_come_next():
    vocabulary = bpe()
    writer = CharGenerator.from_bytes(
        artifact_bytes(random_model(len(vocabulary), seed=3), vocabulary=vocabulary)
    )
    whole = writer.generate("the ", 40, seed=1)
    for cut in range(1, 40):
        state = writer.state("the ", seed=1)
        first = writer.resume(state, cut).read()
        assert (first + state.rest() + writer.resume(state, 40).read())[:40] == whole


def test_the_server_writes_the_same_texts(writer, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(writer.artifact.data)
    with serving(path) as served:
        for start in ("", "the oth", "the best or "):
            for options in ({}, {"stop": ["ee", "t "]}, {"top_k": 7, "repetition_penalty": 1.2}):
                answer = served.complete(
                    prompt=start, max_tokens=50, n=3, seed=5, temperature=1, **options
                )
                options = {"seed": 5, "temperature": 1} | options
                for row, choice in enumerate(answer["choices"]):
                    assert choice["text"] == writer.generate(start, 50, row=row, **options)
        counted = served.complete(prompt="the oth", max_tokens=0, seed=1)["usage"]
        tokens = writer.vocabulary.encode("the oth")
        assert counted["prompt_tokens"] == len(tokens)
        status, error = served.refusal(prompt="the", max_tokens=5, logprobs=1)
        assert (status, error["param"]) == (400, "logprobs")
        assert (
            served.complete(prompt=tokens.tolist(), max_tokens=0, echo=True)["choices"][0]["text"]
            == "the oth"
        )


# Scores


def test_scores_are_comparable_between_units(writer):
    text = "the other best or the rest.\n" * 3
    score = writer.score(text)
    tokens = len(writer.vocabulary.encode(text)) + (1 if writer.config.end else -1)
    assert score.tokens == tokens
    first = int(writer.vocabulary.sizes[writer.vocabulary.encode(text)[0]])
    assert score.characters == (len(text) + 1 if writer.config.end else len(text) - first)
    assert math.isclose(score.bits_per_char, -score.total / score.characters / math.log(2))
    assert math.isclose(score.nats_per_token * tokens, score.nats_per_char * score.characters)
    rows = writer.score_batch([text, "the", text[:9], "thé"], end=True, unknown="skip")
    alone = [writer.score_batch([t], end=True, unknown="skip")[0] for t in (text, "the", text[:9])]
    for one, other in zip(rows, alone, strict=False):
        assert math.isclose(one.total, other.total, abs_tol=1e-3)
        assert (one.characters, one.tokens) == (other.characters, other.tokens)
    if not writer.config.end:
        assert writer.score(text, window=20).characters == score.characters


def test_a_line_and_its_end_are_scored_as_they_are_encoded():
    vocabulary = bpe()
    model = random_model(len(vocabulary), seed=3)
    writer = CharGenerator.from_bytes(artifact_bytes(model, vocabulary=vocabulary))
    [score] = writer.score_batch(["the rest."], end=True)
    [same] = writer.score_batch(["the rest.\n"])
    assert score.total == same.total
    assert (score.characters, score.tokens) == (10, len(vocabulary.encode("the rest.\n")))


def test_the_log_probability_of_a_text_is_that_of_its_draws():
    vocabulary = word()
    writer = CharGenerator.from_bytes(
        artifact_bytes(random_model(len(vocabulary), seed=3, scale=1.0), vocabulary=vocabulary)
    )
    start, options = "the be", writer.options(seed=4)
    texts = write_texts(writer.engine, iter([start]), 30, options, 1, None)
    found = json.loads(next(written_objects(writer.engine, texts, start, 30, options, None)))
    assert found["text"] == writer.generate(start, 30, seed=4)
    assert found["log_probability"] < 0
    # of what goes on as " be" does, the piece " best"
    logits = writer.state(start).logits().astype(float)
    token = vocabulary.texts.index(" best")
    expected = logits[token] - np.logaddexp.reduce(logits)
    [total] = score_continuations(writer.engine, start, ["st"], None)
    assert math.isclose(total, expected, abs_tol=1e-6)


# What contradicts itself


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pieces": ("ab", "xb")}, "a character that is no token"),
        ({"pieces": ("ab", "a b")}, "goes across"),
        ({"merges": (0,)}, "no pairs"),
        ({"merges": (0, 2)}, "makes no token"),
        ({"merges": (0, 1, 0, 1)}, "stands twice"),
        ({"merges": (4, 0, 0, 1)}, "is not made before it"),
        ({"merges": ()}, "is made by no merge"),
        ({"unit": "word"}, "merges are of the unit bpe"),
        ({"unit": "char"}, "no pieces"),
        ({"unit": "byte"}, "the 256 bytes"),
        ({"unit": "syllable"}, "choose one of"),
    ],
)
def test_pieces_and_merges_must_agree(changes, message):
    values = {"characters": "abc ", "unit": "bpe", "pieces": ("ab",), "merges": (0, 1)}
    Vocabulary(**values)
    with pytest.raises(OptionError, match=message):
        Vocabulary(**values | changes)

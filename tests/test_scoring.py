"""Scores against PyTorch, and against each other."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_ort import (
    CharGenerator,
    OptionError,
    Score,
    UnknownCharacterError,
    scoring,
)
from chargen_train.evaluate import mean_loss
from chargen_train.split import Passages
from tests.conftest import ALPHABET, artifact_bytes, random_model

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 7


@pytest.fixture(scope="module")
def model():
    return random_model(num_layers=2)


@pytest.fixture(scope="module")
def scorer(model):
    return CharGenerator.from_bytes(artifact_bytes(model))


def by_torch(model, text):
    """Log probability of each character but the first, the state carried."""
    tokens = torch.tensor([[ALPHABET.index(c) for c in text]])
    with torch.no_grad():
        logits, _ = model(tokens[:, :-1], model.zero_hidden(1))
    return logits.log_softmax(-1)[0].gather(1, tokens[0, 1:, None])[:, 0].numpy()


def test_every_character_but_the_first_is_scored(model, scorer):
    score = scorer.score(TEXT)
    np.testing.assert_allclose(score.log_probabilities, by_torch(model, TEXT), atol=1e-4)
    assert score.characters == len(TEXT) - 1
    assert score.total == pytest.approx(score.log_probabilities.sum())
    assert score.bits_per_char == pytest.approx(-score.total / score.characters / math.log(2))
    assert score.perplexity == pytest.approx(math.exp(score.nats_per_char))


@pytest.mark.parametrize("window", [1, 7, 64, 313, 314, 315, 1000])
def test_a_window_begins_from_a_zero_state(model, scorer, window):
    tokens = np.array([ALPHABET.index(c) for c in TEXT], dtype=np.uint8)
    score = scorer.score(TEXT, window=window)
    assert score.characters == len(TEXT) - 1
    expected = mean_loss(model, Passages.of(tokens, window))
    assert score.nats_per_char == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_pieces_do_not_change_a_score(scorer, monkeypatch, window):
    whole = scorer.score(TEXT, window=window)
    monkeypatch.setattr(scoring, "_PIECE", 11)
    monkeypatch.setattr("chargen_ort.rows.LOGITS_AT_ONCE", 100)
    pieces = scorer.score(TEXT, window=window)
    np.testing.assert_allclose(pieces.log_probabilities, whole.log_probabilities, atol=1e-5)
    short = scorer.score(TEXT, window=window, per_character=False)
    assert short.log_probabilities is None
    assert short.total == pytest.approx(whole.total)


def test_a_batch_scores_each_text_after_the_separator(scorer):
    texts = ["anna", "b", "a longer text than the others", "bob"]
    scores = scorer.score_batch(texts, batch_size=2)
    for text, score in zip(texts, scores, strict=True):
        assert score.characters == len(text)
        alone = scorer.score("\n" + text)
        np.testing.assert_allclose(score.log_probabilities, alone.log_probabilities, atol=1e-5)


def test_a_score_of_next_probabilities_agrees(scorer):
    probability = scorer.next_probabilities("hell")["o"]
    last = scorer.score("hello").log_probabilities[-1]
    assert math.log(probability) == pytest.approx(last, abs=1e-5)


def test_learnt_text_scores_better_than_other_text(hello):
    assert hello.score("hello world hello").bits_per_char < 0.5
    assert hello.score("ddddrrrrllll").bits_per_char > 2


def one_by_one(scorer, text, window=None, replace=False, start=""):
    """What the rules say of each character after `start`, with a state and no batches or pieces.

    A text without a start has its first character read, not scored.
    """
    state = scorer.state(start)
    scores = []
    for place, character in enumerate(text):
        known = character in ALPHABET
        if not start and place % (window or len(text)) == 0:
            restarted = scorer.state()
            if place:
                scores.append(one_log_probability(state, character if known else None))
            state = restarted
            stand_in = " " if replace else "\n"  # " " is the replacement, a line end the separator
            state.feed(character if known else stand_in)
            continue
        scores.append(one_log_probability(state, character if known else None))
        if known or replace:
            state.feed(character if known else " ")
    return scores


def one_log_probability(state, character):
    """That of a character, or of the least likely one for None."""
    probabilities = state.probabilities()
    return math.log(probabilities[character] if character else min(probabilities.values()))


ODD = "ab\u00e9c\u00df\u00df.d\u00e9\u00e9\u00e9"


@pytest.mark.parametrize(
    "text", [ODD, "\u00e9" + ODD, "\u00df\u00e9", "a\u00e9", "\u00e9a", "\u00e9" * 9]
)
@pytest.mark.parametrize("policy", [None, "skip", "replace"])
@pytest.mark.parametrize("window", [None, 1, 2, 3, 50])
@pytest.mark.parametrize("piece", [1 << 16, 2])
def test_an_unknown_character_is_as_likely_as_the_least_likely_one(
    scorer, monkeypatch, text, policy, window, piece
):
    monkeypatch.setattr(scoring, "_PIECE", piece)
    score = scorer.score(text, window=window, unknown=policy)
    expected = one_by_one(scorer, text, window, policy == "replace")
    np.testing.assert_allclose(score.log_probabilities, expected, atol=1e-4)
    assert score.characters == len(text) - 1
    assert score.unknown == sum(c not in ALPHABET for c in text[1:])


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("policy", ["skip", "replace"])
@pytest.mark.parametrize("piece", [1 << 16, 2])
def test_a_batch_scores_unknown_characters_and_line_ends_too(
    scorer, monkeypatch, end, policy, piece
):
    monkeypatch.setattr(scoring, "_PIECE", piece)
    texts = ["anna", ODD, "\u00e9\u00e9", "b", "\u00e9", "a longer text than the others", "\u00e9b"]
    for batch_size in (1, 3, 64):
        scores = scorer.score_batch(texts, batch_size=batch_size, unknown=policy, end=end)
        for text, score in zip(texts, scores, strict=True):
            whole = text + "\n" * end
            expected = one_by_one(scorer, whole, None, policy == "replace", start="\n")
            np.testing.assert_allclose(score.log_probabilities, expected, atol=1e-4)
            assert score.total == pytest.approx(sum(expected), abs=1e-3)
            assert score.characters == len(whole)
            assert score.unknown == sum(c not in ALPHABET for c in whole)


def test_neighbours_and_padding_do_not_change_a_score(scorer, monkeypatch):
    texts = ["a", "bb" * 40, ODD, "\u00e9", "ccc"]
    alone = [scorer.score_batch([text])[0].total for text in texts]
    assert [score.total for score in scorer.score_batch(texts)] == alone
    monkeypatch.setattr(scoring, "_BATCH_AT_ONCE", 90)  # so much padding and no more
    assert [score.total for score in scorer.score_batch(texts)] == alone


def test_many_texts_are_read_as_rows_of_a_batch(generator, monkeypatch):
    texts = ["a", "bb" * 40, ODD, "\u00e9", "ccc"] * 4
    many = [score.total for score in generator.score_batch(texts)]
    alone = [generator.score_batch([text])[0].total for text in texts]
    np.testing.assert_allclose(many, alone, rtol=1e-5)
    monkeypatch.setattr(scoring, "_BATCH_AT_ONCE", 90)
    assert [score.total for score in generator.score_batch(texts, batch_size=3)] == many


def test_what_short_texts_begin_with_is_read_once(generator, monkeypatch):
    texts = ["anna", "anne", "ann", "bob"] * 5
    read, run = [], generator.engine.run_rows
    monkeypatch.setattr(
        generator.engine,
        "run_rows",
        lambda t, h: read.append(t.size) or run(t, h),
    )
    once = [score.total for score in generator.score_batch(texts)]
    assert sum(read) == len({"", "a", "an", "ann", "b", "bo"})
    monkeypatch.setattr(scoring, "_SHORT", 0)
    assert [score.total for score in generator.score_batch(texts)] == once
    assert sum(read) == 6 + len(texts) * len("anna")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("ab\u00e9", min_size=1, max_size=6), min_size=16, max_size=40),
    st.sampled_from(["skip", "replace"]),
    st.integers(1, 50),
)
def test_reading_it_once_changes_no_score(generator, texts, policy, size):
    facts = {"unknown": policy, "batch_size": size, "end": True}
    once = generator.score_batch(texts, **facts)
    with mock.patch.object(scoring, "_SHORT", 0):
        each = generator.score_batch(texts, **facts)
    for a, b in zip(once, each, strict=True):
        assert a.log_probabilities.tolist() == b.log_probabilities.tolist()
        assert (a.total, a.characters, a.unknown) == (b.total, b.characters, b.unknown)


def test_the_more_unknown_the_worse(scorer):
    known, some, all_unknown = scorer.score_batch(["anna", "anna\u00e9\u00e9", "\u00e9" * 6])
    assert known.total > some.total
    assert all_unknown.bits_per_char > some.bits_per_char > known.bits_per_char
    assert (known.unknown, some.unknown, all_unknown.unknown) == (0, 2, 6)


def test_with_its_end_a_whole_text_beats_its_own_beginning(lines_path):
    hello_lines = CharGenerator.load(lines_path)
    whole, cut = hello_lines.score_batch(["hello", "hell"], end=True)
    assert whole.total > cut.total
    whole, cut = hello_lines.score_batch(["hello", "hell"])
    assert whole.total < cut.total


def test_an_empty_text_has_an_end_where_the_model_knows_line_ends(scorer, hello):
    [score] = scorer.score_batch([""], end=True)
    assert (score.characters, score.unknown) == (1, 0)
    assert score.total == pytest.approx(math.log(scorer.next_probabilities("")["\n"]), abs=1e-5)
    assert hello.score_batch(["hello"], end=True)[0].characters == 5  # it knows no line ends
    with pytest.raises(OptionError, match="text 1 is empty"):
        hello.score_batch(["hello", ""], end=True)


def test_error_refuses_a_text_with_an_unknown_character(scorer):
    for call in (
        scorer.score,
        lambda text, unknown: scorer.score_batch(["a", text], unknown=unknown),
    ):
        with pytest.raises(UnknownCharacterError, match="position 2"):
            call("abX", unknown="error")


@pytest.mark.parametrize("policy", ["error", "skip", "replace"])
def test_by_default_the_model_reads_on_by_its_own_policy_but_never_refuses(model, policy):
    data = artifact_bytes(model, unknown=policy)
    default = CharGenerator.from_bytes(data).score(ODD)
    other = {"error": "skip", "skip": "skip", "replace": "replace"}[policy]
    assert default.total == CharGenerator.from_bytes(data).score(ODD, unknown=other).total


@pytest.mark.parametrize("start", ["", "b", "hel", "X", "hXel"])
def test_continuations_are_scored_from_where_the_start_ends(scorer, start):
    texts = ["lo", "", "l", "x" * 30] * 20
    totals = scoring.score_continuations(scorer.engine, start, texts, "skip")
    for text, total in zip(texts[:4], totals[:4], strict=True):
        expected = one_by_one(scorer, text, start=start.replace("X", "") or "\n")
        assert total == pytest.approx(sum(expected), abs=1e-4)
    assert totals[4:] == totals[:4] * 19


@pytest.mark.parametrize("text", ["", "a", "X"])
@pytest.mark.parametrize("policy", [None, "error", "skip", "replace"])
def test_a_text_without_two_characters_is_refused(scorer, text, policy):
    with pytest.raises(OptionError, match=f"at least 2 characters, got {len(text)}"):
        scorer.score(text, unknown=policy)


def test_a_perplexity_without_bound_is_infinite():
    assert Score(-1e6, 1).perplexity == math.inf


def test_other_bad_arguments(scorer):
    for call in (
        lambda: scorer.score("abc", window=0),
        lambda: scorer.score("abc", unknown="ignore"),
        lambda: scorer.score(b"abc"),
        lambda: scorer.score_batch([]),
        lambda: scorer.score_batch("abc"),
        lambda: scorer.score_batch(["a", ""]),
        lambda: scorer.score_batch(["a", b"b"]),
        lambda: scorer.score_batch(["a"], unknown="ignore"),
        lambda: scorer.score_batch(["a"], end="yes"),
    ):
        with pytest.raises(OptionError):
            call()

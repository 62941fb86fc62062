"""Scores against PyTorch, and against each other."""

import math

import numpy as np
import pytest
import torch

from chargen_ort import CharGenerator, OptionError, UnknownCharacterError, scoring
from chargen_train.evaluate import mean_loss
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
    assert score.nats_per_char == pytest.approx(mean_loss(model, tokens, window), abs=1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_pieces_do_not_change_a_score(scorer, monkeypatch, window):
    whole = scorer.score(TEXT, window=window)
    monkeypatch.setattr(scoring, "_PIECE", 11)
    monkeypatch.setattr(scoring, "_LOGITS_AT_ONCE", 100)
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


@pytest.mark.parametrize("text", ["", "a", "X", "aX"])
def test_a_text_without_two_known_characters_is_refused(scorer, text):
    with pytest.raises(OptionError, match="at least 2 characters"):
        scorer.score(text, unknown="skip")


def test_other_bad_arguments(scorer):
    with pytest.raises(UnknownCharacterError, match="position 2"):
        scorer.score("abX")
    for call in (
        lambda: scorer.score("abc", window=0),
        lambda: scorer.score(b"abc"),
        lambda: scorer.score_batch([]),
        lambda: scorer.score_batch("abc"),
        lambda: scorer.score_batch(["a", ""]),
    ):
        with pytest.raises(OptionError):
            call()

"""What a finished model is held against, and that everyone is told in the same words."""

import io
from dataclasses import replace

import numpy as np
import pytest

from chargen_export.display import Display
from chargen_export.pipeline import (
    artifact_of_checkpoint,
    corpus_of_checkpoint,
    train_and_export,
)
from chargen_ort import read_artifact
from chargen_ort.options import SamplingOptions
from chargen_ort.reports import describe_comparisons, describe_training
from chargen_train import comparison
from chargen_train.checkpoint import load_checkpoint
from chargen_train.comparison import (
    measure_yardstick,
    plan_samples,
    sample_facts,
    stand_in,
    write_pieces,
)
from chargen_train.corpus import load_corpus
from chargen_train.reading import Reading
from chargen_train.recipe import Recipe
from chargen_train.run_folder import RunFolder
from tests.conftest import SMALL, TIMES


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a few steps: its folder, its corpus's path, and what the terminal showed."""
    folder, shown = tmp_path_factory.mktemp("compared"), io.StringIO()
    (folder / "times.txt").write_text(TIMES)
    with Display(shown) as display:
        train_and_export(
            folder / "times.txt", folder / "times.onnx", None, display, steps=30, **SMALL
        )
    return RunFolder(folder / "times.onnx"), folder / "times.txt", shown.getvalue()


@pytest.fixture(scope="module")
def training(finished):
    return read_artifact(finished[0].artifact).training


def test_the_record_says_what_an_n_gram_reaches_on_the_same_text(finished, training):
    corpus = load_corpus(finished[1])
    yardstick = measure_yardstick(corpus, Recipe(steps=1))
    predicted = corpus.validation.passages().predicted
    assert len(yardstick.nats) == predicted
    assert training.baseline == yardstick.over(predicted)
    assert training.baseline.nats_per_char < 0.2, "the text repeats itself"


def test_of_a_list_whole_documents_are_compared(tmp_path):
    names = [f"{first}{rest}" for first in "abcdefghij" for rest in ("nn", "r", "tt", "ll", "x")]
    (tmp_path / "names.txt").write_text("\n".join([*names, "mary", "john"]))
    artifact, _ = train_and_export(
        tmp_path / "names.txt", tmp_path / "names.onnx", None, steps=40,
        reading=Reading(holdout="spread"), **SMALL
    )  # fmt: skip
    corpus = load_corpus(tmp_path / "names.txt", Reading(holdout="spread"))
    model = load_checkpoint(RunFolder(tmp_path / "names.onnx").checkpoint).model
    length = max(map(len, names)) + 1
    options = SamplingOptions(temperature=0.8, seed=0)
    end = corpus.vocabulary.end_token
    rows = write_pieces(model, corpus, 1000, options, length + 1).tolist()
    texts = [
        corpus.vocabulary.decode(row[: row.index(end) if end in row else None]) for row in rows
    ]
    samples = artifact.training.samples
    assert (samples.count, artifact.training.split.documents) == (1000, "lines")
    corpus_names = [*names, "mary", "john"]
    assert samples.share_in_corpus == sum(text in corpus_names for text in texts) / 1000
    assert 0 < samples.share_in_corpus < 1
    assert samples.share_of_doubles == 1 - len(set(texts)) / 1000
    # the n-gram predicts each character and end of the held-out names, and nothing across them
    yardstick = measure_yardstick(corpus, Recipe(steps=1))
    assert len(yardstick.nats) == len(corpus.validation)
    assert artifact.training.baseline == yardstick.over(len(yardstick.nats))


def test_less_is_counted_where_there_is_little_time(finished):
    corpus = load_corpus(finished[1])
    assert "on" not in measure_yardstick(corpus, Recipe(minutes=1.0)).method.split()
    assert "on 9,984 characters" in measure_yardstick(corpus, Recipe(minutes=0.01)).method


def test_a_text_of_which_nothing_is_held_out_has_no_yardstick(tmp_path):
    (tmp_path / "short.txt").write_text("hello world")
    assert measure_yardstick(load_corpus(tmp_path / "short.txt"), Recipe(steps=1)) is None


def test_the_record_says_how_many_texts_stand_in_the_corpus(finished, training):
    corpus = load_corpus(finished[1])
    model = load_checkpoint(finished[0].checkpoint).model
    pieces = write_pieces(model, corpus, 1000, SamplingOptions(temperature=0.8, seed=0))
    texts = [corpus.vocabulary.decode(piece) for piece in pieces]
    assert {len(text) for text in texts} == {40}
    assert training.samples.count == len(texts)
    assert training.samples.share_in_corpus == sum(text in TIMES for text in texts) / 1000
    assert training.samples.share_of_doubles == 1 - len(set(texts)) / 1000


def test_a_text_that_was_learnt_by_heart_is_found_wherever_it_stands(monkeypatch):
    """At the ends, across the seams of what is looked through at a time, and again and again."""
    monkeypatch.setattr(comparison, "_LOOKED_THROUGH", 64)
    rng = np.random.default_rng(0)
    text = rng.integers(0, 3, 1_000).astype(np.uint8)
    text[500:700] = 2
    whole = text.tobytes()
    for length in (1, 4, 7, 40, 200, 1_000):
        begins = {0, 1, 63, 64, 65, 500, 999} | set(range(0, 1_000, 97))
        pieces = [text[b : b + length] for b in begins if b + length <= 1_000]
        pieces += [
            np.where(np.arange(length) == place, 1 - one % 2, one)
            for one in pieces
            for place in (0, length // 2, length - 1)
        ]
        pieces = np.unique(np.stack(pieces), axis=0).astype(np.int64)
        expected = [piece.astype(np.uint8).tobytes() in whole for piece in pieces]
        assert stand_in(text, pieces).tolist() == expected
        assert True in expected
    assert not stand_in(text[:3], pieces).any(), "a text that is longer than the corpus"


def test_texts_of_any_length_are_counted_each_and_doubles_beside():
    """As documents will be: with the end token around, a whole line is found and a part is not."""
    end, lines = 9, [[1, 2, 3], [4], [1, 2, 4]]
    text = np.array([end, *(t for line in lines for t in (*line, end))])
    samples = [np.array([end, *s, end]) for s in ([1, 2, 3], [4], [2, 3], [4], [7], [2, 3])]
    facts = sample_facts(text, samples)
    assert (facts.count, facts.share_in_corpus) == (6, 0.5)
    assert facts.share_of_doubles == pytest.approx(2 / 6)


def test_the_same_seed_gives_the_same_texts_and_another_gives_others(finished, monkeypatch):
    corpus, model = load_corpus(finished[1]), load_checkpoint(finished[0].checkpoint).model
    one, same, other = (
        write_pieces(model, corpus, 20, SamplingOptions(seed=seed), 8) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    monkeypatch.setattr(comparison, "_LOGITS_AT_ONCE", 7 * len(corpus.vocabulary))
    few_at_once = write_pieces(model, corpus, 20, SamplingOptions(seed=1), 8)
    assert np.array_equal(one, few_at_once)


def test_little_time_makes_the_samples_fewer_and_they_have_their_time(finished, monkeypatch):
    corpus = load_corpus(finished[1])
    assert plan_samples(corpus, replace(Recipe(steps=1), hidden_size=16)) == (1000, 0.0)
    small = Recipe(minutes=60.0, hidden_size=16)
    count, seconds = plan_samples(corpus, small)
    assert count == 1000
    assert 0 < seconds < 30
    monkeypatch.setattr(comparison, "SAMPLE_SHARE", 1e-6)
    assert plan_samples(corpus, small)[0] == 100


def test_terminal_report_and_info_say_it_in_the_same_sentences(finished, training):
    folder, _, shown = finished
    said = dict(describe_comparisons(training))
    assert said["yardstick"] == (
        f"on the same text an n-gram reaches {training.baseline.nats_per_char:.4f} nats, this "
        f"model {training.validation.nats_per_char:.4f} (modified Kneser-Ney, order "
        f"{training.baseline.order})"
    )
    info, report = dict(describe_training(training)), folder.report.read_text()
    for label, sentence in said.items():
        assert f"{label:<11} {sentence}\n" in shown
        assert info[label] == sentence
        assert f"<p>{sentence[0].upper()}{sentence[1:]}.</p>" in report


def test_what_a_checkpoint_is_exported_to_says_the_same(finished, training):
    folder, corpus, _ = finished
    saved = load_checkpoint(folder.checkpoint)
    artifact = artifact_of_checkpoint(saved, corpus_of_checkpoint(saved, corpus))
    assert artifact.training == training

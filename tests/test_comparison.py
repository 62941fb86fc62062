"""What a finished model is held against, and that everyone is told in the same words."""

import io

import pytest

from chargen_export.display import Display
from chargen_export.pipeline import artifact_of_checkpoint, train_and_export
from chargen_ort import read_artifact
from chargen_ort.reports import describe_comparisons, describe_training
from chargen_train.checkpoint import load_checkpoint
from chargen_train.comparison import measure_yardstick
from chargen_train.corpus import load_corpus
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
    yardstick = measure_yardstick(load_corpus(finished[1]), Recipe(steps=1))
    predicted = training.validation.characters - 1
    assert len(yardstick.nats) == predicted
    assert training.baseline == yardstick.over(predicted)
    assert training.baseline.nats_per_char < 0.1, "the text repeats itself"


def test_less_is_counted_where_there_is_little_time(finished):
    corpus = load_corpus(finished[1])
    assert "on" not in measure_yardstick(corpus, Recipe(minutes=1.0)).method.split()
    assert "on 9,984 characters" in measure_yardstick(corpus, Recipe(minutes=0.01)).method


def test_a_text_of_which_nothing_is_held_out_has_no_yardstick(tmp_path):
    (tmp_path / "short.txt").write_text("hello world")
    assert measure_yardstick(load_corpus(tmp_path / "short.txt"), Recipe(steps=1)) is None


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
    artifact = artifact_of_checkpoint(load_checkpoint(folder.checkpoint), corpus)
    assert artifact.training == training

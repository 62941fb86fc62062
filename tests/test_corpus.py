"""A corpus from any file that is a text, with little more memory than its tokens."""

import gzip
import io
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_export.display import Display
from chargen_ort import CorpusError
from chargen_ort.models import DEMO_MODEL
from chargen_ort.vocabulary import Vocabulary
from chargen_train import collecting, ids
from chargen_train.corpus import load_corpus
from chargen_train.planning import make_plan
from chargen_train.reading import Reading
from chargen_train.recipe import LESSON
from chargen_train.run_folder import RunFolder
from tests.conftest import random_model


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=2)
)
def test_the_tokens_are_those_of_the_vocabulary(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("c") / "c.txt"
    path.write_text(text)
    corpus = load_corpus(path, Reading("none"))
    assert corpus.vocabulary == Vocabulary("".join(sorted(set(text))))
    assert corpus.tokens.tolist() == corpus.vocabulary.encode(text).tolist()


@pytest.mark.parametrize(("distinct", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_tokens_widen_while_they_are_collected(tmp_path, distinct, dtype, monkeypatch):
    monkeypatch.setattr(collecting, "PIECE", 7)
    monkeypatch.setattr(ids, "PIECE", 5)
    text = "".join(map(chr, range(0x4E00 + distinct - 1, 0x4E00 - 1, -1))) * 2
    (tmp_path / "c.txt").write_text(text)
    corpus = load_corpus(tmp_path / "c.txt")
    assert corpus.tokens.dtype == dtype
    assert corpus.vocabulary.decode(corpus.tokens) == text


def test_the_counts_are_those_of_the_characters(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("hello world")
    corpus = load_corpus(path)
    expected = [corpus.vocabulary.decode(corpus.tokens).count(c) for c in " dehlorw"]
    assert corpus.counts.tolist() == expected


@pytest.mark.parametrize("name", ["names.txt", "names.txt.gz", "names.gz", "names.GZ", "names"])
def test_the_name_has_neither_its_suffix_nor_that_of_gzip(tmp_path, name):
    data = b"hello\rworld"
    path = tmp_path / name
    packed = name.lower().endswith("gz")
    path.write_bytes(gzip.compress(data) if packed else data)
    corpus = load_corpus(path)
    assert corpus.name == "names"
    assert corpus.vocabulary.decode(corpus.tokens) == "hello\nworld"
    note = "1 CR line end read as a line end"
    assert corpus.notes == (f"unpacked from gzip, {note}" if packed else note,)


def test_nothing_packed_is_an_empty_corpus(tmp_path):
    path = tmp_path / "names.txt.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(CorpusError, match="is empty; a corpus needs at least 2 characters"):
        load_corpus(path)


def test_a_corpus_needs_little_more_memory_than_its_tokens(tmp_path):
    characters = 18_000_000
    path = tmp_path / "c.txt"
    path.write_bytes(b"hello wor" * (characters // 9))
    model = random_model(vocab_size=7)
    folder = RunFolder(tmp_path / "m.onnx")
    folder.path.mkdir()
    peaks, timed = [], replace(LESSON, steps=None, minutes=1.0)
    tracemalloc.start()
    try:
        corpus = load_corpus(path)
        for use in (
            lambda: None,
            lambda: folder.begin(corpus, LESSON),
            lambda: make_plan(model, corpus, timed, 0.0),
        ):
            use()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert len(corpus) == characters
    loading, describing, planning = (peak - 1.15 * characters for peak in peaks)
    assert loading < 20e6  # a piece as bytes, text, code points and numbers
    assert describing < 10e6  # a piece as int64
    assert planning < 2e6


def test_too_little_memory_for_the_tokens_is_one_line(tmp_path, monkeypatch):
    def append(store, numbers):
        raise MemoryError

    monkeypatch.setattr(ids.TokenStore, "append", append)
    (tmp_path / "c.txt").write_text("hello")
    with pytest.raises(CorpusError, match=r"not enough memory to read .*c.txt \(5 bytes\)"):
        load_corpus(tmp_path / "c.txt")


def test_train_export_says_what_it_changed(tmp_path):
    path = tmp_path / "names.txt.gz"
    path.write_bytes(gzip.compress("hello\r\nworld\r\n".encode("utf-16")))
    shown = io.StringIO()
    Display(shown).on_begin(load_corpus(path), LESSON)
    note = "unpacked from gzip, read as UTF-16LE, 2 CR LF line ends read as line ends"
    assert f"note        {note}\n" in shown.getvalue()


@pytest.mark.parametrize("arguments", [["score", "-"], ["score", "t.txt"], ["--start", "-"]])
def test_chargen_ort_reads_as_train_export_does(tmp_path, arguments):
    data = gzip.compress("hello\rworld".encode("utf-16"))
    (tmp_path / "t.txt").write_bytes(data)
    line = [sys.executable, "-c", "from chargen_ort.cli import main; main()", *arguments]
    line += ["--model", str(DEMO_MODEL)]
    result = subprocess.run(line, cwd=tmp_path, input=data, capture_output=True, check=False)
    assert b"note: unpacked from gzip, read as UTF-16LE, 1 CR line end read" in result.stderr

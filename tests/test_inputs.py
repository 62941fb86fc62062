"""A corpus of several files, of folders and from standard input; and one too large for memory."""

import gzip
import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_export.convert import convert
from chargen_export.display import Display
from chargen_export.pipeline import train_and_export
from chargen_ort import CorpusError, OptionError, text
from chargen_ort.documents import cut_documents
from chargen_train import collecting, comparison, ids
from chargen_train.checkpoint import load_checkpoint
from chargen_train.corpus import load_corpus
from chargen_train.events import TrainingStoppedError
from chargen_train.ids import TokenStore, load_tokens
from chargen_train.inputs import STDIN, combined_sha256
from chargen_train.reading import Reading, end_at_blank_lines
from chargen_train.run_folder import RunFolder
from tests.conftest import SMALL, TIMES, assert_refused, observing, run_here


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of a folder, given by their paths and bytes, or their texts."""
    monkeypatch.chdir(tmp_path)

    def make(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return make


@pytest.fixture
def tiny_pieces(monkeypatch):
    """Everything is done in pieces of a few bytes and tokens, and lies in a file."""

    def set_sizes(size, in_memory=0):
        monkeypatch.setattr(
            text.TextReader.__init__, "__defaults__", (None, size, b"", None, False)
        )
        monkeypatch.setattr(ids, "PIECE", size)
        monkeypatch.setattr(collecting, "PIECE", size)
        monkeypatch.setattr(ids, "IN_MEMORY", in_memory)

    return set_sizes


def text_of(corpus):
    """Its text, a bar in the place of each end token."""
    letters = [*corpus.vocabulary.characters, "|"]
    return "".join(letters[token] for token in corpus.tokens)


# Which files, in which order


def test_a_folder_is_its_files_sorted_with_those_in_folders_but_not_what_is_hidden(folder):
    here = folder(a_txt="0\n", d__z_txt="3\n", d__b__c_txt="1\n", d__b__d_txt="2\n", d___x="x\n",
                  d___h__y_txt="y\n", e_txt="4\n")  # fmt: skip
    corpus = load_corpus([here / "a.txt", here / "d", here / "e.txt"])
    assert text_of(corpus) == "0\n1\n2\n3\n4\n"
    names = ["a.txt", "d/b/c.txt", "d/b/d.txt", "d/z.txt", "e.txt"]
    assert [each.name for each in corpus.sources] == names
    assert f"5 files in this order: {', '.join(names)}" in corpus.decision
    assert corpus.name == "a-and-2-more"


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("none", "ab\ncd\n\nef\ngh"),
        ("lines", "|ab|cd|ef|gh|"),
        ("blank", "|ab\ncd|ef|gh|"),
        ("files", "|ab\ncd\n\nef|gh|"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_files_are_joined_or_separated_as_documents_says(
    folder, tiny_pieces, documents, expected, size
):
    here = folder(a_txt=b"ab\r\ncd\n\nef", b_txt="gh")
    tiny_pieces(size)
    corpus = load_corpus([here / "a.txt", here / "b.txt"], Reading(documents, holdout="none"))
    assert text_of(corpus) == expected
    assert len(corpus) == len("ab\ncd\n\nefgh") + (documents in ("none", "lines"))


def test_a_table_of_several_files_has_its_column_in_each(folder):
    here = folder(a_csv="name,n\nx,1\n", b_csv="n,name\n2,y\n")
    corpus = load_corpus([here / "a.csv", here / "b.csv"], Reading(column="name", holdout="none"))
    assert text_of(corpus) == "|x|y|"


def test_packed_files_and_standard_input_stand_among_others(folder, monkeypatch):
    here = folder(a_txt="a\n", b_txt_gz=gzip.compress(b"b\n"))
    stream = io.TextIOWrapper(io.BytesIO("ü\n".encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    corpus = load_corpus([here / "a.txt", STDIN, here / "b.txt.gz"])
    assert text_of(corpus) == "a\nü\nb\n"
    assert [each.name for each in corpus.sources] == ["a.txt", "stdin", "b.txt.gz"]
    assert corpus.notes == (f"{here}/b.txt.gz: unpacked from gzip",)


def test_the_hash_of_several_files_is_that_of_the_list_that_sha256sum_prints(folder):
    here = folder(a_txt="one", b_txt="two")
    corpus = load_corpus([here / "a.txt", here / "b.txt"])
    line = "sha256sum a.txt b.txt | cut -c-64 | sha256sum | cut -c-64"
    shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert corpus.sha256 == shown.stdout.strip()
    assert combined_sha256(["x"]) == "x"
    assert load_corpus(here / "a.txt").sha256 == hashlib.sha256(b"one").hexdigest()


# What is refused, and what is left out


def test_bad_inputs_are_one_line_each(folder, monkeypatch):
    here = folder(a_txt="text", d___hidden="x", l_txt=b"caf\xe9 ol\xe9")
    os.symlink("a.txt", here / "link.txt")
    os.link(here / "a.txt", here / "hard.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text")))
    for names, message in {
        ("a.txt", "link.txt"): "link.txt is the same file as a.txt; give it once",
        ("a.txt", "hard.txt"): "hard.txt is the same file as a.txt; give it once",
        ("-", "-"): "standard input is given twice, and can be read once; give one -",
        ("d",): "d has no files (hidden ones are not read); give a text file",
        ("a.txt", "none.txt", "--skip-unreadable"): "no such file: none.txt",
        ("l.txt",): "give --encoding cp1252, or convert it with: iconv -f CP1252",
        ("a.txt", "--encoding", "idna"): "--encoding 'idna' is no encoding of text that Python",
        ("l.txt", "--encoding", "ascii"): "l.txt is not in ascii, as --encoding says: byte 0xe9 at",
        ("l.txt", "--encoding", "utf-16"): "l.txt is not in utf-16, as --encoding says: byte 0x63",
        (".", "--out", "m.onnx"): "cannot write m.onnx: it is in the folder ., which this command",
        ("a.txt", "--min-count", "0"): "min_count is 0",
    }.items():
        assert_refused(run_here("train-export", *names), message)
    assert not (here / "artifacts").exists()


def test_standard_input_of_a_terminal_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(CorpusError, match="standard input is a terminal; send a text into it"):
        load_corpus(STDIN)


def test_files_that_are_no_texts_are_all_named_or_left_out_if_asked_for(folder):
    late = ("a" * 70_000).encode() + b"\xff"  # what only reading it shows
    here = folder(d__a_txt="ab\n", d__b_png=b"\x89PNG\r\n\x1a\n\0", d__c_txt=b"x\0y", d__d_txt="ba",
                  d__e_txt=b"\xfc\xff", d__z_txt=late)  # fmt: skip
    with pytest.raises(CorpusError, match="give --skip-unreadable") as caught:
        load_corpus(here / "d")
    names = ", ".join(f"{here}/d/{name}" for name in ("b.png", "c.txt", "e.txt"))
    assert str(caught.value).startswith(f"{names}, of 6 files, cannot be read as text (b.png is a")
    corpus = load_corpus(here / "d", Reading(skip_unreadable=True))
    assert text_of(corpus) == "ab\nba"
    assert corpus.vocabulary.characters == "\nab"
    assert corpus.counts.tolist() == [1, 2, 2], "nothing of what was left out is counted"
    assert corpus.notes == (
        f"left out 4 of 6 files, which cannot be read as text: {names}, {here}/d/z.txt",
    )
    folder(e__a_png=b"\x89PNG\r\n\x1a\n\0", e__b_png=b"\x89PNG\r\n\x1a\n\0")
    with pytest.raises(CorpusError, match="none of the 2 files is a text"):
        load_corpus(here / "e", Reading(skip_unreadable=True))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "shift_jis", "utf-16"])
def test_other_encodings_are_read_where_they_are_named(folder, tiny_pieces, encoding):
    content = "naïve – café\n" if encoding == "cp1252" else "日本\r\nab\n"
    here = folder(a_txt=content.encode(encoding))
    tiny_pieces(1)
    corpus = load_corpus(here / "a.txt", Reading(encoding=encoding))
    assert text_of(corpus) == content.replace("\r", "")


def test_rare_characters_become_one_that_is_unknown(folder):
    here = folder(a_txt="aaabbbxyz")
    corpus = load_corpus(here / "a.txt", Reading("none", min_count=2))
    assert text_of(corpus) == "aaabbb\ufffd\ufffd\ufffd"
    vocabulary = corpus.vocabulary
    assert (vocabulary.unknown, vocabulary.replacement) == ("replace", "\ufffd")
    assert vocabulary.encode("aé").tolist() == [0, 2], "as any other character that is unknown"
    assert corpus.counts.tolist() == [3, 3, 3]
    assert "3 characters that stand there less than 2 times are read as one" in corpus.notes[0]
    assert load_corpus(here / "a.txt", Reading(min_count=1)).vocabulary.unknown == "error"


# In pieces, and in a file


BLANK = st.lists(st.sampled_from(["a", " ", "\t", "\n", "\n\n", "b\n", "\u2003"]), max_size=14)


@settings(deadline=None)
@given(BLANK)
def test_blank_lines_end_documents_in_any_pieces(pieces):
    found = "".join(end_at_blank_lines(pieces)).split("\0")
    assert [document for document in found if document] == list(cut_documents(pieces, "blank"))


@settings(deadline=None, max_examples=60)
@given(st.text("ab\n€\r", min_size=3, max_size=40), st.integers(1, 6), st.sampled_from(
    ["none", "lines", "blank", "files"]))  # fmt: skip
def test_a_file_of_tokens_is_what_memory_would_hold(tmp_path_factory, content, size, documents):
    here = tmp_path_factory.mktemp("c")
    (here / "a.txt").write_bytes(f"ab\n\n{content}\nba".encode())
    (here / "m.txt").write_bytes(b"ab\n\nba\n\na")
    reading = Reading(documents, holdout=str(here / "m.txt"))
    try:
        whole = load_corpus(here / "a.txt", reading)
    except CorpusError:  # one document
        return
    with pytest.MonkeyPatch.context() as patch, TokenStore(here / "x.run") as store:
        for module in (ids, collecting):
            patch.setattr(module, "PIECE", size)
        patch.setattr(ids, "IN_MEMORY", 0)
        corpus = load_corpus(here / "a.txt", reading, store)
        assert store.in_file
        assert corpus.tokens.tolist() == whole.tokens.tolist()
        assert corpus.validation.ranges.tolist() == whole.validation.ranges.tolist()
        assert (corpus.vocabulary, corpus.counts.tolist()) == (
            whole.vocabulary, whole.counts.tolist())  # fmt: skip
        ends = (whole.tokens == whole.vocabulary.end_token).sum()
        assert documents == "none" or whole.counts[-1] == ends
    assert list(here.glob(".*")) == [], "the file is gone with its context"


def test_the_file_says_what_it_is_of_and_a_damaged_one_is_not_read(folder, tiny_pieces):
    here = folder(a_txt=TIMES)
    tiny_pieces(1000)
    path = here / "corpus.ids"
    with TokenStore(here / "x.run") as store:
        corpus = load_corpus(here / "a.txt", store=store)
        store.keep(path)
    tokens, facts = load_tokens(path)
    assert np.array_equal(tokens, corpus.tokens)
    assert facts["sources"] == [
        {"name": "a.txt", "sha256": corpus.sha256, "characters": len(TIMES)}
    ]
    data = path.read_bytes()
    for damaged in (data[:-1], data[:50], b"", b"\1" + data[1:], data[:-5] + b"x" + data[-4:]):
        path.write_bytes(damaged)
        assert load_tokens(path) is None
    assert load_tokens(here / "none") is None


def test_a_store_that_cannot_be_written_is_one_line(folder, tiny_pieces):
    here = folder(a_txt=TIMES, file="")
    tiny_pieces(1000)
    with (
        pytest.raises(OptionError, match=r"cannot write .*; choose another --out"),
        TokenStore(here / "file" / "x.run") as store,
    ):
        load_corpus(here / "a.txt", store=store)


def test_a_terminal_shows_how_much_of_a_large_corpus_is_read(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    for is_terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer, raising=False)
        with Display(stream) as display:
            display.on_reading(1_000_000, 2_000_000)
            assert not stream.getvalue(), "it is read in no time"
            display.on_reading(30_000_000, 120_000_000)
        assert ("30 of 120 MB" in stream.getvalue()) == is_terminal


# A run


@pytest.fixture
def stopped(folder, tiny_pieces):
    """A run of two files and one that measures, in a file of tokens, which was stopped."""
    here = folder(a_txt=TIMES, b_txt="it was the age of wisdom", m_txt="it was the best of times")
    tiny_pieces(4096)
    after = iter([False, False, True])
    with pytest.raises(TrainingStoppedError):
        train_and_export(
            [here / "a.txt", here / "b.txt"], here / "x.onnx", None,
            observing(should_stop=lambda: next(after)), reading=Reading(holdout="m.txt"), steps=6,
            **SMALL,
        )  # fmt: skip
    return here


def test_a_run_that_is_resumed_uses_the_tokens_that_are_there(stopped, monkeypatch):
    here, folder = stopped, RunFolder(stopped / "x.onnx")
    assert folder.ids.exists()
    assert [each.name for each in load_checkpoint(folder.checkpoint).sources] == ["a.txt", "b.txt"]

    def collect(*arguments):
        raise AssertionError("the texts were read again")

    with monkeypatch.context() as patch:
        patch.setattr("chargen_train.corpus.collect", collect)
        texts = [here / "a.txt", here / "b.txt"]
        artifact, _ = train_and_export(texts, here / "x.onnx", resume=True)
    assert not folder.ids.exists(), "it is as large as the corpus, and no longer needed"
    assert [each.name for each in artifact.training.corpora] == ["a.txt", "b.txt"]
    [(made, _)] = convert(folder.checkpoint, "fp32", texts, here / "again.onnx")
    assert made.data[: 1 << 10] == artifact.data[: 1 << 10]
    # another corpus of the same name is not replaced
    (here / "b.txt").write_text("something else")
    with pytest.raises(OptionError, match=r"holds the \w+ of another corpus, a.txt, b.txt"):
        train_and_export(texts, here / "x.onnx", steps=1, **SMALL)


def test_damaged_tokens_are_made_anew(stopped):
    path = RunFolder(stopped / "x.onnx").ids
    path.write_bytes(path.read_bytes()[:-1])
    train_and_export([stopped / "a.txt", stopped / "b.txt"], stopped / "x.onnx", resume=True)


def test_every_file_must_be_the_same_to_go_on(stopped):
    texts, out = [stopped / "a.txt", stopped / "b.txt"], stopped / "x.onnx"
    for names, message in (
        (texts[::-1], "the run read a corpus with SHA-256 .* this one, b.txt, has"),
        (texts[:1], "the run read a corpus of 2 files, this one has 1; give the same files"),
    ):
        with pytest.raises(OptionError, match=message):
            train_and_export(names, out, resume=True)
    (stopped / "m.txt").write_text("it was the worst of times")
    with pytest.raises(OptionError, match="the same --holdout file, or leave --resume out"):
        train_and_export(texts, out, resume=True)


def test_no_input_is_written_over(folder):
    here = folder(a_txt=TIMES, d__b_onnx=TIMES)
    os.symlink(here / "d", here / "link")
    for out in ("d/b.onnx", "link/b.onnx", "d/x.onnx"):
        result = run_here("train-export", "a.txt", "d", "--out", out)
        assert_refused(result, f"cannot write {out}: it is in the folder d")
        result = run_here("train-export", "a.txt", "d/b.onnx", "--out", out)
        if out != "d/x.onnx":
            assert_refused(result, f"cannot write {out}: it is the file d/b.onnx")


def test_a_long_corpus_is_looked_through_in_blocks_and_the_record_says_how_much(monkeypatch):
    rng = np.random.default_rng(0)
    corpus = rng.integers(0, 4, 1 << 16).astype(np.uint8)
    for name, value in (("_LOOKED_THROUGH", 1 << 8), ("MOST_SEARCHED", 1 << 12)):
        monkeypatch.setattr(comparison, name, value)
    samples = [corpus[at : at + 40].astype(np.int64) for at in range(0, 1 << 16, 1 << 8)]
    facts = comparison.sample_facts(corpus, samples)
    assert facts.searched == facts.share_in_corpus == 1 / 16

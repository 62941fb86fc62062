"""How a corpus is read into documents, and which part of it measures the model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from chargen_export.cli import app
from chargen_export.pipeline import train_and_export
from chargen_ort import CorpusError, OptionError
from chargen_ort.documents import cut_documents
from chargen_ort.vocabulary import Vocabulary
from chargen_train import list_split
from chargen_train import ranges as ranges_module
from chargen_train import split as split_module
from chargen_train.choosing import choose_recipe
from chargen_train.corpus import load_corpus
from chargen_train.cutting import DocumentEnds
from chargen_train.device import choose_device
from chargen_train.evaluate import measure_losses
from chargen_train.ranges import document_ranges, hash_ranges
from chargen_train.reading import Reading
from chargen_train.recipe import Recipe
from chargen_train.split import Part, Passages, split_text
from chargen_train.windows import DocumentWindows, batches_of
from tests.conftest import random_model

CPU = choose_device("cpu")
WORDS = ["green", "blue", "red", "cloud", "river", "stone"]


def words(count, seed=0, of=WORDS):
    return " ".join(np.random.default_rng(seed).choice(of, count))


@pytest.fixture
def corpus_of(tmp_path):
    def load(text, *reading, name="c.txt", **options):
        (tmp_path / name).write_text(text)
        return load_corpus(tmp_path / name, Reading(*reading, **options))

    return load


def documents_of(corpus, part):
    return [corpus.vocabulary.decode(corpus.tokens[a : b - 1]) for a, b in part.ranges]


NUMBERED = [f"name {i}" for i in range(1_500)]


# What a document is


def test_a_list_of_lines_is_recognised_and_said_so(corpus_of):
    corpus = corpus_of("\n".join(NUMBERED))
    assert corpus.documents == "lines"
    assert corpus.decision == (
        "each line is a document: there are 1,500, none blank, 100% of them different, none longer "
        "than 9 characters"
    )
    assert corpus.document_count == 1_500
    assert "\n" not in corpus.vocabulary.characters
    assert corpus.vocabulary.end


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (NUMBERED[:49], "it has 49 lines, and a list has at least 50"),
        ([*NUMBERED[:60], "", "x"], "1 of its 62 lines are blank"),
        ([*NUMBERED[:60], "x" * 513], "one of its lines has 513 characters, more than 512"),
        (NUMBERED[:44] * 2, "only 50% of its lines are different"),
    ],
)
def test_other_texts_run_on_and_say_why(corpus_of, lines, why):
    corpus = corpus_of("\n".join(lines))
    assert corpus.decision == f"the text runs on, no list of lines: {why}"
    assert (corpus.documents, corpus.document_count) == ("none", 0)
    assert corpus.vocabulary.decode(corpus.tokens) == "\n".join(lines)


def test_the_option_decides_where_it_is_given(corpus_of):
    text = "\n".join(NUMBERED)
    assert corpus_of(text, "none").decision == "the text runs on, as --documents says"
    assert not corpus_of(text, "none").vocabulary.end
    short = corpus_of("ab\n\n\nab\ncd", "lines")
    assert documents_of(short, short.training) == ["ab", "ab", "cd"]
    blank = corpus_of("\n\nab\ncd\n \t\nef\n\n", "blank")
    assert documents_of(blank, blank.training) == ["ab\ncd", "ef"]


PIECES = st.lists(st.sampled_from(["a", "b", "\n", "\n\n", "ab\n"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(PIECES)
def test_tokens_are_cut_as_text_is_in_any_pieces(pieces):
    pieces, letters, end = [*pieces, "a\n"], "ab", 2
    ends, text = DocumentEnds(end), "".join(pieces)
    tokens = [Vocabulary("ab\n").encode(piece) for piece in pieces]
    ended = np.concatenate([ends.feed(each) for each in tokens])
    assert ends.count == (ended == end).sum()
    ranges = document_ranges(ended, end)
    found = ["".join(letters[t] for t in ended[a : b - 1]) for a, b in ranges]
    assert found == list(cut_documents([text], "lines"))
    assert all(ended[a - 1] == ended[b - 1] == end for a, b in ranges)


def test_tokens_as_wide_as_they_can_be_still_have_room_for_the_end(corpus_of):
    lines = [chr(0x4E00 + i) * 2 for i in range(255)]
    corpus = corpus_of("\n".join(lines), "lines", holdout="none")
    assert (corpus.tokens.dtype, corpus.vocabulary.end_token) == (np.uint8, 255)
    assert documents_of(corpus, corpus.training) == lines


# Columns


def test_each_value_of_a_column_is_a_document(corpus_of):
    table = 'id,"the name",n\n1,"a, b",x\n2,"c\nd",y\n3,,z\n4\n'
    for column in ("the name", "2"):
        corpus = corpus_of(table, column=column, name="t.csv")
        expected = ["a, b", "c\nd"] if column != "2" else ["the name", "a, b", "c\nd"]
        assert documents_of(corpus, corpus.training) == expected
        assert corpus.decision == f"each value of the column {column} is a document"
        assert corpus.notes == ("left out 1 lines that are too short to have the column",)
    tabs = corpus_of("a\tb\nx\ty,1\nx\tz,2\n", column="b", name="t.tsv")
    assert documents_of(tabs, tabs.training) == ["y,1", "z,2"]


# What is held out


def test_equal_documents_are_on_one_side_and_a_tenth_of_the_different_ones_measures(corpus_of):
    lines = NUMBERED + NUMBERED[::10]
    one, other = corpus_of("\n".join(lines)), corpus_of("\n".join(sorted(lines, reverse=True)))
    training, validation = (documents_of(one, part) for part in (one.training, one.validation))
    assert len(set(validation)) == 150
    assert not set(training) & set(validation)
    assert sorted(training + validation) == sorted(lines)
    assert documents_of(other, other.validation) == validation, "whatever their order"


def test_equal_ranges_and_no_others_have_equal_hashes(monkeypatch):
    texts = ["a", "b", "ab", "ba", "aab", "a", "aab", "ab"]
    tokens = Vocabulary("ab\n").encode("".join(f"{text}\n" for text in texts))
    ended = DocumentEnds(2).feed(tokens)
    ranges = document_ranges(ended, 2) - np.array([0, 1])
    whole = hash_ranges(ended, ranges, "ab")
    for i, text in enumerate(texts):
        assert [texts[j] for j in np.flatnonzero(whole == whole[i])] == [text] * texts.count(text)
    monkeypatch.setattr(ranges_module, "_AT_ONCE", 4)  # a few at a time
    assert hash_ranges(ended, ranges, "ab").tolist() == whole.tolist()


@pytest.fixture
def long_list(corpus_of, monkeypatch):
    """A list with twice as many lines as may be ranges of their own; some stand there again."""

    def make(most, lines=tuple(NUMBERED + NUMBERED[::10]), **options):
        monkeypatch.setattr(list_split, "_MOST", most)
        monkeypatch.setattr(list_split, "_MOST_HELD_OUT", round(0.1 * most))
        return corpus_of("\n".join(lines), **options), list(lines)

    return make


def single(part):
    """The documents of a part, of which several may share a range."""
    end = int(part.tokens[part.ranges[0, 0] - 1])
    return bytes(np.asarray(part[:])).split(bytes([end]))[:-1]


@pytest.mark.parametrize("most", [50, 700, 825])
def test_neighbours_share_a_range_where_a_list_is_long(long_list, corpus_of, most):
    corpus, lines = long_list(most)
    training, validation = corpus.training, corpus.validation
    held_out = documents_of(corpus, validation)
    assert len(set(held_out)) == round(0.1 * most), "as many as of a list of so many"
    assert len(validation.ranges) == validation.documents == len(held_out)
    encoded = [bytes(corpus.vocabulary.encode(line).astype(np.uint8)) for line in lines]
    left = [text for line, text in zip(lines, encoded, strict=True) if line not in set(held_out)]
    assert single(training) == left, "in the order of the list, all and no other"
    assert training.documents == len(left)
    assert training.characters == sum(map(len, left))
    assert len(training.ranges) <= most + 2 * len(held_out) + 1 < len(left)
    assert corpus.document_count == len(lines)
    assert {int(training.tokens[a - 1]) for a, _ in training.ranges} == {
        corpus.vocabulary.end_token
    }


def test_a_long_list_holds_out_the_first_of_what_a_short_one_does(long_list):
    short, _ = long_list(2_000)
    long, _ = long_list(400)
    expected = documents_of(short, short.validation)
    assert len(set(expected)) == 150
    some = documents_of(long, long.validation)
    assert len(set(some)) == 40
    assert some == expected[: len(some)]


def test_the_tail_of_a_long_list_has_a_bound_and_nothing_may_be_held_out(long_list):
    corpus, lines = long_list(400, holdout="tail")
    assert documents_of(corpus, corpus.validation) == lines[-40:]
    assert corpus.training.documents == len(lines) - 40
    corpus, lines = long_list(400, holdout="none")
    assert (corpus.training.documents, len(corpus.validation)) == (len(lines), 0)
    assert len(corpus.training.ranges) == -(-len(lines) // 5)


def test_what_is_measured_of_a_long_list_is_single_documents(long_list):
    corpus, lines = long_list(400, holdout="none")
    seven = sum(len(line) + 1 for line in lines[:7])
    for length in (1, seven - 1, seven):
        head = corpus.training.head(length)
        expected = lines[:1] if length == 1 else lines[:7]
        assert documents_of(corpus, head) == expected
        assert head.documents == len(expected)
        assert documents_of(corpus, corpus.training.head(length)) == expected
        copied = corpus.training.measured(length)
        assert [corpus.vocabulary.decode(copied.tokens[a : b - 1]) for a, b in copied.ranges] == (
            expected
        )
    assert len(corpus.training.passages()) == len(lines)


def test_an_epoch_of_a_long_list_has_every_document_once(long_list):
    corpus, _ = long_list(400)
    part = corpus.training
    windows = batches_of(part, Recipe(steps=1, batch_size=1, seq_length=8), CPU)
    read = [
        token for _ in range(len(part) // 8) for token in windows.next().token.flatten().tolist()
    ]
    documents = bytes(read).split(bytes([corpus.vocabulary.end_token]))[1:-1]
    texts = sorted(single(part))
    assert len(texts) - len(documents) <= 2, "all but what the last window cuts"
    assert not set(documents) - set(texts)
    assert documents != single(part)[: len(documents)], "in another order"


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab", "bbb"]), min_size=2, max_size=40),
    st.integers(1, 12),
    st.sampled_from(["tail", "spread", "none"]),
)
def test_any_list_is_split_without_loss(texts, most, holdout):
    tokens = DocumentEnds(2).feed(Vocabulary("ab\n").encode("".join(f"{t}\n" for t in texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_split, "_MOST", most)
        patch.setattr(list_split, "_MOST_HELD_OUT", max(1, round(0.3 * most)))
        listing = list_split.read_list(tokens.astype(np.uint8), 2, "ab")
        assert listing.different == min(len(set(texts)), most)
        training, validation = listing.split(holdout)
    assert listing.count == len(texts) == training.documents + validation.documents
    ranges = sorted([*training.ranges.tolist(), *validation.ranges.tolist()])
    assert [1, *(end for _, end in ranges)] == [*(begin for begin, _ in ranges), len(tokens)]
    assert len(validation.ranges) == validation.documents
    kept, held_out = (
        set(bytes(part[:]).split(b"\2")[:-1]) if len(part) else set()
        for part in (training, validation)
    )
    assert holdout == "tail" or not kept & held_out


def test_running_text_is_held_out_in_blocks_spread_over_it(corpus_of):
    text = words(3_000)
    corpus = corpus_of(text)
    ranges = corpus.validation.ranges
    assert len(ranges) == 20
    assert len(corpus.validation) == len(text) - int(0.9 * len(text))
    assert [int(a * 20 // len(text)) for a, _ in ranges] == list(range(20)), "one a twentieth"
    both = [*corpus.training.ranges.tolist(), *ranges.tolist()]
    assert "".join(text[a:b] for a, b in sorted(both)) == text
    joined = "".join(text[a:b] for a, b in corpus.training.ranges)
    assert corpus.vocabulary.decode(corpus.training[:]) == joined
    for begin, end in ((0, 5), (400, 700), (1_000, 5_000), (len(joined) - 3, len(joined) + 9)):
        assert corpus.vocabulary.decode(corpus.training[begin:end]) == joined[begin:end]


def test_the_first_passages_come_from_all_blocks(corpus_of):
    corpus = corpus_of(words(12_000))
    passages = corpus.validation.passages()
    first = passages.head(20 * 256)
    assert len({int(a * 20 // len(corpus)) for a, _ in first.ranges}) == 20
    assert passages.predicted == len(corpus.validation) - 20  # all but the first of each block


@pytest.mark.parametrize("length", [2, 9, 19, 20, 21, 399, 400, 12_345])
@pytest.mark.parametrize("holdout", ["tail", "spread"])
def test_any_length_is_split_without_loss(length, holdout):
    training, validation = split_text(length, holdout)
    places = np.concatenate([np.arange(a, b) for a, b in [*training, *validation]])
    assert sorted(places.tolist()) == list(range(length))


def test_the_tail_is_the_last_tenth(corpus_of):
    text = words(3_000)
    corpus = corpus_of(text, holdout="tail")
    assert corpus.vocabulary.decode(corpus.validation[:]) == text[int(0.9 * len(text)) :]
    names = corpus_of("\n".join(NUMBERED), holdout="tail")
    assert documents_of(names, names.validation) == NUMBERED[1_350:]


def test_another_file_measures_and_is_no_part_of_the_corpus(corpus_of, tmp_path):
    (tmp_path / "valid.txt").write_text("name x\nname y")
    valid = str(tmp_path / "valid.txt")
    corpus = corpus_of("\n".join(NUMBERED), holdout=valid)
    assert documents_of(corpus, corpus.training) == NUMBERED
    assert documents_of(corpus, corpus.validation) == ["name x", "name y"]
    assert (corpus.document_count, len(corpus)) == (1_500, len("\n".join(NUMBERED)))
    text = corpus_of(words(3_000), holdout=valid)
    assert text.vocabulary.decode(text.validation[:]) == "name x\nname y"
    with pytest.raises(CorpusError, match="no such file"):
        corpus_of("\n".join(NUMBERED), holdout="no.txt")


@pytest.mark.parametrize("text", [words(100), "\n".join(NUMBERED[:60])])
def test_of_a_short_corpus_nothing_is_held_out_unless_asked(corpus_of, text):
    assert len(corpus_of(text).validation) == 0
    assert corpus_of(text).reading.holdout == "none"
    assert len(corpus_of(text, holdout="spread").validation) > 0
    assert len(corpus_of(text * 100, holdout="none").validation) == 0


def test_a_tail_unlike_the_rest_is_told_of_before_training(corpus_of):
    greek = words(300, of=["αβγ", "δε", "ζηθ"])
    text = words(2_200) + "\n" + greek
    [warning] = corpus_of(text, holdout="tail").warnings
    assert "of the held-out characters stand nowhere in the text that is trained on" in warning
    assert warning.endswith("--holdout spread holds out parts of the whole text")
    assert corpus_of(text).warnings == ()
    same_letters = words(2_200) + " " + words(400, of=["neerg", "eulb", "duolc", "revir"])
    [warning] = corpus_of(same_letters, holdout="tail").warnings
    assert "by the frequencies of pairs of characters it costs" in warning
    assert corpus_of(same_letters).warnings == ()
    assert corpus_of(words(2_600), holdout="tail").warnings == ()


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--column", "who"], "c.txt has no column who; its first line has 2: a, b; give --column"),
        (["--column", "3"], "has no column 3; its first line has 2"),
        (["--column", "a", "--documents", "blank"], "--column makes each value a document, and"),
        (["--documents", "blank"], "is one document with --documents blank; give --documents none"),
        (["--documents", "files"], "is one document with --documents files"),
        (["--holdout", "no.txt"], "no such file: no.txt"),
        (["--holdout", ""], "--holdout is empty"),
        (["--documents", "words"], "Invalid value for '--documents'"),
    ],
)
def test_what_cannot_be_read_so_is_one_line(tmp_path, monkeypatch, options, message):
    (tmp_path / "c.txt").write_text("a,b\n1,2\n3,4\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["c.txt", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "artifacts").exists()


def test_a_part_that_would_be_empty_is_refused(corpus_of):
    for text, reading in (("aaa\naaa\naaa", ("lines",)), ("abcdefgh", ("none",))):
        with pytest.raises(CorpusError, match=r"--holdout spread would leave .* --holdout none"):
            corpus_of(text, *reading, holdout="spread")
    with pytest.raises(OptionError, match="documents is words; give auto, none, lines"):
        Reading("words")


def test_the_text_that_measures_is_never_written_over(tmp_path):
    (tmp_path / "c.txt").write_text(words(100))
    (tmp_path / "v.onnx").write_text("a held-out text")
    reading = Reading(holdout=str(tmp_path / "v.onnx"))
    with pytest.raises(OptionError, match=r"v\.onnx"):
        train_and_export(tmp_path / "c.txt", tmp_path / "v.onnx", overwrite=True, reading=reading)


# Batches


def ragged(count, low, high, seed=0):
    """A part of documents whose lengths are anything from `low` to `high`; token 1 ends them."""
    sizes = np.random.default_rng(seed).integers(low, high + 1, count) + 1
    edges = np.append(1, 1 + np.cumsum(sizes))
    tokens = np.random.default_rng(seed).integers(2, 9, edges[-1]).astype(np.uint8)
    tokens[edges - 1] = 1
    return Part(tokens, np.stack([edges[:-1], edges[1:]], axis=1), documents=True)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(30_000, 2, 15), (1_750, 2, 15), (300, 1, 512), (50, 1, 512)]
)
def test_less_than_a_tenth_of_the_steps_is_lost_on_ragged_lines(count, low, high):
    part = ragged(count, low, high)
    recipe = choose_recipe(part.characters, documents=count, steps=1)
    windows = DocumentWindows(part, recipe, CPU)
    assert windows.lost < 0.1
    learnt = sum(int((windows.next().target >= 0).sum()) for _ in range(int(windows.per_epoch)))
    assert learnt > 0.85 * len(part)


def test_documents_are_read_whole_in_a_new_order_each_epoch():
    part = ragged(64, 1, 30)
    windows = batches_of(part, Recipe(steps=1, batch_size=2, seq_length=8), CPU)
    written = {part.tokens[a : b - 1].tobytes() for a, b in part.ranges}
    epochs = []
    for _ in range(2):
        columns = [[], []]
        for index in range(len(part) // 16):
            batch = windows.next()
            assert batch.keep.flatten().tolist() == [float(index > 0)] * 2
            assert torch.equal(batch.begins, batch.token == 1)
            learnt = batch.target[:, :-1] >= 0
            assert torch.equal(batch.token[:, 1:][learnt], batch.target[:, :-1][learnt])
            for column, row in zip(columns, batch.token.tolist(), strict=True):
                column += row
        first, *_ = (bytes(column).split(b"\1") for column in columns)
        assert first[0] == b"", "an end token stands before the first document"
        assert len(first) > 20
        assert set(first[1:-1]) <= written
        epochs.append(first)
    assert epochs[0] != epochs[1]


def test_what_stands_before_the_first_beginning_of_a_column_is_not_learnt():
    part = ragged(40, 20, 30)
    batch = DocumentWindows(part, Recipe(steps=1, batch_size=8, seq_length=32), CPU).next()
    begun = torch.cumsum(batch.begins, dim=1) > 0
    assert torch.equal(batch.target >= 0, begun)
    assert not begun.all()


def test_windows_of_documents_go_on_where_they_were():
    part, recipe = ragged(100, 1, 30), Recipe(steps=1, batch_size=4, seq_length=8)
    windows = DocumentWindows(part, recipe, CPU)
    for _ in range(70):
        windows.next()
    other = DocumentWindows(part, recipe, CPU)
    other.load(windows.state())
    for _ in range(70):
        assert windows.next().target.tolist() == other.next().target.tolist()


def test_windows_suit_the_length_of_the_documents():
    lengths = (7, 14, 30, 200)
    recipes = [choose_recipe(400_000, documents=400_000 // n, epochs=9) for n in lengths]
    assert [recipe.seq_length for recipe in recipes] == [16, 16, 30, 64]
    assert [recipe.batch_size for recipe in recipes] == [64, 64, 64, 32]
    assert choose_recipe(12_000, documents=1_700).seq_length == 64
    assert choose_recipe(400_000, documents=50_000, epochs=9, seq_length=50).seq_length == 50


# Measuring


def test_a_document_costs_what_it_costs_alone_however_long_it_is(monkeypatch):
    model = random_model(vocab_size=7)
    rng = np.random.default_rng(0)
    edges = np.cumsum([1, 3, 700, 1, 40, 2_000, 9])
    monkeypatch.setattr(split_module, "_AREA", 1_000)
    tokens = rng.integers(0, 7, edges[-1]).astype(np.uint8)
    passages = Passages(tokens, np.stack([edges[:-1], edges[1:]], axis=1))
    together = measure_losses(model, passages, lambda: False)
    for index, each in enumerate(passages.ranges):
        alone = measure_losses(model, Passages(tokens, each[None]), lambda: False)
        assert together.nats[index] == pytest.approx(alone.nats[0], rel=1e-5)
    assert together.predicted.tolist() == np.diff(edges).tolist()
    partly = measure_losses(model, passages, lambda: True)
    assert 0 < len(partly.nats) < len(together.nats)

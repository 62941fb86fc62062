"""Texts that are new: filters of a corpus, --unique, --new, --not-in, and Faker's values."""

import functools
import random
import shutil

import pytest
from faker import Faker
from hypothesis import given
from hypothesis import strategies as st

import chargen_ort.faker
from chargen_ort import CharGenerator, OptionError
from chargen_ort.document_filter import (
    DocumentFilter,
    filter_bytes,
    filter_of,
    filter_path,
)
from chargen_ort.provenance import CorpusFacts
from chargen_ort.samplers import as_sampler, as_step
from tests.conftest import (
    ALPHABET,
    TRAINING,
    artifact_bytes,
    assert_refused,
    random_model,
    run_here,
)

FEW = "abc"


@pytest.fixture(scope="module")
def names_path(tmp_path_factory):
    """A model of random weights, and a filter that takes some of its texts for its corpus."""
    path = tmp_path_factory.mktemp("names") / "names.onnx"
    model = random_model(len(FEW) + 1, scale=1.5)
    path.write_bytes(artifact_bytes(model, FEW, end=True))
    found = DocumentFilter(len(corpus(path)))
    found.add(corpus(path))
    filter_path(path).write_bytes(found.to_bytes(TRAINING.corpora))
    return path


@functools.cache
def corpus(path):
    """What stands for the documents that the model has learnt."""
    return frozenset(CharGenerator.load(path).generate_batch([""] * 60, 20, seed=5))


def write(path, *options):
    return run_here("chargen-ort", "--model", path, "--seed", 1, *options)


def test_a_filter_knows_each_document_and_hardly_another():
    documents = [f"document {number}" for number in range(20_000)]
    found = DocumentFilter(len(documents))
    found.add(documents)
    assert all(text in found for text in documents[::20])
    others = [f"other {number}" for number in range(200_000)]
    places = found._places(others)
    held = (found._bits[places >> 3] >> (places & 7).astype("u1")) & 1
    assert held.all(axis=1).sum() <= 3  # 0.2 are to be expected of one in a million
    assert "other 1" not in found
    assert 8 * len(found._bits) / len(documents) < 29.1


def test_new_texts_are_none_of_the_corpus_and_unique_ones_are_different(names_path):
    plain = write(names_path, "--num", 300).stdout.split("\n")[:-1]
    assert set(plain) & corpus(names_path)  # so that the test can fail
    assert len(set(plain)) < len(plain)
    found = write(names_path, "--num", 60, "--new", "--unique").stdout.split("\n")[:-1]
    assert len(set(found)) == len(found) == 60
    assert not set(found) & corpus(names_path)
    seen: dict[str, None] = {}  # those of more texts of the same seed, in their order
    for text in write(names_path, "--num", 2000).stdout.split("\n")[:-1]:
        if text not in corpus(names_path):
            seen.setdefault(text)
    assert list(seen)[:60] == found


def test_a_start_is_part_of_the_text_that_is_looked_for(names_path):
    options = ("--start", "ba", "--num", 20, "--unique", "--new")
    found = write(names_path, *options).stdout.split("\n")[:-1]
    assert not set(found) & corpus(names_path)
    assert len(set(found)) == 20


def test_no_text_is_a_line_of_a_file(names_path, tmp_path):
    known = write(names_path, "--num", 10).stdout
    (tmp_path / "known.txt").write_text(known)
    found = write(names_path, "--num", 40, "--not-in", tmp_path / "known.txt").stdout
    assert not set(found.split()) & set(known.split())


def test_where_there_are_no_more_texts_the_command_ends_with_one_line(names_path, monkeypatch):
    monkeypatch.setattr("chargen_ort.novelty.MOST_IN_VAIN", 100)
    result = write(names_path, "--num", 9, "--unique", "--pattern", "[bc]a")
    assert result.returncode == 1
    assert sorted(result.stdout.split()) == ["ba", "ca"]
    assert result.stderr.splitlines()[1:] == [
        "chargen-ort: 2 of 9 texts were written: none of 100 more was new; ask for fewer, raise "
        "--temperature, or let the texts be longer"
    ]


def test_a_filter_is_of_the_corpus_of_its_model(names_path, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(artifact_bytes(random_model(len(ALPHABET) + 1), ALPHABET, end=True))
    assert_refused(write(other, "--new"), "which is not there", "--with-filter", "--not-in")
    good = filter_path(names_path).read_bytes()
    for data, message in (
        (good[:-1], "is damaged"),
        (good[:-1] + b"x", "is damaged"),
        (b"something else", "is no filter"),
        (good.replace(b'"documents":', b'"documents":1'), "is damaged"),
    ):
        filter_path(other).write_bytes(data)
        assert_refused(write(other, "--new"), message)
    facts = CorpusFacts(name="x", sha256="1" * 64, characters=2)
    filter_path(other).write_bytes(DocumentFilter(1).to_bytes([facts]))
    assert_refused(write(other, "--new"), "is of another corpus than the model")


@pytest.mark.parametrize("unit", ["char", "bpe"])
@pytest.mark.parametrize("holdout", ["spread", "other.txt"])
@pytest.mark.parametrize("beside", [False, True], ids=["in the file", "beside"])
def test_train_export_writes_a_filter_of_all_documents(
    tmp_path, monkeypatch, holdout, unit, beside
):
    monkeypatch.chdir(tmp_path)
    if beside:
        monkeypatch.setattr("chargen_export.filters.MAX_IN_FILE", 79)
    (tmp_path / "other.txt").write_text("mid\nmod\n")
    names = [f"{a}{b}{c}" for a in "bdkl" for b in "aeiou" for c in "nmrt"]  # 80 of them
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    options = ("--documents", "lines", "--preset", "lesson", "--with-filter", "--unit", unit)
    where = ("--out", tmp_path / "names.onnx", "--holdout", holdout)
    result = run_here("train-export", tmp_path / "names.txt", *options, *where)
    assert result.returncode == 0, result.stderr
    artifact = CharGenerator.load(tmp_path / "names.onnx").artifact
    assert filter_path(tmp_path / "names.onnx").exists() == beside
    assert bool(artifact.filter) != beside
    found = filter_of(tmp_path / "names.onnx", artifact.training, artifact.filter)
    assert found.documents == 80
    assert all(name in found for name in names)
    assert not any(text in found for text in ("ban\nbam", "mid", "mod", ""))
    assert "b" not in found


def test_a_filter_in_a_file_is_in_what_is_made_of_it(tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"{a}{b}\n" for a in "bdkl" for b in "aeiou"))
    options = ("--documents", "lines", "--preset", "lesson", "--with-filter", "--precision", "int8")
    result = run_here(
        "train-export", tmp_path / "names.txt", *options, "--out", tmp_path / "n.onnx"
    )
    assert result.returncode == 0, result.stderr
    made = tmp_path / "n.onnx", tmp_path / "n.int8.onnx"
    assert not any(filter_path(path).exists() for path in made)
    one, other = (CharGenerator.load(path).artifact for path in made)
    assert one.filter == other.filter != ""
    assert as_step(as_sampler(one)).data == one.data
    for path in made:
        texts = write(path, "--new", "--num", 30, "--max-length", 3).stdout.split("\n")
        assert not {f"{a}{b}" for a in "bdkl" for b in "aeiou"} & set(texts)
        assert "\nfilter " in run_here("chargen-ort", "info", path).stdout


@pytest.fixture(scope="module")
def trained_without(tmp_path_factory):
    """A folder with a list of names, the run that learnt it, and its model without a filter."""
    folder = tmp_path_factory.mktemp("without")
    names = {f"{a}{b}" for a in "bdkl" for b in "aeiou"}
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in sorted(names)))
    options = ("--documents", "lines", "--preset", "lesson", "--out", folder / "n.onnx")
    assert run_here("train-export", folder / "names.txt", *options).returncode == 0
    refused = write(folder / "n.onnx", "--new")
    assert_refused(refused, "which is not there", "train-export convert", "--not-in")
    return folder


@pytest.mark.parametrize("beside", [False, True], ids=["in the file", "beside"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "all"])
def test_a_model_that_was_trained_without_a_filter_gets_one_of_its_checkpoint(
    trained_without, tmp_path, monkeypatch, precision, beside
):
    if beside:
        monkeypatch.setattr("chargen_export.filters.MAX_IN_FILE", 19)
    shutil.copytree(trained_without, tmp_path, dirs_exist_ok=True)
    corpus, out = tmp_path / "names.txt", tmp_path / "n.onnx"
    names, plain = set(corpus.read_text().split()), out.read_bytes()
    checkpoint = tmp_path / "n.run" / "checkpoint.pt"
    given = ("--text", corpus, "--precision", precision, "--with-filter")
    result = run_here("train-export", "convert", checkpoint, *given)
    assert result.returncode == 0, result.stderr
    kept = out.read_bytes() == plain  # where only a smaller one was made, or the filter is beside
    assert kept == (precision == "int8" or beside)
    made = {"fp32": [out], "int8": [tmp_path / "n.int8.onnx"]}
    for path in made.get(precision, [out, tmp_path / "n.fp16.onnx", tmp_path / "n.int8.onnx"]):
        artifact = CharGenerator.load(path).artifact
        assert bool(artifact.filter) != beside
        assert filter_path(path).exists() == beside
        found = filter_of(path, artifact.training, artifact.filter)
        assert all(name in found for name in names)
        assert not names & set(write(path, "--new", "--num", 9, "--max-length", 3).stdout.split())


def test_a_filter_is_made_of_a_checkpoint_of_documents_only(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "text.onnx"
    text.write_text("it was the best of times, it was the worst of times; " * 9)
    assert run_here("train-export", text, "--preset", "lesson", "--out", out).returncode == 0
    plain = out.read_bytes()
    checkpoint = tmp_path / "text.run" / "checkpoint.pt"
    wanted = ("--text", text, "--with-filter")
    result = run_here("train-export", "convert", checkpoint, *wanted)
    assert_refused(result, "a filter is of documents")
    result = run_here("train-export", "convert", out, *wanted, "--precision", "int8")
    assert_refused(result, f"{out} is a model", "checkpoint.pt")
    result = run_here("train-export", "convert", out, "--sampler", "--with-filter")
    assert_refused(result, "--sampler keeps", "--with-filter")
    assert out.read_bytes() == plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.onnx", "text.run", "text.txt"]


@given(st.integers(1, 300_000))
def test_the_size_of_a_filter_needs_no_padding(documents):
    size = filter_bytes(documents)
    assert size % 3 == 0
    assert documents * 29 <= 8 * size <= documents * 29 + 100


def test_a_filter_is_not_written_of_running_text_nor_over_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr("chargen_export.filters.MAX_IN_FILE", 1)
    (tmp_path / "text.txt").write_text("it was the best of times, it was the worst of times; " * 9)
    options = ("--out", tmp_path / "text.onnx", "--preset", "lesson", "--with-filter")
    result = run_here("train-export", tmp_path / "text.txt", *options)
    assert_refused(result, "a filter is of documents", "--documents")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    (tmp_path / "text.onnx.filter").write_text("mine")
    (tmp_path / "text.txt").write_text("ab\ncd\n" * 40)
    result = run_here("train-export", tmp_path / "text.txt", "--documents", "lines", *options)
    assert_refused(result, "text.onnx.filter", "did not write")
    assert (tmp_path / "text.onnx.filter").read_text() == "mine"


@pytest.fixture
def fake(names_path):
    found = Faker()
    found.add_provider(chargen_ort.faker.provider(names_path, pattern="[abc]{2,5}"))
    return found


def test_values_follow_fakers_seed_whatever_else_is_drawn(fake):
    Faker.seed(7)
    alone = [fake.chargen() for _ in range(60)]
    Faker.seed(7)
    assert [fake.chargen() for _ in range(60)] == alone
    assert len(set(alone)) > 20
    choose = random.Random(1)
    mixed = []
    for _ in range(2):
        Faker.seed(8)
        choose.seed(1)
        mixed.append([])
        for _ in range(60):
            if choose.random() < 0.3:
                mixed[-1].append(fake.pyint())
            mixed[-1].append(fake.chargen())
    assert mixed[0] == mixed[1]
    Faker.seed(7)
    assert fake.chargen() == alone[0]
    assert len({fake.unique.chargen() for _ in range(20)}) == 20


def test_what_other_providers_draw_depends_on_no_model(names_path):
    """Nor on how far ahead it has written."""
    drawn = []
    for pattern, before in (("[abc]{2,5}", 0), ("[ab]", 30)):
        fake = Faker()
        fake.add_provider(chargen_ort.faker.provider(names_path, pattern=pattern))
        for _ in range(before):
            fake.chargen()
        fake.seed_instance(3)
        drawn.append([(fake.chargen() and fake.pyint(), fake.name()) for _ in range(20)])
    assert drawn[0] == drawn[1]


def test_a_value_begins_with_its_start_and_takes_options_of_its_own(fake):
    assert all(fake.chargen("b").startswith("b") for _ in range(9))
    assert {fake.chargen("b", temperature=0) for _ in range(9)} == {
        fake.chargen("b", temperature=0)
    }
    with pytest.raises(OptionError, match="temperature is -1"):
        fake.chargen(temperature=-1)
    with pytest.raises(OptionError, match="top_k"):
        chargen_ort.faker.provider(
            CharGenerator.from_bytes(artifact_bytes(random_model())), top_k=-1
        )

"""What --out may name: nothing that is of the user's is lost to it."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from chargen_export.convert import convert
from chargen_export.pipeline import train_and_export
from chargen_export.target import Origin, Target, is_artifact
from chargen_ort import OptionError, read_artifact
from chargen_train.files import output_path, refuse_special, write_atomically
from tests.conftest import (
    ALPHABET,
    HELLO,
    TRAINING,
    artifact_bytes,
    observing,
    random_model,
    train_export,
)

QUICK = ["--epochs", "1", "--hidden-size", "4"]
CORPUS = Origin.of(TRAINING)  # of the artifacts that conftest makes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text(HELLO)
    return tmp_path


def contents(folder):
    """Every file under a folder with its bytes; other things with their kind."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else p.lstat().st_mode
        for p in folder.rglob("*")
    }


def assert_refused(folder, arguments, *parts):
    before = contents(folder)
    result = train_export(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr
    assert contents(folder) == before


# Inputs of the command


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_corpus_is_never_the_target(folder, link):
    out = "c.txt"
    if link:
        link("c.txt", "same.onnx")
        out = "same.onnx"
    assert_refused(folder, ["c.txt", *QUICK, "--out", out], f"cannot write {out}: it is the file "
                   "c.txt, which this command reads; choose another --out")  # fmt: skip


@pytest.mark.parametrize("out", ["m.onnx", "link.onnx", "hard.onnx", "t.txt", "sub/../m.onnx"])
def test_neither_source_nor_text_is_the_target_of_a_conversion(folder, out):
    Path("m.onnx").write_bytes(artifact_bytes(random_model()))
    os.symlink("m.onnx", "link.onnx")
    os.link("m.onnx", "hard.onnx")
    Path("t.txt").write_text(ALPHABET)
    Path("sub").mkdir()
    arguments = ["convert", "m.onnx", "--precision", "int8", "--text", "t.txt", "--out", out]
    assert_refused(folder, arguments, f"cannot write {out}: it is the file", "this command reads")


def test_a_variant_does_not_replace_the_text_it_is_scored_on(folder):
    Path("m.onnx").write_bytes(artifact_bytes(random_model()))
    Path("m.int8.onnx").write_text(ALPHABET)
    arguments = ["convert", "m.onnx", "--precision", "all", "--text", "m.int8.onnx"]
    assert_refused(folder, arguments, "cannot write m.int8.onnx: it is the file m.int8.onnx")


# What is there already


def test_a_file_of_another_kind_is_refused_even_with_overwrite(folder):
    for name, content in [("notes.md", b"# dear"), ("empty.onnx", b""), ("m.onnx", b"\x08\x08ab")]:
        Path(name).write_bytes(content)
        for more in ([], ["--overwrite"]):
            assert_refused(folder, ["c.txt", *QUICK, "--out", name, *more],
                           f"cannot write {name}: there is a file that train-export did not write",
                           "choose another --out")  # fmt: skip


def test_a_pipe_a_socket_and_a_link_are_refused_and_not_opened(folder):
    os.mkfifo("pipe")
    os.symlink("nowhere", "dangling.onnx")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, what in [("pipe", "a pipe"), ("socket", "a socket"), ("dangling.onnx", "a link")]:
            assert_refused(folder, ["c.txt", *QUICK, "--out", name], f"{name}: it is {what}")


def test_a_link_to_an_artifact_is_refused_and_the_file_named(folder):
    Path("real.onnx").write_bytes(artifact_bytes(random_model()))
    os.symlink("real.onnx", "link.onnx")
    with pytest.raises(OptionError, match=r"it is a link to .*real\.onnx; name that file itself"):
        Target(CORPUS).check(Path("link.onnx"))


def test_a_device_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "device"
    status = os.stat_result((0o20666, *[0] * 9))  # a character device; none is touched here
    monkeypatch.setattr(Path, "lstat", lambda self: status)
    for refuse in (refuse_special, Target(CORPUS).check, lambda p: write_atomically(p, b"model")):
        with pytest.raises(OptionError, match="it is a device; choose another --out"):
            refuse(path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_none_is_refused():
    with pytest.raises(OptionError, match="it is not a path"):
        Target(CORPUS).check(Path("a\0b"))


def test_the_checks_know_an_artifact_by_its_end(tmp_path):
    path = tmp_path / "m.onnx"
    data = artifact_bytes(random_model())
    for content, expected in [(data, True), (data[:-1], False), (data + b"x", False), (b"", False)]:
        path.write_bytes(content)
        assert is_artifact(path) is expected
    path.write_bytes(bytes(100) + data[100:])  # damaged, but ours
    assert is_artifact(path)


# Folders


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        (None, "artifacts/c.onnx"),
        ("x.onnx", "x.onnx"),
        ("there", "there/c.onnx"),
        ("there/", "there/c.onnx"),
        ("new/", "new/c.onnx"),
        ("new/.", "new/c.onnx"),
        ("there/new", "there/new"),
        (".", "c.onnx"),
    ],
)
def test_a_slash_or_a_folder_means_a_file_in_it(folder, out, expected):
    Path("there").mkdir()
    assert output_path(out, "c.onnx", Path("artifacts")) == Path(expected)


def test_the_folder_of_a_slash_is_made(folder):
    result = train_export("c.txt", *QUICK, "-o", "models/")
    assert (result.exit_code, result.stdout) == (0, "models/c.onnx\n")
    assert sorted(os.listdir("models")) == ["c.onnx", "c.run"]


def test_a_conversion_into_a_folder_keeps_its_usual_name(folder):
    Path("m.onnx").write_bytes(artifact_bytes(random_model()))
    Path("t.txt").write_text(ALPHABET)
    Path("there").mkdir()
    for precision, names in [("int8", ["m.int8.onnx"]), ("all", ["m.fp16.onnx", "m.int8.onnx"])]:
        paths = [p for _, p in convert(Path("m.onnx"), precision, Path("t.txt"), "there/", 1.0)]
        assert paths == [Path("there") / name for name in names]


def test_an_empty_out_is_one_line(folder):
    assert_refused(folder, ["c.txt", "--out", ""], "--out is empty; give the name of a file")


# Models of other corpora


@pytest.fixture
def two(folder):
    """The model of a/input.txt is there; b/input.txt is another text of the same name."""
    for name, text in [("a", HELLO), ("b", HELLO[::-1])]:
        Path(name).mkdir()
        Path(name, "input.txt").write_text(text)
    assert train_export("a/input.txt", *QUICK).exit_code == 0
    return folder


def test_a_model_of_another_corpus_is_replaced_with_overwrite_alone(two):
    assert_refused(two, ["b/input.txt", *QUICK], "artifacts/input.onnx holds the model of another "
                   "corpus, input (SHA-256 ", "and this one is input (SHA-256 ",
                   "give --overwrite to replace it, or choose another --out")  # fmt: skip
    first = read_artifact("artifacts/input.onnx").training.corpora[0].sha256
    result = train_export("b/input.txt", *QUICK, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert read_artifact("artifacts/input.onnx").training.corpora[0].sha256 != first


def test_a_model_of_the_same_corpus_is_replaced(two):
    shutil.copy("a/input.txt", "b/input.txt")
    assert train_export("b/input.txt", *QUICK).exit_code == 0


def test_a_variant_of_another_corpus_is_refused_before_training(two):
    Path("artifacts/input.int8.onnx").write_bytes(artifact_bytes(random_model()))
    assert_refused(two, ["a/input.txt", *QUICK, "--precision", "int8"],
                   "artifacts/input.int8.onnx holds the model of another corpus, none")  # fmt: skip


def test_a_conversion_does_not_replace_the_model_of_another_corpus(two):
    Path("m.onnx").write_bytes(artifact_bytes(random_model()))
    Path("t.txt").write_text(ALPHABET)
    arguments = ["convert", "m.onnx", "--precision", "int8", "--text", "t.txt"]
    arguments += ["--out", "artifacts/input.onnx", "--max-loss-increase", "1"]
    assert_refused(two, arguments, "artifacts/input.onnx holds the model of another corpus")
    assert train_export(*arguments, "--overwrite").exit_code == 0


def test_a_damaged_model_may_be_of_any_corpus(two):
    path = Path("artifacts/input.onnx")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert_refused(two, ["a/input.txt", *QUICK], "cannot tell which corpus the model in "
                   "artifacts/input.onnx is of", "the seal does not match", "--overwrite",
                   "another --out")  # fmt: skip
    assert train_export("a/input.txt", *QUICK, "--overwrite").exit_code == 0


def test_a_finished_run_of_another_corpus_is_not_lost_either(two):
    os.rename("artifacts/input.onnx", "mine.onnx")
    assert_refused(two, ["b/input.txt", *QUICK], "artifacts/input.run holds the run of another")
    assert train_export("b/input.txt", *QUICK, "--overwrite").exit_code == 0


# Hours later


def test_the_target_is_checked_again_before_it_is_written(folder):
    def put_something_there(trained):
        Path("x.onnx").write_text("mine")

    observer = observing(on_trained=put_something_there)
    with pytest.raises(OptionError, match="did not write; move it away") as raised:
        train_and_export(Path("c.txt"), "x.onnx", None, observer, epochs=1.0, hidden_size=4)
    assert Path("x.onnx").read_text() == "mine"
    message = str(raised.value)
    command = "train-export convert x.run/checkpoint.pt --text c.txt"
    assert message.endswith(f"is whole in x.run/checkpoint.pt; go on with: {command}")
    Path("x.onnx").unlink()
    assert train_export(*command.split()[1:]).exit_code == 0
    assert read_artifact("x.onnx").training.steps > 0

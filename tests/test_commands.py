"""The two commands, run as a user runs them."""

import json
import os
import re
import subprocess

import pytest

from chargen_ort import CharGenerator, read_artifact
from chargen_ort.models import DEMO_MODEL
from chargen_train.run_folder import RunFolder
from tests.conftest import BIN, HELLO, assert_refused, run, run_here


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "hello.txt"
    path.write_text(HELLO)
    return path


# train-export


def test_a_corpus_becomes_an_artifact_that_writes(corpus, tmp_path):
    result = run("train-export", corpus.name, "--preset", "lesson", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "artifacts/hello.onnx\n"
    artifact = read_artifact(tmp_path / "artifacts/hello.onnx")
    for fact in (
        "hello: 23 characters, vocabulary 8",
        "GRU 1 x 32, embedding 16: 5,192 parameters, on cpu",
        "limit 0.0001",
        artifact.sha256,
        f"{len(artifact.data):,} bytes",
        "chargen-ort --model artifacts/hello.onnx --start hell",
    ):
        assert fact in result.stderr
    for line in RunFolder(tmp_path / "artifacts/hello.onnx").read_metrics():
        assert {len(text) for text in line.get("samples", {}).values()} <= {160}
    written = run("chargen-ort", "--start", "hell", "--temperature", 0.2, cwd=tmp_path)
    assert written.stdout.startswith("hello world hello world")
    assert "artifacts/hello.onnx" in written.stderr


def test_train_export_takes_the_settings_it_lists(corpus, tmp_path):
    out = tmp_path / "deep" / "er" / "x.onnx"
    settings = (
        "--hidden-size 8 --num-layers 2 --embedding-dim 3 --seq-length 4 --batch-size 2 --seed 5 "
        "--learning-rate 0.02 --dropout 0.1 --epochs 3 --device cpu"
    )
    result = run_here("train-export", corpus, "--out", out, *settings.split())
    assert result.returncode == 0, result.stderr
    config = read_artifact(out).config
    assert (config.hidden_size, config.num_layers, config.embedding_dim) == (8, 2, 3)
    training = read_artifact(out).training
    recorded = training.settings
    assert (recorded["seq_length"], recorded["batch_size"], recorded["dropout"]) == (4, 2, 0.1)
    assert (recorded["epochs"], training.seed, recorded["learning_rate"]) == (3, 5, 0.02)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "no such file: missing.txt"),
        ("", None, "it is in the folder ., which this command reads"),
        ("empty.txt", b"", "is empty; a corpus needs at least 2 characters"),
        ("one.txt", b"a", "one character long"),
        ("latin.txt", "ol\xe9".encode("latin1"), "byte 0xe9 at offset 2"),
    ],
)
def test_train_export_refuses_a_corpus_that_is_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(run_here("train-export", name or ".", cwd=tmp_path), message)
    assert not (tmp_path / "artifacts").exists()


def test_a_wrong_name_is_told_before_pytorch_is_loaded(tmp_path):
    result = run("train-export", "none.txt", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "train-export: no such file: none.txt"
    assert "chargen_train.inputs" in result.stderr, "each import is told"
    assert "| torch\n" not in result.stderr


@pytest.mark.parametrize("out", ["folder/", "file.txt/x.onnx", "/proc/x.onnx"])
def test_train_export_refuses_an_out_that_cannot_be_written(corpus, tmp_path, out):
    (tmp_path / "folder/hello.onnx").mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    result = run_here("train-export", corpus, "--out", out, cwd=tmp_path)
    assert_refused(result, f"cannot write {out}")
    left = ["file.txt", "folder", "hello.onnx", "hello.txt"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == left


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--hidden-size", 0, "hidden_size is 0; give 1 to 8192"),
        ("--dropout", 2, "dropout is 2; give 0 to 0.9"),
        ("--learning-rate", "nan", "learning_rate is nan"),
        ("--minutes", 0, "minutes is 0"),
        ("--seed", -1, "seed is -1"),
    ],
)
def test_train_export_refuses_settings_out_of_range(corpus, option, value, message):
    assert_refused(run_here("train-export", corpus, option, value, cwd=corpus.parent), message)
    assert not (corpus.parent / "artifacts").exists()


def test_train_export_refuses_two_lengths(corpus):
    result = run_here("train-export", corpus, "--minutes", 1, "--epochs", 1)
    assert_refused(result, "only one of epochs and minutes")


@pytest.mark.parametrize("command", ["train-export", "chargen-ort"])
def test_an_unknown_option_is_a_usage_error(command):
    result = run(command, "--no-such-option")
    assert result.returncode == 2
    assert "No such option" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("call", "begin", "end"),
    [
        (["chargen-ort", "--lenght", 5], "No such option: --lenght", "chargen-ort"),
        (["chargen-ort", "--length", "five"], "Invalid value for '--length'", "chargen-ort"),
        (["chargen-ort", "wirte"], "No such command 'wirte'", "chargen-ort"),
        (
            ["chargen-ort", "serve", "--port", "x"],
            "Invalid value for '--port'",
            "chargen-ort serve",
        ),
        (["train-export", "c", "--minutes", "x"], "Invalid value for '--minutes'", "train-export"),
        (["train-export", "c", "d", "--unit", "x"], "Invalid value for '--unit'", "train-export"),
        (["train-export", "verify"], "Missing argument", "train-export verify"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(call, begin, end):
    result = run_here(*call)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{call[0]}: {begin}")
    assert result.stderr.endswith(f"; {end} --help lists what there is\n")
    assert result.stderr.count("\n") == 1


def test_without_arguments_a_command_that_needs_one_shows_its_help():
    result = run_here("train-export")
    assert "Usage: train-export" in result.stdout
    assert (result.returncode, result.stderr) == (2, "")


def test_a_failed_run_leaves_the_old_artifact(corpus, hello_path, tmp_path):
    artifact = tmp_path / "artifacts/hello.onnx"
    artifact.parent.mkdir()
    artifact.write_bytes(hello_path.read_bytes())
    options = ["--learning-rate", 1.0, "--hidden-size", 0]
    assert run_here("train-export", corpus, *options, cwd=tmp_path).returncode == 2
    assert artifact.read_bytes() == hello_path.read_bytes()


# chargen-ort


def test_text_alone_is_on_standard_output(hello_path):
    result = run(
        "chargen-ort", "--model", hello_path, "--start", "hell", "--length", 20, "--seed", 3
    )
    expected = CharGenerator.load(hello_path).generate("hell", 20, seed=3)
    assert result.stdout == f"hell{expected}\n"
    assert result.stderr == f"model {hello_path}, seed 3\n"


@pytest.mark.parametrize("num", [1, 3])
def test_the_start_is_printed_before_each_text_unless_it_is_not_wanted(hello_path, num):
    arguments = ["--model", hello_path, "--start", "hell", "--length", 9, "--seed", 3, "-n", num]
    with_start = run_here("chargen-ort", *arguments).stdout.splitlines()
    without = run_here("chargen-ort", *arguments, "--no-echo").stdout.splitlines()
    assert len(without) == num
    assert with_start == ["hell" + text for text in without]
    assert {len(text) for text in without} == {9}


def test_the_model_is_the_named_one_or_the_newest_or_the_demo(hello_path, tmp_path):
    options = ["--start", "hell", "--length", 5]
    assert f"model {DEMO_MODEL}" in run_here("chargen-ort", *options, cwd=tmp_path).stderr
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for age, name in enumerate(["newest", "older", "oldest"]):
        (folder / f"{name}.onnx").write_bytes(hello_path.read_bytes())
        os.utime(folder / f"{name}.onnx", (1e9 - age, 1e9 - age))
    assert "model artifacts/newest.onnx" in run_here("chargen-ort", *options, cwd=tmp_path).stderr
    named = run_here("chargen-ort", *options, cwd=tmp_path, env={"CHARGEN_MODEL": str(hello_path)})
    assert f"model {hello_path}" in named.stderr


def test_an_empty_start_begins_a_text(hello_path):
    result = run_here("chargen-ort", "--model", hello_path, "--length", 11)
    assert result.returncode == 0
    assert len(result.stdout) == 12


def test_a_start_is_read_from_standard_input(hello_path):
    result = run(
        "chargen-ort", "--model", hello_path, "--start", "-", "--temperature", 0, stdin="hell\n"
    )
    assert result.stdout.startswith("hello world")


def test_standard_input_is_a_start_as_it_is(hello_path):
    result = run_here("chargen-ort", "--model", hello_path, "--start", "-", stdin="hell\\n")
    assert_refused(result, f"{hello_path}: the model does not know the character '\\\\' (U+005C)")


def test_escapes_are_read_in_starts_and_stops(lines_path):
    common = ["--model", lines_path, "--temperature", 0, "--length", 20, "--json"]
    written = json.loads(run_here("chargen-ort", *common, "--start", r"\u0068ello\n").stdout)
    assert written["start"] == "hello\n"
    assert written["text"].startswith("hello\n")
    stopped = json.loads(run_here("chargen-ort", *common, "--stop", "hh", "--stop", r"\n").stdout)
    assert (stopped["text"], stopped["ended"]) == ("hello", "stop")


@pytest.mark.parametrize("option", ["--start", "--stop"])
def test_an_escape_that_is_none_is_refused(hello_path, option):
    result = run_here("chargen-ort", "--model", hello_path, option, r"C\C=C")
    assert_refused(result, rf"{option} has \C at position 1", r"write \\ for a backslash")


def test_several_texts_come_as_lines_or_json_in_order(hello_path):
    common = ["--model", hello_path, "--start", "h", "--length", 8, "--seed", 2, "--num", 5]
    lines = run_here("chargen-ort", *common, "--batch-size", 2, "--no-echo").stdout.splitlines()
    model = CharGenerator.load(hello_path)
    assert lines == [model.generate("h", 8, seed=2, row=row) for row in range(5)]
    objects = [
        json.loads(line) for line in run_here("chargen-ort", *common, "--json").stdout.splitlines()
    ]
    for row, (written, line) in enumerate(zip(objects, lines, strict=True)):
        assert written.pop("log_probability") == pytest.approx(model.score("h" + line).total)
        assert written == {"start": "h", "text": line, "ended": "length", "seed": 2, "row": row}


def test_the_log_probability_is_the_models_own_and_without_the_stop(hello_path):
    arguments = ["--stop", "r", "--seed", 1, "--json", "--length", 30]
    result = run_here("chargen-ort", "--model", hello_path, *arguments)
    written = json.loads(result.stdout)
    assert written["ended"] == "stop"
    [score] = CharGenerator.load(hello_path).score_batch([written["text"]])
    assert written["log_probability"] == pytest.approx(score.total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "heLl"], "'L' (U+004C) at position 2"),
        (["--model", "missing.onnx"], "no such model file: missing.onnx"),
        (["--model", "."], "is not a regular file"),
        (["--temperature", "-1"], "temperature is -1; give 0 (greedy), or 1e-06 to 1e+06"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--length", "-1"], "length is -1"),
        (["--seed", "-1"], "seed is -1"),
        (["--num", "0"], "num is 0"),
        (["--top-p", "0"], "top_p is 0"),
        (["--num", "2", "--batch-size", "0"], "batch_size is 0"),
        (["--interactive", "--num", "2"], "leave out --num"),
        (["--interactive", "--no-echo"], "--no-echo"),
        (["--temperature", "-1", "--model", "missing.onnx"], "temperature is -1"),
    ],
)
def test_chargen_ort_refuses_with_one_line(tmp_path, arguments, message):
    assert_refused(run_here("chargen-ort", *arguments, cwd=tmp_path), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x08\x08\x12\x05other", "an ONNX model of another program"),
    ],
)
def test_files_that_are_no_artifact_get_a_helpful_line(tmp_path, content, message):
    (tmp_path / "x.onnx").write_bytes(content)
    assert_refused(run_here("chargen-ort", "--model", "x.onnx", cwd=tmp_path), "x.onnx", message)


def test_verify_prints_a_verdict_a_line(hello_path, tmp_path):
    result = run_here("chargen-ort", "verify", hello_path, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["seal", "ok"],
        ["graph", "ok"],
        ["weights", "ok"],
        ["vectors", "ok"],
    ]


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_model_may_be_named_as_an_argument_or_an_option(hello_path, tmp_path, command):
    expected = run_here("chargen-ort", command, hello_path).stdout
    assert expected
    for arguments in (
        [command, "--model", hello_path],
        ["--model", hello_path, command],
        ["--model", hello_path, command, hello_path, "--model", hello_path],
    ):
        assert run_here("chargen-ort", *arguments).stdout == expected
    for arguments in (
        [command, hello_path, "--model", "other.onnx"],
        ["--model", "other.onnx", command, hello_path],
    ):
        result = run_here("chargen-ort", *arguments)
        assert_refused(result, "two models are named", str(hello_path), "other.onnx")


def test_verify_without_a_name_says_what_it_verified(hello_path, tmp_path):
    result = run_here("chargen-ort", "verify", cwd=tmp_path, env={"CHARGEN_MODEL": str(hello_path)})
    assert (result.returncode, result.stderr) == (0, f"model {hello_path}\n")


DEMO = "the demo model (no model in ./artifacts; name one with --model): "


@pytest.mark.parametrize(
    "arguments",
    [["--start", "T"], ["--start", "T", "--num", 3], ["score", "-", "--unknown", "error"]],
)
def test_an_error_about_a_model_names_it_and_says_when_it_is_the_demo(
    hello_path, tmp_path, arguments
):
    message = "the model does not know the character 'T' (U+0054)"
    for name, options in ((DEMO, []), (f"{hello_path}: ", ["--model", hello_path])):
        result = run_here("chargen-ort", *options, *arguments, cwd=tmp_path, stdin="T was")
        assert (result.returncode, result.stdout) == (2, "")
        assert f"chargen-ort: {name}{message}" in result.stderr.splitlines()[-1]


def test_a_success_says_when_the_model_is_the_demo(tmp_path):
    said = f"{DEMO_MODEL} (the demo: no model in ./artifacts)"
    assert f"model {said}, seed 1\n" == run_here("chargen-ort", "--seed", 1, cwd=tmp_path).stderr
    assert said in run_here("chargen-ort", "info", cwd=tmp_path).stdout
    assert (
        f"model {said}\n"
        == run_here("chargen-ort", "score", "-", cwd=tmp_path, stdin="hello").stderr
    )


def test_verify_refuses_what_is_no_artifact(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    assert_refused(run_here("chargen-ort", "verify", "x.onnx", cwd=tmp_path), "the file is empty")


def test_score_prints_the_figures_of_the_library(hello_path):
    expected = CharGenerator.load(hello_path).score("hello world", window=4)
    arguments = ("--model", hello_path, "score", "-", "--window", "4")
    rows = dict(
        re.split(r"  +", line, maxsplit=1)
        for line in run_here("chargen-ort", *arguments, stdin="hello world").stdout.splitlines()
    )
    assert rows == {
        "characters": "10",
        "log prob": f"{expected.total:.4f} nats",
        "nats per char": f"{expected.nats_per_char:.4f}",
        "bits per char": f"{expected.bits_per_char:.4f}",
        "perplexity": f"{expected.perplexity:.4f}",
    }
    figures = json.loads(run_here("chargen-ort", *arguments, "--json", stdin="hello world").stdout)
    assert figures == {
        "characters": 10,
        "unknown": 0,
        "log_probability": expected.total,
        "nats_per_char": expected.nats_per_char,
        "bits_per_char": expected.bits_per_char,
        "perplexity": expected.perplexity,
        "percentile": None,
    }


def test_a_score_counts_unknown_characters(hello_path):
    arguments = ("--model", hello_path, "score", "-")
    assert "unknown        2\n" in run_here("chargen-ort", *arguments, stdin="hellö wörld").stdout
    figures = json.loads(run_here("chargen-ort", *arguments, "--json", stdin="hellö wörld").stdout)
    assert (figures["characters"], figures["unknown"]) == (10, 2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--unknown", "error"], [r"'\n' (U+000A) at position 5"]),
        (["--lines", "--window", "5"], ["window is for a whole text"]),
        (["--window", "0"], ["window is 0"]),
    ],
)
def test_score_refuses_with_one_line(hello_path, tmp_path, options, parts):
    (tmp_path / "lines.txt").write_text("hello\n\nwörld\n")
    result = run_here(
        "chargen-ort", "--model", hello_path, "score", tmp_path / "lines.txt", *options
    )
    assert (result.returncode, result.stdout) == (2, "")
    *before, message = result.stderr.splitlines()
    assert before in ([], [f"model {hello_path}"])
    assert all(part in message for part in parts), message


def test_info_tells_what_is_in_the_file(hello_path):
    artifact = read_artifact(hello_path)
    result = run_here("chargen-ort", "info", hello_path)
    assert result.stderr == ""
    shown = result.stdout
    for fact in (artifact.sha256, "GRU 1 x 32", "8 characters: ' dehlorw'", "parity"):
        assert fact in shown
    facts = json.loads(run_here("chargen-ort", "info", hello_path, "--json").stdout)
    assert facts["sha256"] == artifact.sha256
    assert facts["bytes"] == hello_path.stat().st_size
    assert "".join(facts["config"]["tokens"]) == " dehlorw"
    assert facts["training"] == artifact.training.to_json()


def test_a_changed_artifact_is_refused(hello_path, tmp_path):
    data = bytearray(hello_path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.onnx").write_bytes(data)
    assert_refused(
        run_here("chargen-ort", "--model", "x.onnx", cwd=tmp_path), "the seal does not match"
    )


def test_a_reader_that_leaves_ends_the_text_quietly(hello_path):
    command = f"'{BIN}/chargen-ort' --model '{hello_path}' --length 1000000000 | head -c 20"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert len(result.stdout) == 20
    assert result.stderr.splitlines()[1:] == []


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">&-", "standard output is closed"),
        (">/dev/full", "cannot write to standard output: No space left"),
    ],
)
def test_an_output_that_takes_nothing_gives_one_line(hello_path, redirection, message):
    command = f"'{BIN}/chargen-ort' --model '{hello_path}' --start hell {redirection}"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_an_ascii_only_output_gives_one_line(tmp_path):
    (tmp_path / "c.txt").write_text("é" * 10)
    assert run_here("train-export", "c.txt", "--epochs", 1, cwd=tmp_path).returncode == 0
    result = run("chargen-ort", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 1
    assert "cannot show '\\xe9' (U+00E9); set PYTHONIOENCODING=utf-8" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["train-export", "chargen-ort"])
def test_help_is_there(command):
    result = run(command, "--help", env={"FORCE_COLOR": "", "GITHUB_ACTIONS": ""})
    assert result.returncode == 0
    assert "--seed" in result.stdout


@pytest.mark.parametrize("subcommand", [[], ["score"], ["info"], ["verify"]])
def test_a_short_option_shows_the_same_help(subcommand):
    short, long = (run_here("chargen-ort", *subcommand, option) for option in ("-h", "--help"))
    assert short.returncode == 0
    assert "Usage: chargen-ort" in short.stdout
    assert short.stdout == long.stdout


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_printed(option):
    from chargen_ort import __version__

    assert run("chargen-ort", option).stdout == f"chargen-ort {__version__}\n"


def test_a_model_that_no_reader_would_open_is_refused_before_training(tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("".join(map(chr, range(0x10000, 0x10000 + 70_000))))
    result = run_here("train-export", text, "--hidden-size", 4, "--epochs", 1, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.endswith(
        "70,000 distinct characters, a model at most 65,536; leave the rarest out\n"
    )
    text.write_text(HELLO)
    result = run_here("train-export", text, "--hidden-size", 8192, "--num-layers", 4, cwd=tmp_path)
    assert result.returncode == 2
    assert "a file at most 1,073,741,824; give a --hidden-size below 8192" in result.stderr
    assert not list((tmp_path / "artifacts").glob("*.onnx"))

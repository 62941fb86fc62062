"""What cannot be shown or written does not end a run: closed streams, full disks, no memory."""

import errno
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from chargen_export.pipeline import train_and_export
from chargen_export.streams import SteadyStream
from chargen_ort import OptionError, __version__, read_artifact
from chargen_train.run_folder import RunFolder
from tests.conftest import HELLO, observing, train_export

BIN = Path(sys.executable).parent
QUICK = ["--epochs", "2", "--hidden-size", "4"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.txt").write_text(HELLO)
    return tmp_path


def shell(folder, line):
    path = f"{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


# Streams


@pytest.mark.parametrize(
    "redirection", ["2>&1 | true", "2>/dev/full", "2>&-", "<&- >&- 2>&-", ">/dev/full"]
)
def test_a_stream_that_takes_nothing_does_not_end_training(folder, redirection):
    command = shlex.join(["train-export", "c.txt", *QUICK])
    first, *rest = redirection.split("|")
    line = " |".join([f"({command}; echo $? > status) {first}", *rest])
    result = shell(folder, line)
    assert Path("status").read_text() == "0\n", result
    assert read_artifact("artifacts/c.onnx").training.steps > 0
    assert RunFolder(Path("artifacts/c.onnx")).read_config()["finished"] is True
    assert "Exception ignored" not in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_keeps_its_status_when_nobody_reads_it(folder):
    for redirection in ("2>&-", "2>/dev/full"):
        result = shell(folder, f"train-export missing.txt {redirection}")
        assert (result.returncode, result.stdout) == (2, "")


class Broken(io.StringIO):
    """A stream whose other end is gone."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error

    def isatty(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.EIO, "I/O error"), ValueError("closed file")]
)
def test_a_steady_stream_never_fails(error):
    for stream in (SteadyStream(Broken(error)), SteadyStream(None)):
        assert stream.write("text") == 4
        stream.flush()
        assert stream.isatty() is False


def test_a_steady_stream_writes_what_an_encoding_lacks_as_escapes():
    beneath = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = SteadyStream(beneath)
    stream.write("é▁")
    stream.flush()
    assert beneath.buffer.getvalue() == b"\\xe9\\u2581"
    beneath.close()
    assert stream.write("more") == 4


def test_a_display_that_fails_does_not_end_the_run(folder, monkeypatch):
    shown = []

    def fail(console, text):
        shown.append(text.plain.split()[0])
        raise ZeroDivisionError

    monkeypatch.setattr(Console, "print", fail)
    result = train_export("c.txt", *QUICK, "--epochs", "0.01")
    assert (result.exit_code, result.stdout) == (0, "artifacts/c.onnx\n")
    for what in ("corpus", "100%", "trained", "warning", "parity"):
        assert what in shown, "each of them has failed"


# A full disk after training


def fill_disk(monkeypatch, suffix=""):
    """From now on no file of this suffix can be written."""
    real = os.replace

    def replace(source, path):
        if str(path).endswith(suffix):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, path)

    monkeypatch.setattr("chargen_train.files.os.replace", replace)


def test_a_disk_that_is_full_at_the_export_leaves_the_checkpoint_and_says_so(folder, monkeypatch):
    observer = observing(on_trained=lambda _: fill_disk(monkeypatch))
    with pytest.raises(OptionError) as raised:
        train_and_export(Path("c.txt"), "m.onnx", None, observer, steps=7, hidden_size=4)
    command = "train-export convert m.run/checkpoint.pt --text c.txt"
    assert str(raised.value) == (
        "cannot write m.onnx: No space left on device; free some space, or choose another --out; "
        f"the trained model is whole in m.run/checkpoint.pt; go on with: {command}"
    )
    assert not Path("m.onnx").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert train_export(*command.split()[1:]).exit_code == 0
    assert read_artifact("m.onnx").training.steps == 7


def test_a_disk_that_filled_up_earlier_leaves_an_earlier_checkpoint(folder, monkeypatch):
    def fill(progress):
        if progress.step == 4:
            fill_disk(monkeypatch)

    with pytest.raises(OptionError) as raised:
        train_and_export(
            Path("c.txt"), "m.onnx", None, observing(on_progress=fill), checkpoint_minutes=0,
            steps=7, hidden_size=4,
        )  # fmt: skip
    command = "train-export c.txt --out m.onnx --resume"
    assert str(raised.value).endswith(
        f"the last checkpoint, of step 3 of 7, is whole in m.run/checkpoint.pt; go on with: "
        f"{command}"
    )
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert train_export(*command.split()[1:]).exit_code == 0
    assert read_artifact("m.onnx").training.steps == 7


def test_a_disk_that_was_full_all_along_is_told_too(folder, monkeypatch):
    observer = observing(on_begin=lambda *_: fill_disk(monkeypatch))
    with pytest.raises(OptionError, match="no checkpoint could be saved either, so the model is l"):
        train_and_export(Path("c.txt"), "m.onnx", None, observer, steps=3, hidden_size=4)


def test_a_variant_that_cannot_be_written_leaves_the_fp32_artifact_and_says_so(folder, monkeypatch):
    observer = observing(on_trained=lambda _: fill_disk(monkeypatch, ".int8.onnx"))
    with pytest.raises(OptionError) as raised:
        train_and_export(
            Path("c.txt"), "m.onnx", None, observer, precision="int8", max_loss_increase=1.0,
            steps=7, hidden_size=4,
        )  # fmt: skip
    command = "train-export convert m.onnx --precision int8 --text c.txt"
    assert str(raised.value).endswith(f"m.onnx is whole, go on with: {command}")
    assert read_artifact("m.onnx").training.steps == 7
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert train_export(*command.split()[1:], "--max-loss-increase", 1).exit_code == 0


# One sentence each


def assert_one_line(result, status, *parts):
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nto"),
     torch.OutOfMemoryError("CUDA out of memory")],
)  # fmt: skip
def test_too_little_memory_is_one_line(folder, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("chargen_export.pipeline.load_in_unit", fail)
    assert_one_line(train_export("c.txt"), 1, "there is not enough memory; give a smaller")


def test_another_error_of_pytorch_is_not_hidden(folder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("chargen_export.pipeline.load_in_unit", fail)
    assert isinstance(train_export("c.txt").exception, RuntimeError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(folder):
    result = train_export("c.txt", "--device", "cuda")
    assert_one_line(result, 2, "device is cuda, but PyTorch finds no GPU here; give --device cpu")
    assert os.listdir() == ["c.txt"]


@pytest.mark.parametrize("error", [ImportError("libcudart.so.12: cannot open"), OSError("bad")])
def test_a_package_that_cannot_be_loaded_is_one_line(folder, monkeypatch, error):
    class Finder:
        @staticmethod
        def find_spec(name, *_):
            if name == "chargen_export.pipeline":
                raise error

    monkeypatch.delitem(sys.modules, "chargen_export.pipeline", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert_one_line(train_export("c.txt"), 2, f"cannot be loaded: {error}", "pip install")


@pytest.mark.parametrize(("option", "shown"), [("-h", "--overwrite"), ("-V", __version__)])
def test_the_short_options_are_there(option, shown):
    result = train_export(option)
    assert result.exit_code == 0
    assert shown in result.stdout

"""A run has its folder alone, and the folder is a run's."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chargen_export.pipeline import train_and_export
from chargen_ort import OptionError
from chargen_train import files
from chargen_train.events import TrainingStoppedError
from chargen_train.run_folder import RunFolder
from tests.conftest import HELLO, observing

SMALL = {"steps": 6, "hidden_size": 4}


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text(HELLO)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "m.onnx"


def stop_unfinished(corpus, out):
    with pytest.raises(TrainingStoppedError):
        train_and_export(corpus, out, None, observing(should_stop=lambda: True), **SMALL)


# One run at a time


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_told_that_the_folder_is_in_use(corpus, out, resume):
    refused = []

    def start_another(progress):
        if not refused:
            with pytest.raises(OptionError) as raised:
                train_and_export(corpus, out, resume=resume, **({} if resume else SMALL))
            refused.append(str(raised.value))

    train_and_export(corpus, out, None, observing(on_progress=start_another), **SMALL)
    folder = RunFolder(out)
    assert refused == [
        f"{folder.path} is in use by another run (process {os.getpid()}); wait until it has "
        "ended, or choose another --out"
    ]
    assert [line["step"] for line in folder.read_metrics()] == list(range(1, 7))
    assert not (folder.path / "run.lock").exists()


def test_the_lock_dies_with_its_process(corpus, out):
    folder = RunFolder(out)
    code = (
        "import os, sys, signal; from pathlib import Path\n"
        "from chargen_train.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).in_use(create=True):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(OptionError, match=rf"in use by another run \(process {process.pid}\)"):
        train_and_export(corpus, out, **SMALL)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder.path / "run.lock").exists()
    train_and_export(corpus, out, **SMALL)
    assert folder.read_config()["finished"] is True


def test_an_unfinished_run_that_is_in_use_is_not_moved_aside(corpus, out):
    stop_unfinished(corpus, out)
    with RunFolder(out).in_use(create=False), pytest.raises(OptionError, match="is in use"):
        train_and_export(corpus, out, **SMALL)
    assert RunFolder(out).unfinished


def test_the_lock_stays_with_the_run_when_an_old_one_is_moved_aside(corpus, out):
    stop_unfinished(corpus, out)
    aside = out.with_name("m.unfinished-1.onnx")
    seen = []

    def look(progress):
        seen.append(os.listdir(RunFolder(aside).path))
        with RunFolder(aside).in_use(create=False):  # free
            pass
        with pytest.raises(OptionError, match="is in use"), RunFolder(out).in_use(create=False):
            pass

    train_and_export(corpus, out, None, observing(on_progress=look), **SMALL)
    assert "run.lock" not in seen[0]


def test_without_locks_a_run_goes_on(corpus, out, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    train_and_export(corpus, out, **SMALL)
    assert RunFolder(out).read_config()["finished"] is True


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "m.onnx")
    real, removed = files.fcntl.flock, []

    def remove_then_lock(descriptor, how):
        if not removed:
            removed.append(folder.path / "run.lock")
            removed[0].unlink()
        real(descriptor, how)

    monkeypatch.setattr(files.fcntl, "flock", remove_then_lock)
    with folder.in_use(create=True):
        assert removed[0].read_text() == f"{os.getpid()}\n"


# Folders that are no run's


def test_a_folder_with_files_of_something_else_is_left_alone(corpus, out):
    folder = RunFolder(out).path
    folder.mkdir()
    for name in ("report.html", "metrics.jsonl", "config.json"):
        (folder / name).write_text("mine")
        with pytest.raises(OptionError, match=r"m\.run is not empty and has no config\.json"):
            train_and_export(corpus, out, **SMALL)
        assert (folder / name).read_text() == "mine"


def test_an_empty_folder_and_what_a_killed_run_left_may_be_used(corpus, out):
    folder = RunFolder(out).path
    folder.mkdir()
    (folder / "run.lock").write_text("1\n")
    (folder / ".config.json.0123456789ab.part").write_text("{")
    train_and_export(corpus, out, **SMALL)
    assert RunFolder(out).read_config()["finished"] is True


def test_a_checkpoint_makes_it_a_runs_folder(corpus, out):
    stop_unfinished(corpus, out)
    RunFolder(out).config.write_bytes(b"\xff{")
    train_and_export(corpus, out, resume=True)
    assert RunFolder(out).read_config()["finished"] is True


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_a_name_that_is_no_folder_is_refused(corpus, out, kind):
    path = RunFolder(out).path
    {"file": lambda: path.write_text("mine"), "link": lambda: os.symlink("nowhere", path),
     "pipe": lambda: os.mkfifo(path)}[kind]()  # fmt: skip
    with pytest.raises(OptionError, match=r"m\.run is no folder"):
        train_and_export(corpus, out, **SMALL)
    assert os.path.lexists(path)
    assert not out.exists()


@pytest.mark.parametrize("link", [None, os.link])
def test_a_corpus_inside_the_run_folder_is_not_removed(corpus, out, link, tmp_path):
    train_and_export(corpus, out, **SMALL)
    text = RunFolder(out).metrics
    if link:
        text = Path(shutil.copy(RunFolder(out).metrics, tmp_path / "copy"))
        RunFolder(out).metrics.unlink()
        link(text, RunFolder(out).metrics)
    before = text.read_bytes()
    with pytest.raises(OptionError, match="is a file of the run"):
        train_and_export(text, out, overwrite=True, **SMALL)
    assert text.read_bytes() == before


def test_a_refused_run_leaves_no_folder(corpus, tmp_path):
    with pytest.raises(OptionError, match="no such checkpoint"):
        train_and_export(corpus, tmp_path / "new.onnx", resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["c.txt"]

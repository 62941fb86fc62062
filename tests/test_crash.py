"""Whenever the exporter is killed or the disk is full, the old or the new artifact is there.

`make crash` does the same with 1,000 random moments, and on a file system that is really full.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chargen_ort.artifact import read_artifact
from chargen_ort.errors import ArtifactError, OptionError
from chargen_train import files
from chargen_train.files import check_writable, write_atomically
from tests.conftest import artifact_bytes, random_model

MOMENTS = int(os.environ.get("CHARGEN_CRASH_MOMENTS", "100"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crash")
    (folder / "old").write_bytes(artifact_bytes(random_model(hidden_size=256)))
    (folder / "new").write_bytes(artifact_bytes(random_model(hidden_size=256, seed=1)))
    command = [sys.executable, "-m", "tests.crash_child", str(folder), str(MOMENTS), "0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(results, kind):
    return [result for result in results if result["name"].startswith(kind)]


def test_the_old_or_the_new_artifact_loads(results):
    assert {result["found"] for result in results} == {"old", "new"}


def test_no_temporary_file_outlives_the_next_run(results):
    assert [result for result in results if result["stale"]] == []
    assert sum(result["left"] for result in results) > 20  # the kills did leave some


def test_it_was_killed_at_every_line(results):
    lines = of(results, "line")
    killed = [os.WIFSIGNALED(result["status"]) for result in lines]
    assert sum(killed) > 20
    assert not killed[-1]  # so there are no more lines
    assert killed == sorted(killed, reverse=True)
    found = [result["found"] for result in lines]
    assert found == sorted(found, reverse=True)  # old up to the rename, then new


def test_it_was_killed_around_each_call_and_within_the_write(results):
    expected = {"before fsync": "old", "after fsync": "old", "before replace": "old"}
    expected |= {"after replace": "new"} | {f"write {n}/8": "old" for n in range(9)}
    assert {r["name"]: r["found"] for r in results if r["name"] in expected} == expected
    assert all(os.WTERMSIG(r["status"]) == signal.SIGKILL for r in results if r["name"] in expected)


def test_a_full_disk_leaves_the_old_artifact_and_nothing_else(results):
    full = of(results, "full")
    assert len(full) == 20
    for result in full:
        assert os.waitstatus_to_exitcode(result["status"]) == 2  # an OptionError
        assert (result["found"], result["left"]) == ("old", 0)


def test_it_was_killed_at_random_moments(results):
    moments = of(results, "moment")
    assert len(moments) == MOMENTS
    assert sum(os.WIFSIGNALED(result["status"]) for result in moments) > MOMENTS / 10


@pytest.mark.skipif("CHARGEN_FULL_FOLDER" not in os.environ, reason="make crash mounts it")
def test_a_file_system_that_is_really_full():
    folder = os.environ["CHARGEN_FULL_FOLDER"]
    path = Path(folder) / "model.onnx"
    old, new = (artifact_bytes(random_model(hidden_size=256, seed=seed)) for seed in (0, 1))
    filler = path.with_name("filler")
    for share in range(20):
        filler.unlink(missing_ok=True)
        write_atomically(path, old)
        system = os.statvfs(folder)
        blocks = len(new) * share // 20 // system.f_bsize
        filler.write_bytes(bytes((system.f_bavail - blocks) * system.f_bsize))
        with pytest.raises(OptionError, match="No space left on device"):
            write_atomically(path, new)
        assert path.read_bytes() == old
        assert sorted(p.name for p in path.parent.iterdir()) == ["filler", "model.onnx"]


# What else may go wrong


@pytest.fixture
def path(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"old")
    return tmp_path / "model.onnx"


def only(path):
    return [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_of_the_disk_leaves_the_old_file(path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OptionError, match="Input/output error; choose another --out"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert only(path)


def test_bytes_that_do_not_read_back_are_not_taken(path, monkeypatch):
    monkeypatch.setattr(type(path), "read_bytes", lambda _: b"other")
    with pytest.raises(ArtifactError, match="does not read back as written"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert only(path)


def test_a_name_with_pattern_characters_is_cleaned_too(tmp_path):
    path = tmp_path / "a[b]*.onnx"
    (tmp_path / ".a[b]*.onnx.123.part").write_bytes(b"")
    write_atomically(path, b"new")
    assert only(path)


def test_a_new_file_has_the_permissions_of_any_new_file(path):
    write_atomically(path, b"new")
    (path.parent / "other").write_bytes(b"")
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


def test_checking_a_path_leaves_nothing(path):
    check_writable(path)
    assert only(path)


def test_runs_that_write_one_path_at_once_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "model.onnx"
    texts = [bytes([65 + n]) * 100_000 for n in range(8)]
    errors = []

    def write(data):
        try:
            for _ in range(20):
                write_atomically(path, data)
                check_writable(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_bytes() in texts
    assert only(path)


def test_what_is_written_is_an_artifact(tmp_path):
    data = artifact_bytes(random_model())
    write_atomically(tmp_path / "model.onnx", data)
    assert read_artifact(tmp_path / "model.onnx").data == data

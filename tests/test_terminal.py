"""At a terminal: what a person sees, and Ctrl-C."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chargen_ort.terminal import command, visible
from tests.conftest import artifact_bytes, random_model

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def rude_model(tmp_path_factory):
    """A model whose alphabet is what a terminal would execute."""
    characters = "\n\x07\x1b\x7f\x9b\u202e[2J"
    path = tmp_path_factory.mktemp("rude") / "rude.onnx"
    path.write_bytes(artifact_bytes(random_model(len(characters), scale=0.1), characters))
    return path


def at_a_terminal(arguments, keys=b"", seconds=20.0):
    """Run chargen-ort with a terminal as its three streams; returns status and screen."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [BIN / "chargen-ort", *map(str, arguments)],
        stdin=other, stdout=other, stderr=other, close_fds=True, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    os.write(main, keys)
    screen = b""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        screen += piece
    os.close(main)
    return process.wait(timeout=seconds), screen.decode().replace("\r\n", "\n")


def test_what_a_terminal_would_execute_is_made_visible():
    assert visible("a\tb\n") == "a\tb\n"
    assert visible("\x1b[31m\x07\x7f\x9b") == "\\x1b[31m\\x07\\x7f\\x9b"
    assert visible("\u202eabc\u2066") == "\\u202eabc\\u2066"
    assert visible("héllo 漢字 😀") == "héllo 漢字 😀"


def test_a_terminal_gets_escapes_and_a_pipe_gets_the_text(rude_model):
    arguments = ["--model", rude_model, "--length", 200, "--seed", 1]
    _, screen = at_a_terminal(arguments)
    assert "\\x1b" in screen
    assert not set(screen) & set("\x07\x1b\x7f\x9b\u202e")
    piped = subprocess.run(
        [BIN / "chargen-ort", *map(str, arguments)], capture_output=True, check=True
    )
    assert b"\x1b" in piped.stdout
    _, raw = at_a_terminal([*arguments, "--raw"])
    assert "\x07" in raw


def test_a_person_sees_the_start_before_its_continuation(hello_path):
    status, screen = at_a_terminal(
        ["--model", hello_path, "--start", "hell", "--temperature", 0, "--length", 7]
    )
    assert status == 0
    assert screen.endswith("\nhello world\n")


def test_a_start_cannot_command_a_terminal_either(rude_model):
    _, screen = at_a_terminal(["--model", rude_model, "--start", "\x1b[2J\x07", "--length", 0])
    assert screen.endswith("\n\\x1b[2J\\x07\n")


def test_too_little_memory_is_one_line(capsys):
    with pytest.raises(SystemExit) as left, command("chargen-ort"):
        raise MemoryError
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("chargen-ort: there is not enough memory; give")


def test_the_prompt_keeps_its_state(hello_path):
    keys = b"hell\n\n/undo\n/undo\n/help\nheXl\n/reset\nwor\n/quit\n"
    status, screen = at_a_terminal(
        ["--model", hello_path, "--interactive", "--temperature", 0, "--length", 7], keys
    )
    assert status == 0
    answers = [line.removeprefix("> ") for line in screen.splitlines()]
    assert answers.count("o world") == 1
    assert " hello " in answers  # the empty line went on
    assert any(answer == "ld hell" for answer in answers)
    assert f"{hello_path}: the model does not know the character 'X' (U+0058)" in screen
    assert "Traceback" not in screen


def test_the_prompt_ends_with_its_input(hello_path):
    result = subprocess.run(
        [BIN / "chargen-ort", "--model", hello_path, "--interactive", "--temperature", "0"],
        input="hell\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "o world hello" in result.stdout


@pytest.mark.alone
@pytest.mark.parametrize("way", ["stream", "batch"])
def test_ctrl_c_ends_within_200_ms_with_130(hello_path, way):
    more = ["--num", "100000000"] if way == "batch" else ["--length", "1000000000"]
    process = subprocess.Popen(
        [BIN / "chargen-ort", "--model", hello_path, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.read(2000)  # it is writing
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    # what is in the pipe must be read, or the process could wait for its reader
    _, stderr = process.communicate(timeout=10)
    assert time.monotonic() - begun < 0.2 * slack()
    assert process.returncode == 130
    assert len(stderr.splitlines()) == 1  # the model; no traceback


def slack():
    """How many times slower than alone a busy machine may be before a time limit means nothing."""
    return max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def test_ctrl_c_ends_a_score(hello_path, tmp_path):
    (tmp_path / "long.txt").write_text("hello world " * 2_000_000)
    process = subprocess.Popen(
        [BIN / "chargen-ort", "--model", hello_path, "score", tmp_path / "long.txt"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert b"model" in process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert (process.returncode, stdout, stderr) == (130, b"", b"")

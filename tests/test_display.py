"""What train-export shows while it works."""

import io
import re

import pytest

from chargen_export.display import Display, sparkline
from chargen_export.pipeline import train_and_export
from tests.conftest import SMALL, TIMES, run_here


@pytest.fixture
def times(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text(TIMES)
    return path


def test_a_pipe_gets_plain_lines(times, tmp_path):
    result = run_here(
        "train-export", times, "--epochs", 1, "--hidden-size", 16, cwd=tmp_path,
        env={"FORCE_COLOR": "1"},
    )  # fmt: skip
    assert len(re.findall(r"(?m)^\s*\S*\d+%", result.stderr)) == 10
    assert "\r" not in result.stderr
    assert "█" not in result.stderr


def test_the_sparkline_falls_with_the_loss():
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert sparkline([]) == ""
    assert sparkline([2.5]) == "▁"
    assert len(sparkline(list(range(1000)))) == 24


@pytest.mark.parametrize("ci", [True, False])
def test_a_terminal_gets_a_live_line_but_not_in_ci(times, tmp_path, monkeypatch, ci):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", "true")

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    file = Terminal()
    with Display(file) as display:
        train_and_export(times, tmp_path / "a.onnx", None, display, steps=30, **SMALL)
    assert ("\x1b[?25l" in file.getvalue()) is not ci  # the cursor is hidden while it lives
    assert ("▁" in file.getvalue()) is not ci


def test_it_says_which_model_is_being_trained(times, tmp_path):
    shown = io.StringIO()
    with Display(shown) as display:
        options = {"steps": 30, "teachers": 2, **SMALL}
        train_and_export(times, tmp_path / "t.onnx", None, display, **options)
    text = shown.getvalue()
    assert "2 teachers first, then the model, which learns from them" in text
    for phase in ("teacher 1 of 2", "teacher 2 of 2", "student of 2"):
        assert f"{phase}  step" in text
    report = (tmp_path / "t.run/report.html").read_text()
    assert "Last: student of 2." in report
    assert ", teacher 1 of 2)" in report

"""`chargen-ort score --lines`: columns, percentiles, what is odd, processes and streams."""

import contextlib
import itertools
import json
import multiprocessing
import os
import re
import select
import signal
import subprocess
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_ort import CharGenerator, lines
from chargen_ort.lines import LineOptions, SomeLines, score_some, some_at_once
from chargen_ort.workers import WorkerError, score_in_order
from tests.conftest import (
    ALPHABET,
    BIN,
    artifact_bytes,
    random_model,
    run,
    run_here,
)
from tests.tools.quantiles import with_quantiles

ALL = LineOptions()


def written(generator, count, seed):
    """Texts of a model's own that it has ended."""
    texts = generator.generate_batch([""] * count, 60, seed=seed)
    return [text for text in texts if len(text) < 60]


LETTERS = ALPHABET.rstrip("\n")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A model of documents that writes at random; its quantiles are of 2,000 of its own texts."""
    model = random_model(vocab_size=len(LETTERS) + 1, scale=1.5)
    plain = CharGenerator.from_bytes(artifact_bytes(model, LETTERS, end=True))
    scores = plain.score_batch(written(plain, 2500, seed=1))
    path = tmp_path_factory.mktemp("lines") / "lines.onnx"
    path.write_bytes(with_quantiles(model, scores, characters=LETTERS, end=True))
    return path


@pytest.fixture(scope="module")
def writer(path):
    return CharGenerator.load(path)


@pytest.fixture(scope="module")
def listed(writer, path):
    """A file of other texts of the model's own, and its lines."""
    clean = written(writer, 3000, seed=2)
    file = path.parent / "listed.txt"
    file.write_text("".join(f"{line}\n" for line in clean))
    return file, clean


def reported(generator, text, options=ALL):
    return "".join(score_some(generator, some, options).output for some in some_at_once([text]))


# Figures


def test_score_lines_prints_one_for_each_line(lines_path, tmp_path):
    listed = ["hello", "", "hellö", "öö", "hell", "h\tö"]
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in listed))
    scores = CharGenerator.load(lines_path).score_batch(listed, end=True)
    arguments = ("--model", lines_path, "score", tmp_path / "lines.txt", "--lines")
    result = run_here("chargen-ort", *arguments)
    assert (result.returncode, result.stderr) == (0, f"model {lines_path}\n")
    # as the lines share calls in another way here, a figure may round to the neighbouring digit
    columns = [line.split("\t", 4) for line in result.stdout.splitlines()]
    assert all(re.fullmatch(r"-?\d+\.\d{4}", figure) for row in columns for figure in row[:2])
    assert [float(row[0]) for row in columns] == pytest.approx([s.total for s in scores], abs=1e-4)
    bits = [score.bits_per_char for score in scores]
    assert [float(row[1]) for row in columns] == pytest.approx(bits, abs=1e-4)
    assert [row[2:] for row in columns] == [
        ["-", str(score.unknown), line] for score, line in zip(scores, listed, strict=True)
    ]
    assert [score.unknown for score in scores] == [0, 0, 1, 2, 0, 2]
    assert max(scores, key=lambda score: score.total) is scores[0], "a whole line is the best"
    parsed = [
        json.loads(line)
        for line in run_here("chargen-ort", *arguments, "--json").stdout.splitlines()
    ]
    assert [p["line"] for p in parsed] == listed
    assert [p["log_probability"] for p in parsed] == pytest.approx([s.total for s in scores])
    assert [p["unknown"] for p in parsed] == [s.unknown for s in scores]
    assert len({tuple(p) for p in parsed}) == 1, "the same keys in each"


def test_a_line_that_is_refused_does_not_end_the_others(lines_path, tmp_path):
    (tmp_path / "lines.txt").write_text("hello\nhellö\nö\nhello\n")
    arguments = ["--model", lines_path, "score", tmp_path / "lines.txt", "--lines"]
    result = run_here("chargen-ort", *arguments, "--unknown", "error")
    assert result.returncode == 1
    first, second, third, fourth = result.stdout.splitlines()
    assert first == fourth
    assert (second, third) == ("-\t-\t-\t-\thellö", "-\t-\t-\t-\tö")
    _, *complaints = result.stderr.splitlines()
    unknown = "the model does not know the character 'ö' (U+00F6) at position"
    assert [line.split(",")[0] for line in complaints] == [
        f"chargen-ort: {lines_path}: line 2: {unknown} 4",
        f"chargen-ort: {lines_path}: line 3: {unknown} 0",
    ]
    as_json = run_here(
        "chargen-ort", *arguments, "--unknown", "error", "--json"
    ).stdout.splitlines()
    refused = json.loads(as_json[1])
    assert refused.pop("line") == "hellö"
    assert set(refused.values()) == {None}


def test_a_line_without_characters_has_no_score_where_the_model_knows_no_line_end(hello_path):
    result = run_here(
        "chargen-ort", "--model", hello_path, "score", "-", "--lines", stdin="\nhell\n"
    )
    empty, hell = result.stdout.splitlines()
    assert empty == "-\t-\t-\t-\t"
    assert hell.endswith("\t-\t0\thell")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("ab\u00e9 ", max_size=7), min_size=1, max_size=40), st.integers(1, 40))
def test_a_line_has_the_same_figures_wherever_the_list_is_cut(writer, texts, cut):
    whole = [score.total for score in writer.iterate_scores(texts)]
    parts = [texts[:cut], texts[cut:]]
    assert [s.total for part in parts for s in writer.iterate_scores(part)] == whole
    alone = [score.total for text in texts for score in writer.iterate_scores([text])]
    assert alone == whole
    assert [s.total for s in writer.iterate_scores(texts, batch_size=3)] == whole


@settings(max_examples=50, deadline=None)
@given(st.text("a\n", max_size=30), st.lists(st.integers(0, 30), max_size=5))
def test_lines_come_in_order_however_the_text_is_cut(text, cuts):
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    lots = list(some_at_once(pieces))
    found = [line for some in lots for line in some.lines]
    assert found == text.split("\n")[: len(found)]
    assert "".join(text.split("\n")[len(found) :]) == ""
    numbers = [some.first + place for some in lots for place in range(len(some.lines))]
    assert numbers == list(range(1, len(found) + 1))


def test_lines_are_taken_a_bounded_number_at_a_time(monkeypatch):
    monkeypatch.setattr(lines, "LINES_AT_ONCE", 7)
    monkeypatch.setattr(lines, "CHARACTERS_AT_ONCE", 30)
    text = "".join(f"{'hello world'[: i % 12]}\n" for i in range(50)) + "h" * 40
    lots = list(some_at_once([text]))
    assert [line for some in lots for line in some.lines] == text.split("\n")
    assert max(len(some.lines) for some in lots) <= 7
    assert max(sum(map(len, some.lines[:-1])) for some in lots) < 30


# What is odd


def test_of_other_texts_of_its_kind_one_in_a_hundred_is_above_99(writer, listed, path):
    file, clean = listed
    share = np.mean([s.percentile > 99 for s in writer.score_batch(clean)])
    assert 0.005 <= share <= 0.015
    counted = run_here(
        "chargen-ort", "--model", path, "score", file, "--lines", "--above", 99, "--count"
    )
    assert (counted.returncode, counted.stdout) == (0, f"{round(share * len(clean))}\n")


def test_above_prints_the_odd_lines_alone_with_the_figures_that_they_have_among_all(listed, path):
    file, _ = listed
    arguments = ("chargen-ort", "--model", path, "score", file, "--lines")
    every = run_here(*arguments).stdout.splitlines()
    odd = [line for line in every if float(line.split("\t")[2]) > 90]
    assert 0 < len(odd) < len(every) / 5
    assert run_here(*arguments, "--above", 90).stdout.splitlines() == odd
    figures = json.loads(run_here(*arguments, "--above", 90, "--count", "--json").stdout)
    assert figures == {"read": len(every), "above": 90, "odd": len(odd)}
    objects = run_here(*arguments, "--above", 90, "--json").stdout.splitlines()
    assert [json.loads(line)["line"] for line in objects] == [line.split("\t")[4] for line in odd]


def test_a_percentile_is_of_whole_texts_with_their_ends(writer):
    [whole] = writer.score_batch(["abc"])
    assert whole.percentile == pytest.approx(writer.score("abc").percentile, abs=0.01)
    assert writer.score_batch(["abc"], end=True)[0].percentile == whole.percentile
    assert writer.score_batch(["abc"], end=False)[0].percentile is None


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--lines", "--above", "100"], ["above is 100", "held-out texts", "below 99."]),
        (["--lines", "--above", "-1"], ["above is -1"]),
        (["--lines", "--above", "nan"], ["above is nan"]),
        (["--lines", "--count"], ["--above"]),
        (["--above", "99"], ["add --lines"]),
        (["--jobs", "2"], ["--jobs is for lines"]),
        (["--lines", "--jobs", "0"], ["jobs is 0; give 1 to 256"]),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_cure(listed, path, options, parts):
    result = run_here("chargen-ort", "--model", path, "score", listed[0], *options)
    assert (result.returncode, result.stdout) == (2, "")
    message = result.stderr.splitlines()[-1]
    assert all(part in message for part in parts), message


def test_a_file_without_quantiles_says_how_to_get_one_that_has_them(lines_path, listed):
    result = run_here(
        "chargen-ort", "--model", lines_path, "score", listed[0], "--lines", "--above", 9
    )
    assert result.returncode == 2
    assert "has no quantiles" in result.stderr
    assert "--holdout spread" in result.stderr


# Running text


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A model of running text, its quantiles of 400 windows of 8 characters of its own."""
    model = random_model(scale=1.5)
    plain = CharGenerator.from_bytes(artifact_bytes(model))
    pieces = plain.generate_batch([""] * 400, 9, seed=1)
    path = tmp_path_factory.mktemp("running") / "running.onnx"
    path.write_bytes(with_quantiles(model, [plain.score(text) for text in pieces], documents=False))
    return path


def test_of_running_text_windows_are_odd(running, tmp_path):
    generator = CharGenerator.load(running)
    text = generator.generate(length=400, seed=3)[:200] + "z" * 9 + "\n" * 20
    (tmp_path / "t.txt").write_text(text)
    arguments = ("chargen-ort", "--model", running, "score", tmp_path / "t.txt")
    expected = []
    for begin in range(0, len(text) - 8, 8):
        score = generator.score(text[begin : begin + 9])
        if score.percentile > 80:
            expected.append((begin + 1, text[begin + 1 : begin + 9]))
    assert 0 < len(expected) < 28
    odd = run_here(*arguments, "--above", 80).stdout.splitlines()
    assert [(int(line.split("\t")[0]), json.loads(line.split("\t")[4])) for line in odd] == expected
    assert run_here(*arguments, "--above", 80, "--count").stdout == f"{len(expected)}\n"
    shown = run_here(*arguments, "--window", 8).stdout
    assert "percentile" in shown.splitlines()[-1]
    assert "the median of its 28 windows of 8 characters" in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "part"),
    [(["--lines"], "windows are, not lines"), (["--window", "7"], "window is 7")],
)
def test_what_running_text_cannot_tell_is_refused(running, listed, options, part):
    result = run_here(
        "chargen-ort", "--model", running, "score", listed[0], "--above", 80, *options
    )
    assert result.returncode == 2
    assert part in result.stderr


# Streams and processes


def test_a_line_is_answered_before_the_next_one_comes(path):
    command = [BIN / "chargen-ort", "--model", path, "score", "-", "--lines"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as live:
        for line in ("abc", "def"):
            live.stdin.write(f"{line}\n")
            live.stdin.flush()
            assert live.stdout.readline().endswith(f"\t0\t{line}\n")
        live.stdin.close()
        assert (live.stdout.read(), live.wait()) == ("", 0)


def test_what_is_no_text_ends_the_command_after_the_lines_before_it(path):
    command = [BIN / "chargen-ort", "--model", path, "score", "-", "--lines"]
    result = subprocess.run(command, input=b"abc\n" * 30_000 + b"\xff\n", capture_output=True)
    assert result.returncode == 2
    assert result.stdout.count(b"\n") >= 10_000
    assert b"standard input is not UTF-8: byte 0xff" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_is_read_of_an_endless_list_than_is_scored_soon(writer, jobs):
    taken = []
    endless = (taken.append(n) or SomeLines(n + 1, ["abc"]) for n in itertools.count())
    reports = score_in_order(writer, endless, ALL, jobs)
    first = [report.output for report in itertools.islice(reports, 10)]
    reports.close()
    assert first == [reported(writer, "abc")] * 10
    assert len(taken) <= 10 + 2 * jobs
    assert not multiprocessing.active_children()


def test_several_processes_print_the_same_bytes_in_order(listed, path):
    arguments = ("chargen-ort", "--model", path, "score", listed[0], "--lines")
    alone = run_here(*arguments)
    result = run(*arguments, "--jobs", "2")
    assert (result.returncode, result.stdout) == (0, alone.stdout)


def test_a_process_that_is_killed_is_one_line(writer):
    def lots():
        yield SomeLines(1, ["abc"])
        yield SomeLines(2, ["abc"])
        for child in multiprocessing.active_children():
            child.kill()
        yield from (SomeLines(n, ["abc"]) for n in range(3, 300))

    with pytest.raises(WorkerError, match="give fewer --jobs") as raised:
        list(score_in_order(writer, lots(), ALL, 2))
    assert "\n" not in str(raised.value)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("end", "status"), [("ctrl-c", 130), ("closed", -signal.SIGPIPE), ("killed", -signal.SIGKILL)]
)
def test_with_the_command_all_its_processes_end(path, end, status):
    """By Ctrl-C and by a reader that has enough without a word, and where somebody kills it."""
    command = [BIN / "chargen-ort", "--model", path, "score", "-", "--lines", "--jobs", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as busy:
        while not select.select([busy.stdout], [], [], 0.05)[0]:  # until the processes work
            busy.stdin.write(b"abc\n")
            busy.stdin.flush()
        if end == "ctrl-c":
            os.killpg(busy.pid, signal.SIGINT)
        elif end == "killed":
            busy.kill()
        busy.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            while busy.poll() is None:
                busy.stdin.write(b"abc\n" * 1000)
        errors = busy.stderr.read().splitlines()
        with contextlib.suppress(BrokenPipeError):
            busy.stdin.close()
    assert busy.returncode == status
    assert errors[0] == f"model {path}".encode()
    assert len(errors) == 1 or end == "killed"  # of which Python's resource tracker has a word
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(busy.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process of the command is still there")

"""What a run of train-export leaves behind, and how it ends."""

import json
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest

from chargen_export.pipeline import train_and_export
from chargen_ort import OptionError, read_artifact
from chargen_train.checkpoint import load_checkpoint
from chargen_train.events import TrainingStoppedError
from chargen_train.files import write_atomically
from chargen_train.report import render_report
from chargen_train.run_folder import RunFolder
from tests.conftest import BIN, SMALL, TIMES, assert_refused, observing, run, run_here


@pytest.fixture
def times(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text(TIMES)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that ended well, of a text that means something in HTML."""
    folder = tmp_path_factory.mktemp("finished")
    corpus = folder / "<b> & 'co'.txt"
    corpus.write_text("<script>alert('&amp;')</script>\n\x07\u202e" * 400)
    train_and_export(corpus, folder / "out.onnx", steps=40, **SMALL)
    return RunFolder(folder / "out.onnx")


# The run folder


def test_a_run_folder_stands_beside_the_artifact(finished):
    assert finished.path.name == "out.run"
    assert {p.name for p in finished.path.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "report.html",
    }


def test_the_configuration_holds_settings_and_results(finished):
    config = json.loads(finished.config.read_text())
    artifact = read_artifact(finished.artifact)
    assert config["finished"] is True
    assert config["artifact"] == "out.onnx"
    assert config["training"] == artifact.training.to_json()
    assert config["parity"] == artifact.certificate.to_json()
    assert config["settings"]["hidden_size"] == 16
    assert config["corpus"]["sha256"] == artifact.training.corpora[0].sha256
    assert sum(config["corpus"]["counts"]) == config["corpus"]["characters"]


def test_the_metrics_tell_the_course_of_the_run(finished):
    lines = [json.loads(line) for line in finished.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    assert lines[-1]["step"] == 40
    assert lines[-1]["fraction"] == 1
    assert lines[0]["loss"] > lines[-1]["loss"]
    evaluations = [line for line in lines if "samples" in line]
    assert len(evaluations) == 10
    for line in evaluations:
        assert set(line["samples"]) == {"0.5", "0.8", "1"}
        assert line["bits_per_char"] == pytest.approx(line["validation"] / 0.693147, rel=1e-5)


def test_a_second_run_takes_the_place_of_a_finished_one(finished, times, tmp_path):
    for steps in (4, 6):
        train_and_export(times, tmp_path / "a.onnx", steps=steps, **SMALL)
    assert {p.name for p in tmp_path.iterdir()} == {"times.txt", "a.onnx", "a.run"}
    assert RunFolder(tmp_path / "a.onnx").read_metrics()[-1]["step"] == 6


def test_an_unfinished_run_is_moved_aside_and_can_still_be_resumed(times, tmp_path):
    out = tmp_path / "a.onnx"
    stop = observing(should_stop=lambda: True)
    warnings = []
    with pytest.raises(TrainingStoppedError):
        train_and_export(times, out, None, stop, steps=20, **SMALL)
    train_and_export(times, out, None, observing(on_warning=warnings.append), steps=3, **SMALL)
    aside = tmp_path / "a.unfinished-1.onnx"
    assert str(aside) in warnings[0]
    assert "--resume --out" in warnings[0]
    artifact, _ = train_and_export(times, aside, resume=True)
    assert artifact.training.steps == 20


def test_a_folder_that_cannot_be_written_is_a_warning_not_the_end(times, tmp_path, monkeypatch):
    warnings = []

    def full(path, data, previous=None):
        if path.name != "config.json":  # without which no run would begin
            raise OptionError(f"cannot write {path}: No space left on device")
        write_atomically(path, data)

    monkeypatch.setattr("chargen_train.checkpoint.write_atomically", full)
    monkeypatch.setattr("chargen_train.run_folder.write_atomically", full)
    out = tmp_path / "a.onnx"
    train_and_export(times, out, None, observing(on_warning=warnings.append), steps=10, **SMALL)
    assert read_artifact(out).training.steps == 10
    assert sum("run folder is not complete" in warning for warning in warnings) == 1
    assert sum("no checkpoint at step" in warning for warning in warnings) >= 1


def test_a_configuration_that_was_damaged_does_not_end_the_run(times, tmp_path):
    out, warnings = tmp_path / "a.onnx", []

    def damage(progress):
        RunFolder(out).config.write_text("{}")

    observer = observing(on_progress=damage, on_warning=warnings.append)
    train_and_export(times, out, None, observer, steps=60, **SMALL)
    assert read_artifact(out).training.steps == 60
    assert len(warnings) == 1


def test_metrics_that_were_cut_off_are_mended_on_resuming(times, tmp_path):
    out = tmp_path / "a.onnx"
    with pytest.raises(TrainingStoppedError):
        train_and_export(times, out, None, observing(should_stop=lambda: True), steps=9, **SMALL)
    with open(RunFolder(out).metrics, "a") as file:
        file.write('{"step": 3, "fraction": 0.3}\n{"step": 4, "fra')
    train_and_export(times, out, resume=True)
    lines = [json.loads(line) for line in RunFolder(out).metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 10))


# Resuming with the command


def test_a_killed_command_is_resumed_to_the_same_file(times, tmp_path):
    settings = ["--hidden-size", "16", "--epochs", "0.5", "--seq-length", "16", "--batch-size", "4"]
    whole = run_here("train-export", times, "--out", "whole.onnx", *settings, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [BIN / "train-export", times, "--out", "a.onnx", *settings, "--checkpoint-minutes", 0]
    process = subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(tmp_path / "a.run/checkpoint.previous.pt")
    process.kill()
    process.communicate()
    assert not (tmp_path / "a.onnx").exists()
    step = load_checkpoint(tmp_path / "a.run/checkpoint.pt").step
    result = run_here("train-export", times, "--out", "a.onnx", "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"after step {step:,}" in result.stderr
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    steps = [line["step"] for line in RunFolder(tmp_path / "a.onnx").read_metrics()]
    assert steps == sorted(set(steps))
    assert 0 < step < steps[-1]


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} never came")


def test_resume_refuses_other_settings_and_another_corpus_by_name(times, tmp_path):
    with pytest.raises(TrainingStoppedError):
        train_and_export(
            times, tmp_path / "a.onnx", None, observing(should_stop=lambda: True), steps=9, **SMALL
        )
    common = ["--out", "a.onnx", "--resume"]
    other = run_here("train-export", times, *common, "--hidden-size", 32, cwd=tmp_path)
    assert_refused(other, "hidden_size is 32, the run has 16; leave --hidden-size out")
    other = run_here("train-export", times, *common, "--epochs", 2, cwd=tmp_path)
    assert_refused(other, "epochs is 2.0, the run has not given")
    times.write_text(TIMES + "!")
    assert_refused(run_here("train-export", times, *common, cwd=tmp_path), "give the same file")
    other = run_here("train-export", times, "--out", "b.onnx", "--resume", cwd=tmp_path)
    assert_refused(other, "no such checkpoint: b.run/checkpoint.pt")
    assert not (tmp_path / "b.run").exists()


# Signals


@pytest.mark.parametrize(
    ("number", "status", "files"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--precision", "int8"])],
)
def test_a_signal_saves_the_run_and_says_how_to_go_on(times, tmp_path, number, status, files):
    process = start_endless(times, tmp_path, *files)
    begun = time.monotonic()
    process.send_signal(number)
    _, message = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == status
    last = message.splitlines()[-1]
    step = load_checkpoint(tmp_path / "a b.run/checkpoint.pt").step
    assert f"stopped after step {step:,}; the last good checkpoint is a b.run/checkpoint.pt" in last
    options = " ".join(["--out 'a b.onnx'", *files])
    assert last.endswith(f"go on with: train-export times.txt {options} --resume")
    assert "Traceback" not in message
    assert not (tmp_path / "a b.onnx").exists()


def test_a_second_signal_ends_at_once(times, tmp_path):
    # the first is held up by a step that does not end
    code = (
        "import time, chargen_train.run as t\n"
        "t.Run.take_step = lambda self: (print('stuck', flush=True), time.sleep(60))\n"
        "import sys; from chargen_train.signals import StopSignals\n"
        "StopSignals.should_stop(s := StopSignals())\n"
        "with s: t.Run.take_step(None); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    assert time.monotonic() - begun < 1
    process.stdout.close()


def test_a_signal_before_the_first_step_leaves_nothing(times, tmp_path):
    process = start(times, tmp_path, "--minutes", 5)
    process.stderr.readline()  # the corpus was read
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in message
    assert not (tmp_path / "a b.onnx").exists()


def start(times, folder, *options):
    command = [BIN / "train-export", times.name, "--out", "a b.onnx", "--hidden-size", 16, *options]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def start_endless(times, folder, *options):
    """A run that has made some steps and would last for hours."""
    process = start(times, folder, "--epochs", 100_000, "--checkpoint-minutes", 0.01, *options)
    wait_for(folder / "a b.run/checkpoint.pt")
    assert process.poll() is None, process.stderr.read()
    return process


# The time given


@pytest.mark.alone
def test_minutes_are_kept_every_export_included(times, tmp_path):
    durations = []
    while len(durations) < 3:  # what else the machine does in those seconds is not the command's
        begun = time.monotonic()
        options = ["--hidden-size", 32, "--minutes", 0.2, "--precision", "all"]
        result = run("train-export", times, *options, cwd=tmp_path)
        durations.append(time.monotonic() - begun)
        assert result.returncode == 0, result.stderr
        if durations[-1] == pytest.approx(12, rel=0.1):  # 5% if idle, see TRAINING.md
            return
    pytest.fail(f"12 s were given, the runs took {durations}")


# The report


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_page_that_needs_nothing_else(finished):
    page = Page(finished.report.read_text())
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base", "b-i"}
    for _, name, value in page.attributes:
        assert name not in {"src", "href", "srcset", "action"}
        assert not name.startswith("on")
        assert "url(" not in (value or "")
    assert "://" not in finished.report.read_text()


def test_the_report_shows_the_text_it_was_trained_on_as_text(finished):
    text = "".join(Page(finished.report.read_text()).text)
    assert "<b> & 'co'" in text
    assert "<script>alert('&amp;')</script>\n\\u0007\\u202e" in text


def test_the_report_tells_the_whole_story(finished):
    page = Page(finished.report.read_text())
    text = "".join(page.text)
    config = finished.read_config()
    validation = config["training"]["validation"]
    for fact in (
        f"{validation['bits_per_char']:.3f}",
        f"{validation['nats_per_char']:.4f}",
        config["corpus"]["sha256"],
        f"{config['corpus']['characters']:,}",
        "Run finished",
        "bits per character",
        "temperature 0.5",
        "hidden size",
        f"{config['parity']['largest_logits_difference']:.1e}",
        "chargen-ort --model 'out.onnx'",
        "chargen_ort.load('out.onnx')",
    ):
        assert fact in text, fact
    for name in ("train", "validation"):
        (line,) = curve_paths(finished.report.read_text(), name)
        assert line.count("L") >= 9
        numbers = list(map(float, re.findall(r"-?\d+\.\d+", line)))
        assert all(0 <= x <= 860 for x in numbers)


def curve_paths(page, name):
    return re.findall(rf'<path class="{name}" d="([^"]*)"', page)


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_the_report_of_a_run_that_has_just_begun(finished, lines):
    config = finished.read_config() | {"finished": False}
    for name in ("training", "parity", "artifact_bytes"):
        del config[name]
    page = Page(render_report(config, finished.read_metrics()[:lines]))
    assert ("just begun" if lines == 0 else "% done") in "".join(page.text)


def test_each_of_several_models_has_a_curve_of_its_own(finished):
    config = finished.read_config() | {"finished": False}
    for name in ("training", "parity", "artifact_bytes"):
        del config[name]
    phases = ["teacher 1 of 2"] * 20 + ["teacher 2 of 2"] * 15
    metrics = finished.read_metrics()
    lines = [
        line | {"phase": phase}
        for line, phase in zip(metrics, phases + ["student of 2"] * 99, strict=False)
    ]
    page = render_report(config, lines)
    measured = [line for line in lines if "validation" in line]
    for name, points in (("train", lines), ("validation", measured)):
        curves = curve_paths(page, name)
        assert len(curves) == 3
        assert sum(len(curve.split("L")) for curve in curves) == len(points)
    of_student = [line for line in measured if line["phase"] == "student of 2"]
    best = min(line["bits_per_char"] for line in of_student)
    text = "".join(Page(page).text)
    assert f"{best:.3f}bits per character, best so far" in text
    assert "Last: student of 2." in text


def test_the_report_says_which_weights_are_exported_and_what_went_badly(finished):
    config = finished.read_config()
    notes = ["training took only 20 steps"]
    training = config["training"] | {"exported_step": 14, "notes": notes}
    text = "".join(Page(render_report(config | {"training": training}, [])).text)
    assert "14step whose weights are exported" in text
    assert "Training took only 20 steps." in text


def test_a_loss_that_is_not_finite_does_not_break_the_curve(finished):
    lines = finished.read_metrics()
    lines[3] = lines[3] | {"loss": float("nan")}
    page = render_report(finished.read_config(), lines)
    assert "nan" not in curve_paths(page, "train")[0]

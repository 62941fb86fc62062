"""A run that has ended takes more time, and goes on from its best weights."""

import dataclasses
import json
import shutil

import pytest
import torch

from chargen_export.pipeline import train_and_export
from chargen_ort import OptionError, read_artifact
from chargen_train.checkpoint import load_checkpoint, save_checkpoint
from chargen_train.choosing import choose_recipe
from chargen_train.continuation import with_more_time
from chargen_train.corpus import load_corpus
from chargen_train.events import Supervision, TrainingStoppedError
from chargen_train.run_folder import RunFolder
from chargen_train.training import train
from tests.conftest import SMALL, TIMES, assert_refused, observing, run_here


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("more") / "times.txt"
    path.write_text(TIMES)
    return load_corpus(path)


@pytest.fixture(scope="module", params=[0, 2], ids=["alone", "taught"])
def ended(request, corpus, tmp_path_factory):
    """The checkpoint of a run that has ended, with teachers and without."""
    path = tmp_path_factory.mktemp("ended") / "checkpoint.pt"
    sizes = {"hidden_size": 16, "num_layers": 1, "batch_size": 4, "seq_length": 16}
    recipe = choose_recipe(
        len(corpus.training), steps=12, dropout=0.2, teachers=request.param, **sizes
    )
    train(corpus, recipe, supervision=Supervision(path))
    return load_checkpoint(path)


def go_on(corpus, checkpoint, path=None, stop_at=None):
    """Train on; returns the result and the reports of each step."""
    reports = []
    observer = observing(
        on_progress=reports.append,
        should_stop=lambda: bool(reports) and reports[-1].step == stop_at,
    )
    supervision = Supervision(path)
    return train(corpus, checkpoint.recipe, observer, supervision, checkpoint), reports


def test_the_steps_are_added_and_the_schedule_begins_anew(corpus, ended):
    trained, reports = go_on(corpus, with_more_time(ended, steps=20))
    assert [report.step for report in reports] == list(range(13, 33))
    rates = [report.learning_rate for report in reports]
    assert max(rates) == pytest.approx(ended.recipe.learning_rate, rel=0.02)
    assert rates[-1] < 0.05 * max(rates)
    assert reports[-1].fraction == 1
    assert trained.summary.steps == 32
    assert trained.summary.settings["length"] == "12 steps, then 20 steps"
    assert "steps" not in trained.summary.settings
    assert trained.summary.epochs == pytest.approx(32 * 4 * 16 / len(corpus.training))


def test_it_goes_on_from_the_best_weights(ended):
    more = with_more_time(ended, steps=5)
    for name, weights in ended.state["best"]["weights"].items():
        assert torch.equal(more.state["learner"]["weights"][name], weights)
        assert torch.equal(more.state["learner"]["average"][name], weights)


def test_stopped_and_resumed_it_ends_with_the_same_weights(corpus, ended, tmp_path):
    path = tmp_path / "checkpoint.pt"
    begun = with_more_time(ended, steps=6)
    whole, _ = go_on(corpus, begun)
    save_checkpoint(path, begun)
    for step in (13, 16):
        with pytest.raises(TrainingStoppedError):
            go_on(corpus, load_checkpoint(path), path, step)
        assert load_checkpoint(path).step == step
    resumed, _ = go_on(corpus, load_checkpoint(path))
    assert resumed.summary == whole.summary
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_it_may_be_given_more_time_again(corpus, ended, tmp_path):
    path = tmp_path / "checkpoint.pt"
    go_on(corpus, with_more_time(ended, steps=2), path)
    trained, _ = go_on(corpus, with_more_time(load_checkpoint(path), epochs=0.05))
    assert trained.summary.settings["length"] == "12 steps, then 2 steps, then 0.05 epochs"
    assert trained.summary.steps > 14


def test_minutes_may_follow_steps_and_are_kept(corpus, ended):
    more = with_more_time(ended, minutes=0.02)
    assert more.seconds == 0
    trained, reports = go_on(corpus, more)
    assert reports[-1].fraction == pytest.approx(1, abs=0.2)
    assert reports[0].seconds > ended.seconds, "the seconds of a run go on"
    assert trained.summary.settings["length"] == "12 steps, then 0.02 min"


def test_time_that_makes_nothing_better_exports_what_there_was(corpus, ended):
    best = ended.state["best"] | {"loss": 0.0}  # which nothing can be better than
    perfect = dataclasses.replace(ended, state=ended.state | {"best": best})
    trained, _ = go_on(corpus, with_more_time(perfect, steps=5))
    assert trained.summary.exported_step <= 12
    for name, weights in ended.model.state_dict().items():
        assert torch.equal(weights, trained.model.state_dict()[name]), name
    assert any("which the run had before it was given more time" in n for n in trained.notes)


def test_a_length_is_one_of_three_and_in_its_range(ended):
    for wrong in ({}, {"steps": 3, "minutes": 1.0}, {"steps": 0}):
        with pytest.raises(OptionError):
            with_more_time(ended, **wrong)


# The command


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "times.txt").write_text(TIMES)
    train_and_export(folder / "times.txt", folder / "a.onnx", steps=20, **SMALL)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of what a finished run leaves: times.txt, a.onnx and a.run."""
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


def test_a_finished_run_goes_on_by_what_it_is_given(folder):
    command = ["train-export", "times.txt", "--out", "a.onnx", "--resume"]
    result = run_here(*command, "--epochs", 1, cwd=folder)
    assert result.returncode == 0, result.stderr
    said = "after step 20; this comes in addition to 20 steps, which had ended at step 20"
    assert said in result.stderr
    artifact, run = read_artifact(folder / "a.onnx"), RunFolder(folder / "a.onnx")
    config, lines = run.read_config(), run.read_metrics()
    steps = artifact.training.steps
    assert steps > 20
    assert artifact.training.settings["length"] == "20 steps, then 1 epochs"
    assert config["settings"]["length"] == artifact.training.settings["length"]
    assert config["settings"]["steps"] is None
    assert config["finished"] is True
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    assert (lines[0]["step"], lines[-1]["step"]) == (1, steps)
    assert {line.get("part", 1) for line in lines if line["step"] > 20} == {2}
    assert {line.get("part", 1) for line in lines if line["step"] <= 20} == {1}
    assert "of part 2" in run.report.read_text()
    verified = run_here(
        "train-export", "verify", "a.onnx", "--checkpoint", "a.run/checkpoint.pt", cwd=folder
    )
    assert verified.returncode == 0, verified.stdout


def test_the_command_repeated_after_an_interruption_adds_nothing(folder):
    shutil.copytree(folder / "a.run", folder / "b/a.run")
    whole, _ = train_and_export(folder / "times.txt", folder / "b/a.onnx", resume=True, steps=10)
    asked = iter(range(100))
    stop = observing(should_stop=lambda: next(asked) == 4)
    again = {"out": folder / "a.onnx", "resume": True, "steps": 10}
    with pytest.raises(TrainingStoppedError):
        train_and_export(folder / "times.txt", observer=stop, **again)
    artifact, _ = train_and_export(folder / "times.txt", **again)
    assert artifact.training.steps == 30
    assert artifact.data == whole.data


def test_a_kill_before_the_first_step_of_the_new_time_adds_nothing_either(folder):
    run = RunFolder(folder / "a.onnx")
    save_checkpoint(run.checkpoint, with_more_time(load_checkpoint(run.checkpoint), steps=10))
    assert json.loads(run.config.read_text())["finished"], "the moment between the two writes"
    artifact, _ = train_and_export(folder / "times.txt", run.artifact, resume=True, steps=10)
    assert artifact.training.steps == 30


def test_a_run_that_has_not_ended_takes_no_other_length_and_an_ended_one_no_other_setting(folder):
    command = ["train-export", "times.txt", "--out", "a.onnx", "--resume"]
    assert_refused(
        run_here(*command, "--epochs", 1, "--hidden-size", 32, cwd=folder),
        "hidden_size is 32, the run has 16",
    )
    with pytest.raises(TrainingStoppedError):
        train_and_export(
            folder / "times.txt",
            folder / "b.onnx",
            None,
            observing(should_stop=lambda: True),
            steps=20,
            **SMALL,
        )
    assert_refused(
        run_here("train-export", "times.txt", "--out", "b.onnx", "--resume", "--epochs", 2,
                 cwd=folder),
        "epochs is 2.0, the run has not given; leave --epochs out: a run takes more time once it "
        "has ended",
    )  # fmt: skip

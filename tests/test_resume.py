"""A training run that stops goes on as if it never had."""

import copy
import dataclasses
import errno
import functools
import hashlib
import io
import os
import pickle
import subprocess
import sys

import pytest
import torch

from chargen_ort import OptionError, TrainingError
from chargen_train.checkpoint import (
    load_checkpoint,
    load_latest,
    previous_of,
    save_checkpoint,
)
from chargen_train.choosing import choose_recipe
from chargen_train.corpus import load_corpus
from chargen_train.events import Supervision, TrainingStoppedError
from chargen_train.training import train
from tests.conftest import HELLO, observing

TEXT = "it was the best of times, it was the worst of times; " * 200


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("resume") / "times.txt"
    path.write_text(TEXT)
    return load_corpus(path)


@pytest.fixture(scope="module")
def recipe(corpus):
    return choose_recipe(len(corpus.training), steps=12, hidden_size=16, num_layers=2, dropout=0.2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


@pytest.fixture(scope="module")
def uninterrupted(corpus):
    """What a run of a recipe gives that was never stopped; the same recipe is trained once."""
    return functools.cache(functools.partial(train, corpus))


def stop_after(steps):
    """A `should_stop` that says yes after so many steps."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= steps


def train_until(steps, corpus, recipe, path, resume=None):
    with pytest.raises(TrainingStoppedError, match=r"stopped after step \d+; the last good"):
        train(corpus, recipe, observing(should_stop=stop_after(steps)), Supervision(path), resume)
    return load_checkpoint(path)


def train_until_step(step, corpus, recipe, path):
    """The checkpoint after this step, however often the run was asked to stop before."""
    done = []
    observer = observing(
        on_progress=lambda progress: done.append(progress.step),
        should_stop=lambda: len(done) == step,
    )
    with pytest.raises(TrainingStoppedError):
        train(corpus, recipe, observer, Supervision(path))
    return load_checkpoint(path)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# The same weights


@pytest.mark.parametrize("steps", [1, 2, 7, 11])
def test_stopped_and_resumed_is_as_never_stopped(corpus, recipe, path, steps, uninterrupted):
    whole = uninterrupted(recipe)
    checkpoint = train_until(steps, corpus, recipe, path)
    assert checkpoint.step == steps
    resumed = train(corpus, recipe, resume=checkpoint)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.summary == whole.summary


@pytest.mark.parametrize("steps", range(1, 12))
def test_a_run_with_teachers_resumes_in_every_phase(corpus, recipe, path, steps, uninterrupted):
    recipe = dataclasses.replace(recipe, teachers=2)
    whole = uninterrupted(recipe)
    checkpoint = train_until_step(steps, corpus, recipe, path)
    assert len(checkpoint.state["teachers"]) == min(2, (steps - 1) // 3)
    resumed = train(corpus, recipe, resume=checkpoint)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.summary == whole.summary


@pytest.mark.parametrize("steps", [9, 11, 17])
def test_a_run_with_many_teachers_resumes_too(corpus, recipe, path, steps, uninterrupted):
    recipe = dataclasses.replace(recipe, teachers=5, steps=20, hidden_size=32)
    whole = uninterrupted(recipe)
    checkpoint = train_until_step(steps, corpus, recipe, path)
    resumed = train(corpus, recipe, resume=checkpoint)
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.summary == whole.summary


def test_a_run_may_be_resumed_again_and_again(corpus, recipe, path, uninterrupted):
    whole = uninterrupted(recipe).model.state_dict()
    checkpoint = None
    for _ in range(3):
        checkpoint = train_until(3, corpus, recipe, path, checkpoint)
    assert checkpoint.step == 9
    assert_same(train(corpus, recipe, resume=checkpoint).model.state_dict(), whole)


def test_windows_from_anywhere_resume_too(corpus, path):
    recipe = choose_recipe(len(corpus.training), "lesson", steps=8)
    whole = train(corpus, recipe).model.state_dict()
    checkpoint = train_until(5, corpus, recipe, path)
    assert_same(train(corpus, recipe, resume=checkpoint).model.state_dict(), whole)


def test_a_wide_model_resumes_in_the_number_format_it_began_with(corpus, path):
    recipe = choose_recipe(len(corpus.training), steps=3, hidden_size=160, dropout=0.2)
    for bf16 in (False, True):
        first = train_until(1, corpus, recipe, path)
        first = dataclasses.replace(first, plan=dataclasses.replace(first.plan, bf16=bf16))
        whole = train(corpus, recipe, resume=first).model.state_dict()
        second = train_until(1, corpus, recipe, path, first)
        assert second.plan.bf16 is bf16
        assert_same(train(corpus, recipe, resume=second).model.state_dict(), whole)


def test_a_finished_run_has_nothing_left_to_train(corpus, recipe, path):
    whole = train(corpus, recipe, supervision=Supervision(path))
    checkpoint = load_checkpoint(path)
    assert checkpoint.step == recipe.steps
    again = train(corpus, recipe, resume=checkpoint)
    assert again.summary == whole.summary
    assert_same(again.model.state_dict(), whole.model.state_dict())


def test_a_checkpoint_gives_the_best_model_and_its_vocabulary(corpus, recipe, path):
    trained = train(corpus, recipe, supervision=Supervision(path))
    checkpoint = load_checkpoint(path)
    assert_same(checkpoint.model.state_dict(), trained.model.state_dict())
    assert not checkpoint.model.training
    assert checkpoint.vocabulary == corpus.vocabulary
    assert checkpoint.recipe == recipe
    assert (checkpoint.corpus_name, checkpoint.corpus_sha256) == ("times", corpus.sha256)


def test_reading_a_checkpoint_leaves_the_global_generator_alone(corpus, recipe, path):
    train_until(1, corpus, recipe, path)
    before = torch.random.get_rng_state()
    assert load_checkpoint(path).model is not None
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.alone
def test_the_clock_of_a_run_goes_on_where_it_stood(corpus, path):
    recipe = choose_recipe(len(corpus.training), minutes=0.05, hidden_size=16)
    checkpoint = train_until(3, corpus, recipe, path)
    used = dataclasses.replace(checkpoint, seconds=0.9 * 60 * 0.05)
    reports = []
    train(corpus, recipe, observing(on_progress=reports.append), resume=used)
    assert reports[0].fraction > 0.9
    assert reports[0].learning_rate < 0.1 * recipe.learning_rate
    assert reports[-1].fraction == 1


def test_runs_killed_at_random_moments_end_with_the_same_weights():
    result = subprocess.run(
        [sys.executable, "-m", "tests.soak", "6"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "all ended with the same weights" in result.stdout


# When checkpoints are written


def test_a_checkpoint_is_written_at_each_best_and_the_one_before_is_kept(corpus, recipe, path):
    steps = []

    def note(progress):
        if path.exists():
            steps.append(load_checkpoint(path).step)

    train(corpus, recipe, observing(on_progress=note), Supervision(path, checkpoint_minutes=60))
    assert len(set(steps)) > 3
    assert load_checkpoint(path).step == 12
    assert load_checkpoint(previous_of(path)).step == max(s for s in steps if s < 12)
    assert {p.name for p in path.parent.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}


def test_a_checkpoint_is_written_as_often_as_asked(corpus, recipe, path):
    steps = []

    def note(progress):
        steps.append(load_checkpoint(path).step if path.exists() else 0)

    train(corpus, recipe, observing(on_progress=note), Supervision(path, checkpoint_minutes=0))
    assert steps == list(range(12))


@pytest.mark.parametrize("minutes", [-1, float("nan"), 1e9])
def test_checkpoints_come_at_least_once_a_day(minutes):
    with pytest.raises(OptionError, match="checkpoint_minutes is"):
        Supervision(checkpoint_minutes=minutes)


# What goes wrong


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_the_run(
    corpus, recipe, path, monkeypatch
):
    warnings, steps = [], []

    def fill(progress):
        steps.append(progress.step)
        if progress.step == 5:
            monkeypatch.setattr(os, "fsync", no_space)

    observer = observing(on_progress=fill, on_warning=warnings.append)
    trained = train(corpus, recipe, observer, Supervision(path, checkpoint_minutes=0))
    assert trained.summary.steps == 12
    assert load_checkpoint(path).step == 4
    assert load_checkpoint(previous_of(path)).step == 3
    assert warnings[0].startswith("no checkpoint at step 5: cannot write")
    assert "No space left on device; free some space" in warnings[0]
    assert len(list(path.parent.iterdir())) == 2  # no temporary file is left


def no_space(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_checkpoint(
    corpus, recipe, path
):
    checkpoint = train_until(4, corpus, recipe, path)
    bad = copy.deepcopy(checkpoint)
    bad.state["learner"]["weights"]["output.bias"].fill_(torch.nan)
    before = path.read_bytes()
    message = r"not finite.*; the last good checkpoint is .*checkpoint.pt \(step 4\)"
    with pytest.raises(TrainingError, match=message):
        train(corpus, recipe, supervision=Supervision(path, checkpoint_minutes=0), resume=bad)
    assert path.read_bytes() == before


def test_a_gradient_that_is_not_finite_stops_before_the_step(corpus, recipe, path, monkeypatch):
    def poisoned(parameters, *_, **__):
        return torch.tensor(torch.inf)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    message = r"gradient norm inf at step 0.*no checkpoint was saved"
    with pytest.raises(TrainingError, match=message):
        train(corpus, recipe, supervision=Supervision(path))
    assert not path.exists()


def test_another_corpus_is_refused(corpus, recipe, path, tmp_path):
    checkpoint = train_until(1, corpus, recipe, path)
    (tmp_path / "times.txt").write_text(TEXT + "!")
    with pytest.raises(OptionError, match=rf"{corpus.sha256[:12]}….*give the same file"):
        train(load_corpus(tmp_path / "times.txt"), recipe, resume=checkpoint)


@pytest.mark.parametrize(("name", "value"), [("hidden_size", 17), ("seed", 3), ("dropout", 0.3)])
def test_other_settings_are_refused_by_name(corpus, recipe, path, name, value):
    checkpoint = train_until(1, corpus, recipe, path)
    own = getattr(recipe, name)
    option = name.replace("_", "-")
    with pytest.raises(
        OptionError, match=rf"{name} is {value}, the run has {own}; leave --{option}"
    ):
        train(corpus, dataclasses.replace(recipe, **{name: value}), resume=checkpoint)


def test_a_damaged_checkpoint_is_refused_wherever_it_is_damaged(corpus, recipe, path):
    train_until(1, corpus, recipe, path)
    data = path.read_bytes()
    for position in range(0, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(OptionError, match=r"is damaged|is not a checkpoint"):
            load_checkpoint(path)
    path.write_bytes(data[:-1])
    with pytest.raises(OptionError, match="is damaged"):
        load_checkpoint(path)


def test_the_one_before_takes_the_place_of_a_damaged_checkpoint(corpus, recipe, path):
    train(corpus, recipe, supervision=Supervision(path, checkpoint_minutes=0))
    path.write_bytes(path.read_bytes()[:-1])
    checkpoint, note = load_latest(path)
    assert checkpoint.step == 11
    assert "is damaged" in note
    assert "going on from the one before it, step 11" in note
    assert load_checkpoint(path).step == 11
    assert not previous_of(path).exists()


def test_a_run_killed_between_two_renames_is_found(corpus, recipe, path):
    train(corpus, recipe, supervision=Supervision(path, checkpoint_minutes=0))
    path.unlink()
    assert load_latest(path)[0].step == 11


def test_no_checkpoint_is_one_line(path):
    with pytest.raises(OptionError, match="no such checkpoint"):
        load_latest(path)


class Evil:
    """Unpickling it would run a command."""

    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize("save", [torch.save, pickle.dump])
def test_a_checkpoint_runs_no_code(path, monkeypatch, save):
    monkeypatch.chdir(path.parent)
    archive = io.BytesIO()
    save({"facts": Evil()}, archive)
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    path.write_bytes(f"chargen checkpoint 5\n{digest}\n".encode() + archive.getvalue())
    with pytest.raises(OptionError, match="is not a checkpoint of a run"):
        load_checkpoint(path)
    assert not (path.parent / "evil").exists()


def test_no_code_loads_anything_but_weights():
    import chargen_train

    for module in os.scandir(os.path.dirname(chargen_train.__file__)):
        if module.name.endswith(".py"):
            with open(module.path) as file:
                source = file.read()
            assert source.count("torch.load(") == source.count("weights_only=True)"), module.name


def test_a_corpus_of_no_held_out_text_has_checkpoints_too(tmp_path, path):
    (tmp_path / "hello.txt").write_text(HELLO)
    corpus = load_corpus(tmp_path / "hello.txt")
    recipe = choose_recipe(len(corpus.training), steps=6)
    whole = train(corpus, recipe)
    checkpoint = train_until(3, corpus, recipe, path)
    assert checkpoint.state["best"]["weights"] is not None, (
        "the text that is trained on tells what to keep"
    )
    save_checkpoint(path, checkpoint)  # what was read can be written
    resumed = train(corpus, recipe, resume=load_checkpoint(path))
    assert_same(resumed.model.state_dict(), whole.model.state_dict())

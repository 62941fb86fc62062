"""A run bounded by minutes ends when its time does, whatever it is doing then.

The clock is a fake one that goes on with every reading, and at one point of the run by an hour: as
if the machine had slept, or a terminal had blocked, or an evaluation had taken that long.
"""

import dataclasses

import numpy as np
import pytest
import torch

import chargen_train.planning
import chargen_train.run
import chargen_train.split
import chargen_train.training
from chargen_train.corpus import load_corpus
from chargen_train.evaluate import mean_loss
from chargen_train.events import Supervision
from chargen_train.outcome import describe_shortness
from chargen_train.planning import Plan, make_plan
from chargen_train.recipe import Recipe
from chargen_train.run import build_model
from chargen_train.split import WINDOW
from chargen_train.training import train
from tests.conftest import observing

HOUR = 3600.0
RECIPE = Recipe(
    hidden_size=12,
    num_layers=1,
    embedding_dim=4,
    seq_length=16,
    batch_size=4,
    learning_rate=0.02,
    minutes=1.0,
)
PLAN = Plan(device="cpu", bf16=False, threads=1, reserve=0.0, measured=512)


class FakeClock:
    """Seconds that pass only when they are read, `tick` at a time; an hour at reading `sleeps`."""

    def __init__(self, tick, sleeps=None):
        self.now, self.tick, self.sleeps, self.readings = 0.0, tick, sleeps, 0

    def __call__(self):
        self.readings += 1
        self.now += HOUR if self.readings == self.sleeps else self.tick
        return self.now


@dataclasses.dataclass
class Seen:
    """What a run did: models that were built, measured losses, steps, phases, and its result."""

    built: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)
    steps: int = 0
    phases: list[str] = dataclasses.field(default_factory=list)
    trained: object = None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("clock") / "corpus.txt"
    rng = np.random.default_rng(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    path.write_text(" ".join(rng.choice(words, 2_500)))
    return load_corpus(path)


@pytest.fixture
def run_with(corpus, monkeypatch, tmp_path):
    """Runs the recipe by a clock; `stall` names a function during which an hour passes, once."""

    def run(clock, teachers=0, stall=None):
        seen = Seen()
        build, measure = chargen_train.run.build_model, chargen_train.run.mean_loss

        def count_models(*args):
            seen.built += 1
            return build(*args)

        def record_loss(*args):
            seen.losses.append(measure(*args))
            return seen.losses[-1]

        def on_progress(progress):
            seen.steps = progress.step
            seen.phases.append(progress.phase)
            if stall == "display" and progress.step == 5:
                clock.now += HOUR

        def should_stop():
            if stall == "question" and seen.steps == 5:
                clock.now += HOUR
            return False

        with monkeypatch.context() as patch:
            patch.setattr(chargen_train.run, "build_model", count_models)
            patch.setattr(chargen_train.training, "build_model", count_models)
            patch.setattr(chargen_train.run, "mean_loss", record_loss)
            patch.setattr(chargen_train.training, "make_plan", lambda *args: PLAN)
            patch.setattr(chargen_train.run, "SAMPLE_LENGTH", 2)
            if stall in ("sample_texts", "save_checkpoint"):
                stall_once(patch, stall, clock)
            supervision = Supervision(
                checkpoint=tmp_path / "checkpoint.pt", checkpoint_minutes=0.1, clock=clock
            )
            recipe = dataclasses.replace(RECIPE, teachers=teachers)
            observer = observing(on_progress=on_progress, should_stop=should_stop)
            seen.trained = train(corpus, recipe, observer, supervision)
        return seen

    return run


def stall_once(patch, name, clock):
    module = chargen_train.run if name == "sample_texts" else chargen_train.training
    function = getattr(module, name)
    calls = []

    def stalling(*args):
        calls.append(args)
        if len(calls) == 2:
            clock.now += HOUR
        return function(*args)

    patch.setattr(module, name, stalling)


def assert_right_end(seen, corpus, teachers):
    """The best weights that were ever measured are exported, and nothing was begun in vain."""
    assert 1 <= seen.built <= teachers + 1, "no phase begins that the recipe does not have"
    assert seen.losses, "what is exported was measured"
    exported = mean_loss(seen.trained.model, corpus.validation.passages().head(PLAN.measured))
    assert exported == pytest.approx(min(seen.losses), abs=1e-5)
    if not teachers:
        assert set(seen.phases) == {""}


@pytest.mark.parametrize("teachers", [0, 2])
def test_the_best_weights_are_exported_wherever_the_time_ends(run_with, corpus, teachers):
    whole = FakeClock(tick=1.5)
    assert_right_end(run_with(whole, teachers), corpus, teachers)
    assert whole.readings > 30
    for reading in range(1, whole.readings + 1):
        seen = run_with(FakeClock(1.5, sleeps=reading), teachers)
        assert_right_end(seen, corpus, teachers)


@pytest.mark.parametrize("teachers", [0, 2])
@pytest.mark.parametrize("place", ["sample_texts", "save_checkpoint", "display", "question"])
def test_time_that_ends_during_other_work_ends_the_run(run_with, corpus, place, teachers):
    undisturbed = run_with(FakeClock(tick=0.5), teachers)
    seen = run_with(FakeClock(tick=0.5), teachers, stall=place)
    assert_right_end(seen, corpus, teachers)
    assert seen.trained.summary.steps < undisturbed.trained.summary.steps


def test_weights_that_became_much_worse_are_not_exported_and_a_note_says_so(
    run_with, corpus, monkeypatch
):
    """A model that falls apart in its last steps: the best that was measured is what counts."""
    step_of = chargen_train.run.Run.take_step

    def spoil(run):
        step_of(run)
        if run.fraction() > 0.7:
            torch.nn.init.zeros_(run.learner.average.output.weight)

    monkeypatch.setattr(chargen_train.run.Run, "take_step", spoil)
    seen = run_with(FakeClock(tick=0.08))
    assert_right_end(seen, corpus, teachers=0)
    summary = seen.trained.summary
    assert summary.exported_step < 0.8 * summary.steps
    [note] = seen.trained.notes
    assert note.startswith(f"the weights of step {summary.exported_step:,} are exported")
    assert summary.notes == (note,)


def test_a_run_that_could_not_learn_much_says_so(run_with):
    [note] = run_with(FakeClock(0.5, sleeps=6)).trained.notes
    assert note.startswith("training took only ")
    assert "--minutes" in note
    assert not [note for note in run_with(FakeClock(0.06)).trained.notes if "only" in note]


def test_a_loss_of_a_part_of_the_held_out_text_says_so(run_with, corpus, monkeypatch):
    monkeypatch.setattr(chargen_train.split, "_AREA", 2 * WINDOW)
    trained = run_with(FakeClock(0.5)).trained
    measured = trained.summary.validation.characters
    whole = int(corpus.validation.passages().characters.sum())
    assert measured < whole
    [note] = [note for note in trained.notes if "held-out" in note]
    assert f"when {measured:,} of {whole:,} held-out characters were measured" in note
    assert note in trained.summary.notes


def test_the_last_evaluation_has_time_if_the_machine_is_a_fifth_slower_then(corpus, monkeypatch):
    a_character = 1e-3  # seconds
    monkeypatch.setattr(chargen_train.planning, "_evaluation_seconds", lambda *_: (a_character, 0))
    plan = make_plan(build_model(corpus, RECIPE), corpus, RECIPE, export_seconds=0.0)
    during = a_character * plan.measured
    assert plan.reserve - during > 1.2 * a_character * corpus.validation.characters


def test_a_loss_of_all_of_the_held_out_text_says_nothing(run_with, corpus):
    trained = run_with(FakeClock(0.5)).trained
    assert trained.summary.validation.characters == corpus.validation.characters
    assert not [note for note in trained.notes if "held-out" in note]


@pytest.mark.parametrize(
    ("steps", "epochs", "tokens", "short"),
    [
        (1, 3.0, 1_000, True),
        (49, 100.0, 100_000, True),
        (50, 1.0, 10_000, False),
        (500, 0.9, 100_000, True),
        (500, 0.9, 1_000_000, False),  # of a long text a part is enough to learn from
        (500, 0.1, 1_000_000, True),
    ],
)
def test_much_is_learnt_from_a_part_of_a_long_text_and_little_from_few_steps(
    steps, epochs, tokens, short
):
    assert (describe_shortness(steps, epochs, tokens) is not None) == short


def test_slow_evaluations_become_fewer(run_with, monkeypatch):
    """All of them together take about a tenth of the run, however slow one is."""
    clock = FakeClock(tick=0.05)
    spent = []
    sample_texts = chargen_train.run.sample_texts

    def slow(*args):
        clock.now += 2.0
        spent.append(2.0)
        return sample_texts(*args)

    monkeypatch.setattr(chargen_train.run, "sample_texts", slow)
    run_with(clock)
    assert 1 <= len(spent) <= 4, "the last one included; of 60 seconds"

"""The training loop: truncated back-propagation through time, the best weights kept."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from chargen_ort.errors import ChargenError, OptionError, TrainingError
from chargen_train.base import BaseModel, take_weights
from chargen_train.checkpoint import Checkpoint, save_checkpoint
from chargen_train.corpus import Corpus
from chargen_train.device import (
    ThreadSwitch,
    choose_bf16,
    choose_device,
    choose_threads,
    may_switch_threads,
    own_randomness,
    threads,
)
from chargen_train.earlier import Earlier
from chargen_train.events import Observer, Supervision, TrainedModel, TrainingStoppedError
from chargen_train.model import CharGRU
from chargen_train.outcome import finish
from chargen_train.planning import Plan, make_plan
from chargen_train.recipe import Recipe
from chargen_train.resuming import refuse_other
from chargen_train.run import Run, build_model
from chargen_train.team import Team, noticing_loss

_SPEED_SECONDS = 0.7  # that steps are timed for


def train(
    corpus: Corpus,
    recipe: Recipe,
    observer: Observer = Observer(),  # noqa: B008 - does nothing
    supervision: Supervision = Supervision(),  # noqa: B008 - frozen
    resume: Checkpoint | None = None,
    base: BaseModel | None = None,
    team: Team = Team(),  # noqa: B008 - frozen
) -> TrainedModel:
    """Train a `CharGRU` on `corpus`, from the weights of `base` if there is one.

    A run that is resumed on a CPU has the weights, bit for bit, of one that never stopped, if
    steps or epochs bound it. If minutes do, the clock goes on from what the checkpoint had used,
    and the learning rate with it; and it computes with one thread while that is faster.

    Where several processes train, all of them call it with the same arguments; the leader writes
    the checkpoints, and it alone measures what the result is worth.

    Raises:
        TrainingError: the loss or the gradient is not finite, or a process of the team is gone;
            names the last good checkpoint.
        TrainingStoppedError: `observer.should_stop` said so.
        OptionError: the device is not there, or `resume` is of another corpus or recipe.
    """
    seconds = supervision.export_seconds
    begun = supervision.clock() if supervision.begun is None else supervision.begun
    if resume is not None:
        refuse_other(resume, corpus, asdict(recipe))
    device = choose_device(resume.plan.device if resume else recipe.device)
    if (leading := team.share(lambda: device.type)) != device.type:
        raise OptionError(
            f"the first process trains on {leading}, this one on {device.type}; give --device cpu"
        )
    most = torch.get_num_threads()
    count = resume.plan.threads if resume else team.share(lambda: choose_threads(recipe, device))
    if team.processes > 1:
        count = min(count, most)  # as they share the cores of a machine
    with own_randomness(device), threads(count):
        torch.manual_seed(recipe.seed)
        model = build_model(corpus, recipe)
        if base is not None and resume is None:
            take_weights(model, corpus.vocabulary, base)
        model = model.to(device)
        plan = team.share(lambda: _plan(model, corpus, recipe, seconds, resume))
        facts = resume.base if resume else base.facts if base else None
        earlier = resume.earlier if resume else Earlier()
        run = Run(model, corpus, recipe, plan, supervision.clock, facts, earlier, team)
        if resume is not None:
            run.load(resume.state)
        run.start(begun, resume.seconds if resume and resume.has_begun else None, seconds)
        saved_step = resume.step if resume else None
        saver = _CheckpointSaver(supervision, run, saved_step, observer.on_warning)
        switch = None
        # all processes of a team must round alike
        if may_switch_threads(recipe, device, most) and team.processes == 1:
            switch = ThreadSwitch(most, count)
        with noticing_loss(saver.describe):
            _take_steps(run, saver, switch, observer, supervision.clock)
            saver.save(run.step)
        observer.on_last_step()
        return finish(run)


def _plan(
    model: CharGRU, corpus: Corpus, recipe: Recipe, seconds: float, resume: Checkpoint | None
) -> Plan:
    """What a run depends on: measured, or as it was; more minutes have a reserve of their own."""
    if resume is None:
        return make_plan(model, corpus, recipe, seconds)
    if resume.has_begun or recipe.minutes is None:
        return resume.plan
    # the best weights so far stay what they are only if the same text measures those to come
    return replace(resume.plan, reserve=make_plan(model, corpus, recipe, seconds).reserve)


class _CheckpointSaver:
    """Saves a run's checkpoints. One that cannot be written is a warning, not the run's end.

    Args:
        supervision: where and how often.
        run: that is saved.
        saved_step: step of the checkpoint that is there already, None if there is none.
        warn: takes one line about a checkpoint that could not be written.
    """

    def __init__(
        self,
        supervision: Supervision,
        run: Run,
        saved_step: int | None,
        warn: Callable[[str], None],
    ) -> None:
        self._supervision = supervision
        self._run = run
        self._saved_step = saved_step
        self._warn = warn
        self._tried_at = run.now

    def save_if_due(self, step: int, at_best: bool) -> None:
        """Save at a best, or if the last try is long enough ago."""
        age = self._run.now - self._tried_at
        if at_best or age >= self._supervision.checkpoint_minutes * 60:
            self.save(step)

    def save(self, step: int) -> None:
        """Save now, unless `step` is saved already."""
        path = self._supervision.checkpoint
        if path is None or self._saved_step == step:
            return
        team, failed = self._run.team, False
        checkpoint = Checkpoint.of(self._run)
        try:
            if team.leads:
                save_checkpoint(path, checkpoint)
        except ChargenError as error:
            self._warn(f"no checkpoint at step {step:,}: {error}")
            failed = True
        if not team.any(failed):
            self._saved_step = step
        # counted from a failure too: a full disk is not tried again after every step
        self._tried_at = self._run.now

    def describe(self) -> str:
        """Which checkpoint there is to go on from."""
        path = self._supervision.checkpoint
        if path is None or self._saved_step is None:
            return "no checkpoint was saved"
        return f"the last good checkpoint is {path} (step {self._saved_step:,})"


def _take_steps(
    run: Run,
    saver: _CheckpointSaver,
    switch: ThreadSwitch | None,
    observer: Observer,
    clock: Callable[[], float],
) -> None:
    """Train until the run is over, which is decided once in each turn of the loop."""
    while not run.is_over():
        if run.prepare():
            step_begun = clock()
            try:
                run.take_step()
            except TrainingError as error:
                raise TrainingError(f"{error}; {saver.describe()}") from None
            if switch:
                switch.after_step(clock() - step_begun)
            evaluation = run.evaluate() if run.evaluation_due() else None
            observer.on_progress(run.progress(evaluation))
            saver.save_if_due(run.step, at_best=run.is_best(evaluation))
        if run.team.any(observer.should_stop()):
            saver.save(run.step)
            raise TrainingStoppedError(f"stopped after step {run.step:,}; {saver.describe()}")
    evaluation = run.evaluate_last()
    if evaluation is not None:
        observer.on_progress(run.progress(evaluation))


def trained_so_far(corpus: Corpus, checkpoint: Checkpoint) -> TrainedModel:
    """The best weights that a checkpoint holds, measured as at the end of a run, on the CPU."""
    plan = replace(checkpoint.plan, device="cpu")
    model, recipe = build_model(corpus, checkpoint.recipe), checkpoint.recipe
    run = Run(model, corpus, recipe, plan, base=checkpoint.base, earlier=checkpoint.earlier)
    run.load(checkpoint.state)
    return finish(run)


def measure_speed(corpus: Corpus, recipe: Recipe) -> float:
    """Characters a second that this machine trains with `recipe` just now.

    A few steps are timed, for about a second whatever else the machine does.

    Raises:
        OptionError: the device is not there.
    """
    device = choose_device(recipe.device)
    recipe = replace(recipe, dropout=max(recipe.dropout, 0.1))  # whether it costs time or not
    with own_randomness(device), threads(choose_threads(recipe, device)):
        plan = Plan(device.type, choose_bf16(recipe, device), torch.get_num_threads(), 0.0, 0)
        run = Run(build_model(corpus, recipe).to(device), corpus, recipe, plan)
        run.take_step()  # the first prepares more than it computes
        steps, begun = 0, time.monotonic()
        while (seconds := time.monotonic() - begun) < _SPEED_SECONDS:
            run.take_step()
            steps += 1
    return steps * recipe.batch_size * recipe.seq_length / seconds

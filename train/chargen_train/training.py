"""The training loop: truncated back-propagation through time, the best weights kept."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from chargen_ort.errors import TrainingError
from chargen_train.checkpoint import Checkpoint, Plan, refuse_other
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
from chargen_train.keeper import Keeper
from chargen_train.planning import make_plan
from chargen_train.progress import (
    Progress,
    Supervision,
    TrainedModel,
    TrainingStoppedError,
)
from chargen_train.recipe import Recipe
from chargen_train.run import Run, build_model

_SPEED_SECONDS = 0.7  # that steps are timed for


def train(
    corpus: Corpus,
    recipe: Recipe,
    on_progress: Callable[[Progress], None] | None = None,
    supervision: Supervision = Supervision(),  # noqa: B008 - frozen
    resume: Checkpoint | None = None,
) -> TrainedModel:
    """Train a `CharGRU` on `corpus`.

    A run that is resumed on a CPU has the weights, bit for bit, of one that never stopped, if
    steps or epochs bound it. If minutes do, the clock goes on from what the checkpoint had used,
    and the learning rate with it; and it computes with one thread while that is faster.

    Raises:
        TrainingError: the loss or the gradient is not finite; names the last good checkpoint.
        TrainingStoppedError: `supervision.should_stop` said so.
        OptionError: the device is not there, or `resume` is of another corpus or recipe.
    """
    begun = supervision.clock() if supervision.begun is None else supervision.begun
    if resume is not None:
        refuse_other(resume, corpus.sha256, asdict(recipe))
    device = choose_device(resume.plan.device if resume else recipe.device)
    most = torch.get_num_threads()
    count = resume.plan.threads if resume else choose_threads(recipe, device)
    with own_randomness(device), threads(count):
        torch.manual_seed(recipe.seed)
        model = build_model(corpus, recipe).to(device)
        plan = resume.plan if resume else make_plan(model, corpus, recipe, supervision)
        run = Run(model, corpus, recipe, plan, supervision.clock)
        if resume is not None:
            run.restore(resume)
        run.start(begun, resume.seconds if resume else None, supervision.export_seconds)
        keeper = Keeper(supervision, run.checkpoint, resume.step if resume else None)
        switch = None
        if may_switch_threads(recipe, device, most):
            switch = ThreadSwitch(most, count)
        _take_steps(run, keeper, switch, on_progress, supervision)
        keeper.save(run.step)
        if supervision.on_last_step:
            supervision.on_last_step()
        return run.finish()


def _take_steps(
    run: Run,
    keeper: Keeper,
    switch: ThreadSwitch | None,
    on_progress: Callable[[Progress], None] | None,
    supervision: Supervision,
) -> None:
    """Train until the run is over, which is decided once in each turn of the loop."""
    while not run.is_over():
        if run.prepare():
            step_begun = supervision.clock()
            try:
                run.take_step()
            except TrainingError as error:
                raise TrainingError(f"{error}; {keeper.describe()}") from None
            if switch:
                switch.after_step(supervision.clock() - step_begun)
            evaluation = run.evaluate() if run.evaluation_due() else None
            if on_progress:
                on_progress(run.progress(evaluation))
            keeper.save_if_due(run.step, at_best=run.is_best(evaluation))
        if supervision.should_stop and supervision.should_stop():
            keeper.save(run.step)
            raise TrainingStoppedError(f"stopped after step {run.step:,}; {keeper.describe()}")
    evaluation = run.evaluate_last()
    if evaluation is not None and on_progress:
        on_progress(run.progress(evaluation))


def trained_so_far(corpus: Corpus, checkpoint: Checkpoint) -> TrainedModel:
    """The best weights that a checkpoint holds, measured as at the end of a run, on the CPU."""
    plan = replace(checkpoint.plan, device="cpu")
    run = Run(build_model(corpus, checkpoint.recipe), corpus, checkpoint.recipe, plan)
    run.restore(replace(checkpoint, cuda_random=None))
    return run.finish()


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

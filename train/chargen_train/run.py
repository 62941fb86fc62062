"""A training run between its first step and its last: the clock, the phases, the evaluations."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from chargen_ort.options import SamplingOptions
from chargen_ort.provenance import Base
from chargen_train.candidates import LARGE, Candidates
from chargen_train.corpus import Corpus, choose_separator
from chargen_train.device import autocast, load_random, random_state
from chargen_train.distillation import (
    NARROW_CLIP,
    SOFT_SHARE,
    SoftTargets,
    describe_phase,
    phase_end,
    student_is_narrow,
)
from chargen_train.earlier import Earlier
from chargen_train.evaluate import (
    mean_loss,
    sample_texts,
)
from chargen_train.events import (
    SAMPLE_TEMPERATURES,
    Evaluation,
    Progress,
)
from chargen_train.learner import Best, Learner, Teaching, scheduled_rate
from chargen_train.model import NARROW, WIDE, CharGRU, Start, initialise
from chargen_train.ngram_targets import NGramTargets
from chargen_train.planning import (
    EVALUATION_SHARE,
    SAMPLE_LENGTH,
    Plan,
    evaluation_count,
)
from chargen_train.recipe import Recipe
from chargen_train.team import Team
from chargen_train.windows import batches_of

State = dict[str, Any]  # of a run or a part of it: numbers, tensors, and lists and dicts of them


@dataclass
class Counters:
    """What a run counts and last measured.

    Attributes:
        step, evaluations: done so far.
        loss: of the last step, nats a token.
        validation: mean loss when the averaged weights were last measured, nats a character; None
            before the first evaluation.
        measured_step: the step when the weights were last measured; None before.
        processes: that took part, at most at once.
    """

    step: int = 0
    evaluations: int = 0
    loss: float = math.nan
    validation: float | None = None
    measured_step: int | None = None
    processes: int = 1


def build_model(corpus: Corpus, recipe: Recipe, start: Start = WIDE) -> CharGRU:
    """A model of the recipe's sizes with start weights drawn from torch's generator."""
    model = CharGRU(
        len(corpus.vocabulary),
        recipe.embedding_dim,
        recipe.hidden_size,
        recipe.num_layers,
        recipe.dropout,
        weight_drop=recipe.dropout,
    )
    initialise(model, start)
    return model


class Run:
    """All that changes while training.

    What changes stands in its parts: the counters, the windows, the learner, the teachers and the
    best weights; each gives its state and loads it.

    The clock is read once in each turn of the training loop, by `is_over`. Whatever a turn
    decides, it decides by that reading: so time that runs out in the middle of a turn, however
    long it takes, ends the run at the next one and changes nothing else.

    Args:
        model: with start weights, on the device of the plan.
        corpus, recipe, plan: what is done.
        clock: gives seconds.
        base: that the model's weights were taken from.
        earlier: what the run had done when it was given more time; that of its recipe comes after.
        team: the processes that take part; the clock is that of the leader.
    """

    def __init__(
        self,
        model: CharGRU,
        corpus: Corpus,
        recipe: Recipe,
        plan: Plan,
        clock: Callable[[], float] = time.monotonic,
        base: Base | None = None,
        earlier: Earlier = Earlier(),  # noqa: B008 - frozen
        team: Team = Team(),  # noqa: B008 - frozen
    ) -> None:
        self.corpus = corpus
        self.recipe = recipe
        self.plan = plan
        self.base = base
        self.earlier = earlier
        self.team = team
        self.device = torch.device(plan.device)
        self.windows = batches_of(corpus.training, recipe, self.device)
        self.counters = Counters(processes=team.processes)
        self.learner = Learner(model, recipe, team)
        self.teachers: list[CharGRU] = []
        self.best = Best()
        self.soft_targets: SoftTargets | None = None
        self.ngram_targets: NGramTargets | None = None
        measuring = corpus.validation
        if not len(measuring):
            measuring = corpus.training.head(plan.measured)
        self._measured = measuring.passages().head(plan.measured)
        self.steps = _steps(recipe, self.windows.per_epoch)
        self.learning_rate = 0.0
        self._clock = clock
        self._now = self.begun = self.started = clock()  # see `start`
        self.started_step = 0
        self.deadline: float | None = None
        self._measuring = [0.0]  # seconds of each evaluation of this process, before them 0

    @property
    def step(self) -> int:
        """Steps done."""
        return self.counters.step

    @property
    def seconds(self) -> float:
        """Used up of the recipe's time, by the clock of this moment."""
        return self._clock() - self.begun

    def start(self, begun: float, used: float | None, export_seconds: float = 0.0) -> None:
        """Start the clock of the steps.

        Args:
            begun: when the work as a whole began; what it took until now is part of the minutes.
            used: seconds that the steps of a resumed run had used up; None where none was taken.
            export_seconds: that are left for the export when `finish` must have ended.
        """
        self._now = self.started = self.team.agree(self._clock())
        begun = self.team.agree(begun)
        self.started_step = self.step
        self.begun = self.started if used is None else begun - used
        if self.recipe.minutes is None:
            return
        self.deadline = begun - (used or 0.0) + self.recipe.minutes * 60 - export_seconds
        if used is None:
            reserve = self.plan.reserve + self.started - begun
            self.plan = replace(self.plan, reserve=reserve)

    def is_over(self) -> bool:
        """Read the clock: whether the steps or the time of the run are used up.

        Every run takes at least one step, so that there is something to export.
        """
        self._now = self.team.agree(self._clock())
        return self.step > self.earlier.steps and self.fraction() >= 1

    def prepare(self) -> bool:
        """Do a piece of what must come before the next step; returns whether nothing is left.

        A teacher whose time has come is measured, and the next model begins. Before the last one
        does, the teachers' predictions are computed.
        """
        trained = len(self.teachers)
        if (
            trained < self.recipe.teachers
            and self.learner.steps > 0
            and self.fraction() >= phase_end(self.recipe, trained)
        ):
            if self.counters.measured_step != self.step:
                self._measure()
            self.teachers.append(self.learner.average.eval())
            model = build_model(self.corpus, self.recipe, NARROW if self._narrow else WIDE)
            self.learner = Learner(model.to(self.device), self.recipe, self.team)
        if self.teachers and len(self.teachers) == self.recipe.teachers:
            if self.soft_targets is None:
                self.soft_targets = SoftTargets(self.teachers, self.corpus.training, self.plan.bf16)
            if not self.soft_targets.ready:
                self.soft_targets.prepare()
                return False
        elif self.recipe.ngram_share and not self.earlier.parts:
            if self.ngram_targets is None:
                vocab_size = len(self.corpus.vocabulary)
                self.ngram_targets = NGramTargets(self.corpus.training, vocab_size)
            if not self.ngram_targets.ready:
                self.ngram_targets.prepare()
                if not self.ngram_targets.ready:
                    return False
        if self.learner.steps == 0:
            self.learner.begun = self.fraction()
        return True

    def state(self) -> State:
        """Everything that `load` needs; it shares memory with the run."""
        return {
            "counters": asdict(self.counters),
            "windows": self.windows.state(),
            "learner": self.learner.state(),
            "teachers": [teacher.state_dict() for teacher in self.teachers],
            "best": self.best.state(),
            "random": random_state(self.device),
        }

    def load(self, state: State) -> None:
        """Go on where `state` was taken, which is of the same text and recipe."""
        self.counters = Counters(**state["counters"])
        self.counters.processes = max(self.counters.processes, self.team.processes)
        self.windows.load(state["windows"])
        self.learner.load(state["learner"])
        for weights in state["teachers"]:
            self.teachers.append(copy.deepcopy(self.learner.average).eval())
            self.teachers[-1].load_state_dict(weights)
        self.best.load(state["best"], self.learner.average)
        load_random(state["random"], self.device)

    def fraction(self) -> float:
        """How much of the recipe's time is used up: in steps, or by what this turn's clock said."""
        if self.steps is not None:
            return (self.step - self.earlier.steps) / self.steps
        assert self.recipe.minutes is not None
        available = self.recipe.minutes * 60 - self.plan.reserve
        return (self._now - self.begun) / max(0.1, available)  # a reserve may leave nothing

    def _phase_fraction(self) -> float:
        """How much of the time of the model being trained is used up."""
        end = phase_end(self.recipe, len(self.teachers))
        begun = self.learner.begun
        return min(1.0, (self.fraction() - begun) / max(1e-9, end - begun))

    def take_step(self) -> None:
        """Train on one window of each row.

        Raises:
            TrainingError: the loss or the gradient is not finite; no weight was changed.
        """
        batch, fraction = self.windows.next(), self._phase_fraction()
        teaching = self._teaching(fraction)
        if teaching is None and len(self.corpus.vocabulary) >= LARGE:
            batch = self._candidates.narrow(batch)  # of all rows, as one process would
        if self.team.processes > 1:
            batch = batch.part(self.team.rows(self.recipe.batch_size))
        self.learning_rate = scheduled_rate(self.recipe, fraction)
        clip = self.recipe.gradient_clip * (NARROW_CLIP if self._narrow else 1)
        self.counters.loss = self.learner.take_step(
            batch, self.learning_rate, clip, teaching, self.plan.bf16, self.step
        )
        self.counters.step += 1

    @property
    def _narrow(self) -> bool:
        """Whether the model being trained began with narrow weights."""
        return student_is_narrow(self.recipe, len(self.teachers), self.corpus.training)

    @cached_property
    def _candidates(self) -> Candidates:
        targets = self.recipe.batch_size * self.recipe.seq_length
        return Candidates(self.corpus.counts, targets)

    def _teaching(self, fraction: float) -> Teaching | None:
        """What the model being trained learns from besides the text, at a fraction of its time.

        What an n-gram knows it soon knows better: so the n-gram's share falls to nothing.
        """
        if self.soft_targets is not None:
            return Teaching(self.soft_targets, SOFT_SHARE)
        if self.ngram_targets is not None and fraction < 1:
            return Teaching(self.ngram_targets, self.recipe.ngram_share * (1 - fraction))
        return None

    def evaluation_due(self) -> bool:
        """Whether it is time to measure and to sample.

        In a run bounded by minutes, evaluations that turn out slow become fewer, so that together
        they take no more than their share of it.
        """
        if self.fraction() < (self.counters.evaluations + 1) / evaluation_count(self.recipe):
            return False
        if self.recipe.minutes is None:
            return True
        # the next one is expected to take as long as the last
        expected = sum(self._measuring) + self._measuring[-1]
        is_due = expected <= EVALUATION_SHARE * (self._now - self.started)
        return self.team.agree(is_due) > 0

    def evaluate(self) -> Evaluation:
        """Measure the averaged weights, and keep them if they are the best so far."""
        begun = self._clock()
        self.counters.evaluations = math.floor(self.fraction() * evaluation_count(self.recipe))
        loss = self._measure()
        options = [
            SamplingOptions(temperature=t, seed=self.recipe.seed) for t in SAMPLE_TEMPERATURES
        ]
        start = choose_separator(self.corpus)
        vocabulary = self.corpus.vocabulary
        if not self.team.leads:
            return Evaluation(loss, {})
        texts = sample_texts(self.learner.average, vocabulary, start, SAMPLE_LENGTH, options)
        self._measuring.append(self._clock() - begun)
        return Evaluation(loss, dict(zip(SAMPLE_TEMPERATURES, texts, strict=True)))

    def evaluate_last(self) -> Evaluation | None:
        """`evaluate` the weights of the last step, if that was not done when it was taken.

        A model that has taken no step, because the time ended before, is not worth it.
        """
        if self.counters.measured_step == self.step or self.learner.steps == 0:
            return None
        return self.evaluate()

    def _measure(self) -> float | None:
        """Mean loss of the averaged weights on held-out text; None if none is held out.

        Where no text is held out, the beginning of the text that is trained on tells which weights
        to keep.
        """
        # the averaged weights, as they vary less from step to step and predict better
        with autocast(self.device, self.plan.bf16):
            loss = mean_loss(self.learner.average, self._measured) if self.team.leads else 0.0
        loss = self.team.agree(loss)
        self.best.offer(self.learner.average, loss, self.step)
        self.counters.validation, self.counters.measured_step = loss, self.step
        return loss if len(self.corpus.validation) else None

    def is_best(self, evaluation: Evaluation | None) -> bool:
        """Whether the weights that were just measured are the best so far."""
        return evaluation is not None and self.best.step == self.step

    def progress(self, evaluation: Evaluation | None) -> Progress:
        """What there is to report now."""
        now = self._clock()
        fraction = min(1.0, self.fraction())
        held_out = len(self.corpus.validation) > 0
        per_character = self.corpus.tokens_per_character
        tokens = (self.step - self.started_step) * self.recipe.batch_size * self.recipe.seq_length
        return Progress(
            step=self.step,
            fraction=fraction,
            loss=self.counters.loss * per_character,
            validation=self.counters.validation if held_out else None,
            best=self.best.loss if held_out else None,
            best_step=self.best.step,
            chars_per_second=tokens / per_character / max(1e-9, now - self.started),
            seconds=self.earlier.seconds + now - self.begun,
            seconds_left=(now - self.begun) * (1 - fraction) / max(1e-9, fraction),
            learning_rate=self.learning_rate,
            evaluation=evaluation,
            phase=describe_phase(self.recipe, len(self.teachers)),
        )

    @property
    def now(self) -> float:
        """What the clock said in this turn."""
        return self._now

    def time_is_up(self) -> bool:
        """Whether nothing but the export has time left."""
        return self.deadline is not None and self._clock() >= self.deadline


def _steps(recipe: Recipe, per_epoch: float) -> int | None:
    if recipe.epochs is not None:
        return max(1, round(recipe.epochs * per_epoch))
    return recipe.steps

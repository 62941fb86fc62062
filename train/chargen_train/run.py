"""A training run between its first step and its last: all that changes while training."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from chargen_ort.checks import printable
from chargen_ort.errors import TrainingError
from chargen_ort.records import CorpusFacts, HeldOut, Split, Training
from chargen_ort.sampling import SamplingOptions
from chargen_train.checkpoint import Checkpoint, Plan
from chargen_train.corpus import Corpus
from chargen_train.device import autocast
from chargen_train.distillation import SOFT_SHARE, SoftTargets, describe_phase, phase_end
from chargen_train.evaluate import (
    WINDOW,
    bits_per_char,
    mean_loss,
    mean_loss_until,
    sample_texts,
)
from chargen_train.model import CharGRU, initialise
from chargen_train.planning import (
    EVALUATION_SHARE,
    MAX_VALIDATION,
    SAMPLE_LENGTH,
    evaluation_count,
)
from chargen_train.progress import (
    SAMPLE_TEMPERATURES,
    Evaluation,
    Progress,
    TrainedModel,
)
from chargen_train.recipe import Recipe
from chargen_train.windows import Windows

_WARM_UP = 0.02  # of the run
_BETAS = (0.9, 0.99)
_WORSE = 0.05  # nats: a last loss so far above the best is worth a word
_FEW_STEPS = 50  # in fewer a model learns next to nothing


def build_model(corpus: Corpus, recipe: Recipe) -> CharGRU:
    """A model of the recipe's sizes with start weights drawn from torch's generator."""
    model = CharGRU(
        len(corpus.vocabulary),
        recipe.embedding_dim,
        recipe.hidden_size,
        recipe.num_layers,
        recipe.dropout,
        weight_drop=recipe.dropout,
    )
    initialise(model)
    return model


class Run:
    """All that changes while training.

    The clock is read once in each turn of the training loop, by `is_over`. Whatever a turn
    decides, it decides by that reading: so time that runs out in the middle of a turn, however
    long it takes, ends the run at the next one and changes nothing else.

    Args:
        model: with start weights, on the device of the plan.
        corpus, recipe, plan: what is done.
        clock: gives seconds.
    """

    def __init__(
        self,
        model: CharGRU,
        corpus: Corpus,
        recipe: Recipe,
        plan: Plan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.corpus = corpus
        self.recipe = recipe
        self.plan = plan
        self.device = torch.device(plan.device)
        self.windows = Windows(corpus.training, recipe, self.device)
        self.teachers: list[CharGRU] = []
        self.soft_targets: SoftTargets | None = None
        self._begin_phase(model)
        self.steps = _steps(recipe, self.windows.per_epoch)
        self.step = 0
        self.loss = math.nan
        self.learning_rate = 0.0
        self.evaluations = 0
        self.validation: float | None = None
        self.best: CharGRU | None = None  # until the first evaluation
        self.best_loss: float | None = None
        self.best_step = 0
        self._clock = clock
        self._now = self.begun = self.started = clock()  # see `start`
        self.started_step = 0
        self.deadline: float | None = None
        self._measured_step: int | None = None
        self._measuring = [0.0]  # seconds of each evaluation of this process, before them 0

    def start(self, begun: float, used: float | None, export_seconds: float = 0.0) -> None:
        """Start the clock of the steps.

        Args:
            begun: when the work as a whole began; what it took until now is part of the minutes.
            used: seconds that the steps of a resumed run had used up; None is a new run.
            export_seconds: that are left for the export when `finish` must have ended.
        """
        self._now = self.started = self._clock()
        self.started_step = self.step
        self.begun = self.started if used is None else begun - used
        if self.recipe.minutes is None:
            return
        self.deadline = begun - (used or 0.0) + self.recipe.minutes * 60 - export_seconds
        if used is None:
            reserve = self.plan.reserve + self.started - begun
            self.plan = replace(self.plan, reserve=reserve)

    def _begin_phase(self, model: CharGRU) -> None:
        self.model = model
        self.average = copy.deepcopy(model)
        self.optimizer = _optimizer(model, self.recipe)
        self.hidden = model.zero_hidden(self.recipe.batch_size)
        self.phase_begun, self.phase_step = 0.0, 0

    def is_over(self) -> bool:
        """Read the clock: whether the steps or the time of the run are used up.

        Every run takes at least one step, so that there is something to export.
        """
        self._now = self._clock()
        return self.step > 0 and self.fraction() >= 1

    def prepare(self) -> bool:
        """Do a piece of what must come before the next step; returns whether nothing is left.

        A teacher whose time has come is measured, and the next model begins. Before the last one
        does, the teachers' predictions are computed.
        """
        trained = len(self.teachers)
        if (
            trained < self.recipe.teachers
            and self.phase_step > 0
            and self.fraction() >= phase_end(self.recipe, trained)
        ):
            if self._measured_step != self.step:
                self._measure()
            self.teachers.append(self.average.eval())
            self._begin_phase(build_model(self.corpus, self.recipe).to(self.device))
        if self.teachers and len(self.teachers) == self.recipe.teachers:
            if self.soft_targets is None:
                self.soft_targets = SoftTargets(self.teachers, self.corpus.training, self.plan.bf16)
            if not self.soft_targets.ready:
                self.soft_targets.prepare()
                return False
        if self.phase_step == 0:
            self.phase_begun = self.fraction()
        return True

    def checkpoint(self) -> Checkpoint:
        """Everything that `restore` needs; it shares memory with the run."""
        cuda = self.device.type == "cuda"
        return Checkpoint(
            vocabulary=self.corpus.vocabulary,
            corpus_name=self.corpus.name,
            corpus_sha256=self.corpus.sha256,
            recipe=self.recipe,
            plan=self.plan,
            step=self.step,
            evaluations=self.evaluations,
            seconds=self._clock() - self.begun,
            loss=self.loss,
            validation=self.validation,
            best_loss=self.best_loss,
            best_step=self.best_step,
            measured_step=self._measured_step,
            windows=self.windows.state(),
            weights=self.model.state_dict(),
            average=self.average.state_dict(),
            best=None if self.best is None else self.best.state_dict(),
            phase_begun=self.phase_begun,
            phase_step=self.phase_step,
            teachers=[teacher.state_dict() for teacher in self.teachers],
            optimizer=self.optimizer.state_dict(),
            hidden=self.hidden,
            torch_random=torch.random.get_rng_state(),
            cuda_random=torch.cuda.get_rng_state() if cuda else None,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` was taken."""
        self.step, self.evaluations = checkpoint.step, checkpoint.evaluations
        self.loss, self.validation = checkpoint.loss, checkpoint.validation
        self.best_loss, self.best_step = checkpoint.best_loss, checkpoint.best_step
        self._measured_step = checkpoint.measured_step
        self.windows.restore(checkpoint.windows)
        self.model.load_state_dict(checkpoint.weights)
        self.average.load_state_dict(checkpoint.average)
        if checkpoint.best is not None:
            self.best = copy.deepcopy(self.average)
            self.best.load_state_dict(checkpoint.best)
        self.phase_begun, self.phase_step = checkpoint.phase_begun, checkpoint.phase_step
        for weights in checkpoint.teachers:
            self.teachers.append(copy.deepcopy(self.average).eval())
            self.teachers[-1].load_state_dict(weights)
        self.optimizer.load_state_dict(copy.deepcopy(checkpoint.optimizer))  # else shared
        self.hidden = checkpoint.hidden.to(self.device)
        torch.random.set_rng_state(checkpoint.torch_random)
        if checkpoint.cuda_random is not None:
            torch.cuda.set_rng_state(checkpoint.cuda_random)

    def fraction(self) -> float:
        """How much of the run is done: by steps, or by the clock as this turn has read it."""
        if self.steps is not None:
            return self.step / self.steps
        assert self.recipe.minutes is not None
        available = self.recipe.minutes * 60 - self.plan.reserve
        return (self._now - self.begun) / max(0.1, available)

    def _phase_fraction(self) -> float:
        """How much of the time of the model being trained is used up."""
        end = phase_end(self.recipe, len(self.teachers))
        return min(1.0, (self.fraction() - self.phase_begun) / max(1e-9, end - self.phase_begun))

    def take_step(self) -> None:
        """Train on one window of each row.

        Raises:
            TrainingError: the loss or the gradient is not finite; no weight was changed.
        """
        recipe = self.recipe
        batch = self.windows.next()
        self.learning_rate = recipe.learning_rate * _schedule(recipe, self._phase_fraction())
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        with autocast(self.device, self.plan.bf16):
            logits, hidden = self.model(batch.token, self.hidden * batch.keep)
            logits = logits.float()  # [batch, time, vocab_size]
            text_loss = F.cross_entropy(logits.flatten(0, 1), batch.target.flatten())
            loss = text_loss
            if self.soft_targets is not None:
                soft_loss = self.soft_targets.loss(logits, batch.starts)
                loss = (1 - SOFT_SHARE) * text_loss + SOFT_SHARE * soft_loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), recipe.gradient_clip or math.inf, foreach=True
        )
        self.loss = text_loss.item()
        if not math.isfinite(self.loss) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"the loss is {self.loss} and the gradient norm {norm.item()} at step "
                f"{self.step}: not finite; try a --learning-rate below {recipe.learning_rate:g}"
            )
        self.optimizer.step()
        self.hidden = hidden.detach().float()  # [batch, num_layers, hidden_size]
        self.step += 1
        self.phase_step += 1
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.average, (1 + self.phase_step) / (10 + self.phase_step))
        if self.recipe.average == 0:
            decay = 0.0
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )

    def evaluation_due(self) -> bool:
        """Whether it is time to measure and to sample.

        In a run bounded by minutes, evaluations that turn out slow become fewer, so that together
        they take no more than their share of it.
        """
        if self.fraction() < (self.evaluations + 1) / evaluation_count(self.recipe):
            return False
        if self.recipe.minutes is None:
            return True
        expected = sum(self._measuring) + self._measuring[-1]
        return expected <= EVALUATION_SHARE * (self._now - self.started)

    def evaluate(self) -> Evaluation:
        """Measure the averaged weights, and keep them if they are the best so far."""
        begun = self._clock()
        self.evaluations = math.floor(self.fraction() * evaluation_count(self.recipe))
        loss = self._measure()
        options = [
            SamplingOptions(temperature=t, seed=self.recipe.seed) for t in SAMPLE_TEMPERATURES
        ]
        start = choose_separator(self.corpus)
        texts = sample_texts(self.average, self.corpus.vocabulary, start, SAMPLE_LENGTH, options)
        self._measuring.append(self._clock() - begun)
        return Evaluation(loss, dict(zip(SAMPLE_TEMPERATURES, texts, strict=True)))

    def evaluate_last(self) -> Evaluation | None:
        """`evaluate` the weights of the last step, if that was not done when it was taken.

        A model that has taken no step, because the time ended before, is not worth it.
        """
        if self._measured_step == self.step or self.phase_step == 0:
            return None
        return self.evaluate()

    def _measure(self) -> float | None:
        """Mean loss of the averaged weights on held-out text; None if none is held out.

        Where no text is held out, the beginning of the text that is trained on tells which weights
        to keep.
        """
        held_out = len(self.corpus.validation) > 0
        text = self.corpus.validation if held_out else self.corpus.training
        with autocast(self.device, self.plan.bf16):
            loss = mean_loss(self.average, text[: self.plan.measured])
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.step
            self.best = copy.deepcopy(self.average)
        self.validation = loss
        self._measured_step = self.step
        return loss if held_out else None

    def is_best(self, evaluation: Evaluation | None) -> bool:
        """Whether the weights that were just measured are the best so far."""
        return evaluation is not None and self.best_step == self.step

    def progress(self, evaluation: Evaluation | None) -> Progress:
        """What there is to report now."""
        now = self._clock()
        fraction = min(1.0, self.fraction())
        held_out = len(self.corpus.validation) > 0
        characters = (
            (self.step - self.started_step) * self.recipe.batch_size * self.recipe.seq_length
        )
        return Progress(
            step=self.step,
            fraction=fraction,
            loss=self.loss,
            validation=self.validation if held_out else None,
            best=self.best_loss if held_out else None,
            best_step=self.best_step,
            chars_per_second=characters / max(1e-9, now - self.started),
            seconds=now - self.begun,
            seconds_left=(now - self.begun) * (1 - fraction) / max(1e-9, fraction),
            learning_rate=self.learning_rate,
            evaluation=evaluation,
            phase=describe_phase(self.recipe, len(self.teachers)),
        )

    def finish(self) -> TrainedModel:
        """The best weights, measured in float32 on the held-out tail as far as time allows."""
        best = self.average if self.best is None else self.best
        best = copy.deepcopy(best).to("cpu", torch.float32).eval()
        tail = self.corpus.validation[:MAX_VALIDATION]
        loss, characters = None, 0
        if len(tail):
            loss, characters = mean_loss_until(best, tail, self._time_is_up)
        notes = self._notes()
        return TrainedModel(best, _summary(self, loss, characters, notes), notes)

    def _time_is_up(self) -> bool:
        return self.deadline is not None and self._clock() >= self.deadline

    def _notes(self) -> tuple[str, ...]:
        """What went badly, in sentences."""
        notes = []
        read = self.step / self.windows.per_epoch
        if self.step < _FEW_STEPS or read < 1:
            steps = "1 step" if self.step == 1 else f"{self.step:,} steps"
            cure = "more --epochs"
            if self.recipe.minutes is not None:
                cure = "more --minutes, a smaller --hidden-size, or a less busy machine"
            notes.append(
                f"training took only {steps} and read the corpus {read:.2g} times, too little to "
                f"learn much; give it {cure}"
            )
        if self.best_loss is not None and self.validation is not None:
            exported = f"the weights of step {self.best_step:,} are exported"
            if self.best_step <= self.step - self.phase_step:
                notes.append(
                    f"{exported}, those of a teacher: in its time the model that was trained after "
                    "it did not become better"
                )
            elif self.validation > self.best_loss + _WORSE:
                notes.append(
                    f"{exported}, whose loss was {self.best_loss:.4f} nats a character; that of "
                    f"the last step was {self.validation:.4f}"
                )
        return tuple(notes)


def choose_separator(corpus: Corpus) -> str:
    """The character that stands before a text begins.

    A line end, else a space, else the corpus's last character: what would stand before its first
    one if it were read again.
    """
    characters = corpus.vocabulary.characters
    last = characters[int(corpus.tokens[-1])]
    return next((c for c in "\n " if c in characters), last)


def describe_corpus(corpus: Corpus) -> Training:
    """The record of a model that has not been trained on `corpus` yet."""
    return Training(
        corpora=(
            CorpusFacts(name=printable(corpus.name), sha256=corpus.sha256, characters=len(corpus)),
        ),
        characters=len(corpus),
        training_characters=corpus.cut,
        split=Split(holdout="tail" if corpus.cut < len(corpus) else "none"),
        settings={},
        versions={},
    )


def _summary(run: Run, loss: float | None, characters: int, notes: tuple[str, ...]) -> Training:
    recipe = run.recipe
    settings = {k: v for k, v in asdict(recipe).items() if v is not None}
    del settings["device"], settings["seed"]
    validation = None
    if loss is not None:
        validation = HeldOut(
            nats_per_char=loss,
            bits_per_char=bits_per_char(loss),
            characters=characters,
            protocol=f"mean over consecutive {WINDOW}-character windows of the held-out tail, "
            "each from a zero state",
        )
    return replace(
        describe_corpus(run.corpus),
        validation=validation,
        steps=run.step,
        exported_step=run.step if run.best is None else run.best_step,
        epochs=run.step / run.windows.per_epoch,
        device=run.device.type,
        seed=recipe.seed,
        notes=notes,
        settings=settings,
        versions={"torch": torch.__version__, "numpy": np.__version__},
    )


def _schedule(recipe: Recipe, fraction: float) -> float:
    if recipe.schedule == "constant":
        return 1.0
    warm_up = min(1.0, (fraction + 1e-3) / _WARM_UP)
    return warm_up * 0.5 * (1 + math.cos(math.pi * fraction))


def _steps(recipe: Recipe, per_epoch: float) -> int | None:
    if recipe.epochs is not None:
        return max(1, round(recipe.epochs * per_epoch))
    return recipe.steps


def _optimizer(model: CharGRU, recipe: Recipe) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=_BETAS,
        weight_decay=recipe.weight_decay,
        fused=True,
    )

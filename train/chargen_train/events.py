"""What surrounds a training run: who is told of it, what limits it, what it returns."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chargen_ort.artifact import Artifact
from chargen_ort.errors import OptionError, TrainingError
from chargen_ort.provenance import Training
from chargen_train.corpus import Corpus
from chargen_train.earlier import Earlier
from chargen_train.model import CharGRU
from chargen_train.recipe import Recipe

SAMPLE_TEMPERATURES = (0.5, 0.8, 1.0)
_MAX_CHECKPOINT_MINUTES = 1440.0


@dataclass(frozen=True)
class Progress:
    """What a run reports after a step.

    Attributes:
        step: steps done.
        fraction: of the run that is done, 0 to 1.
        loss: of the last step, nats a character.
        validation: mean loss on held-out text when it was last measured, nats a character; None
            before the first time.
        best: the lowest such loss of the run so far, and `best_step` the step when it was measured.
        chars_per_second: training speed, since the start or the resumption.
        seconds: since the first step; in a resumed run, with those of its earlier parts.
        seconds_left: estimated.
        learning_rate: of the last step.
        evaluation: what the model is worth now; only at evaluations.
        phase: which model is being trained, in words; empty if there is only one.
    """

    step: int
    fraction: float
    loss: float
    validation: float | None
    best: float | None
    best_step: int
    chars_per_second: float
    seconds: float
    seconds_left: float
    learning_rate: float
    evaluation: "Evaluation | None" = None
    phase: str = ""

    @property
    def sample(self) -> str | None:
        """Text that the model writes now, at the middle temperature; only at evaluations."""
        return self.evaluation.samples[SAMPLE_TEMPERATURES[1]] if self.evaluation else None


@dataclass(frozen=True)
class Evaluation:
    """The averaged weights at one moment.

    Attributes:
        validation: mean loss on held-out text, nats a character; None if none is held out.
        samples: text by temperature.
    """

    validation: float | None
    samples: dict[float, str]


class TrainingStoppedError(TrainingError):
    """The observer stopped the run after a step; the message says what was saved."""


@dataclass(frozen=True)
class TrainedModel:
    """The result of a run.

    Attributes:
        model: the best weights, on the CPU in float32.
        summary: the run's facts for `chargen.training`.
        notes: what a person should know about how it went, a sentence each.
    """

    model: CharGRU
    summary: Training
    notes: tuple[str, ...] = ()


class Observer:
    """Is told how a run goes, and can stop it; override the methods that matter.

    The methods are called in the order in which they stand here, those of steps again and again.
    """

    def on_reading(self, read: int, size: int) -> None:
        """So many bytes of the corpus are read, of those that are known to come."""

    def on_begin(self, corpus: Corpus, recipe: Recipe) -> None:
        """The text is read and the settings are chosen; nothing is trained yet."""

    def on_resume(self, step: int, earlier: Earlier) -> None:
        """The run goes on from the checkpoint that was saved after `step` steps.

        Args:
            step: that it goes on after.
            earlier: what it had done when it was given more time.
        """

    def on_progress(self, progress: Progress) -> None:
        """A step was taken."""

    def should_stop(self) -> bool:
        """Whether to save the run and stop; asked after every step."""
        return False

    def on_last_step(self) -> None:
        """No step will follow; what comes now is not interrupted by `should_stop`."""

    def on_trained(self, trained: TrainedModel) -> None:
        """The run is over; nothing is exported yet."""

    def on_written(self, artifact: Artifact, path: Path, corpus: Corpus | None = None) -> None:
        """An artifact was written to `path`; `corpus` is what was trained on, if it was."""

    def on_warning(self, message: str) -> None:
        """Something went wrong that does not stop the run; `message` is one line."""


class Observers(Observer):
    """Several observers as one: each is told in turn, and any of them can stop the run."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_reading(self, read: int, size: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_reading(read, size)

    def on_begin(self, corpus: Corpus, recipe: Recipe) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_begin(corpus, recipe)

    def on_resume(self, step: int, earlier: Earlier) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_resume(step, earlier)

    def on_progress(self, progress: Progress) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_progress(progress)

    def should_stop(self) -> bool:
        """Ask each, also those after one that says yes."""
        answers = [observer.should_stop() for observer in self._observers]
        return any(answers)

    def on_last_step(self) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_last_step()

    def on_trained(self, trained: TrainedModel) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_trained(trained)

    def on_written(self, artifact: Artifact, path: Path, corpus: Corpus | None = None) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_written(artifact, path, corpus)

    def on_warning(self, message: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_warning(message)


@dataclass(frozen=True)
class Supervision:
    """What surrounds a run and has no effect on its weights, but for the time it takes.

    Attributes:
        checkpoint: where to keep the run, at each best and every `checkpoint_minutes`; None keeps
            none.
        checkpoint_minutes: longest time between checkpoints; 0 is after every step.
        begun: what `clock` gave when the minutes given began; None is when training begins.
        export_seconds: time to leave for the export within the minutes given.
        clock: gives the seconds that minutes are counted by; tests bring one of their own.
    """

    checkpoint: Path | None = None
    checkpoint_minutes: float = 2.0
    begun: float | None = None
    export_seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not 0 <= self.checkpoint_minutes <= _MAX_CHECKPOINT_MINUTES:
            raise OptionError(
                f"checkpoint_minutes is {self.checkpoint_minutes:g}; "
                f"give 0 (after every step) to {_MAX_CHECKPOINT_MINUTES:g}"
            )

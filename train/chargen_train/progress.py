"""What surrounds a training run: what it reports, what it is asked, what it returns."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chargen_ort.errors import OptionError, TrainingError
from chargen_ort.records import Training
from chargen_train.model import CharGRU

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
    """The run was asked to stop, and did so after a step; its text says what was saved."""


@dataclass(frozen=True)
class Supervision:
    """What surrounds a run and has no effect on its weights, but for the time it takes.

    Attributes:
        checkpoint: where to keep the run, at each best and every `checkpoint_minutes`; None does
            not.
        checkpoint_minutes: longest time between checkpoints; 0 is after every step.
        begun: what `clock` gave when the minutes given began; None is when training begins.
        export_seconds: time to leave for the export within the minutes given.
        clock: gives the seconds that minutes are counted by; tests bring one of their own.
        should_stop: asked after every step; if it says yes, the run is saved and stops.
        on_last_step: called after the last step, before the last evaluation.
        on_warning: told in one line what went wrong without stopping the run.
    """

    checkpoint: Path | None = None
    checkpoint_minutes: float = 2.0
    begun: float | None = None
    export_seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic
    should_stop: Callable[[], bool] | None = None
    on_last_step: Callable[[], None] | None = None
    on_warning: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.checkpoint_minutes <= _MAX_CHECKPOINT_MINUTES:
            raise OptionError(
                f"checkpoint_minutes is {self.checkpoint_minutes:g}; "
                f"give 0 (after every step) to {_MAX_CHECKPOINT_MINUTES:g}"
            )


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

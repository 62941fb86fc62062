"""What comes out of a run: its best weights, how good they are, and what went badly."""

import copy
from dataclasses import replace

import numpy as np
import torch

from chargen_ort.checks import printable
from chargen_ort.provenance import Training
from chargen_train.earlier import recorded_settings
from chargen_train.evaluate import Losses, measure_losses
from chargen_train.events import TrainedModel
from chargen_train.history import describe_corpus, describe_losses
from chargen_train.planning import MAX_VALIDATION
from chargen_train.run import Run
from chargen_train.split import Passages

_WORSE = 0.05  # nats: a last loss so far above the best is worth a word
_FEW_STEPS = 50  # in fewer a model learns next to nothing …
_FEW_TOKENS = 200_000  # … and from fewer, if they are not even the whole text


def finish(run: Run) -> TrainedModel:
    """The best weights, measured in float32 on the held-out part as far as time allows."""
    best = copy.deepcopy(run.best.model or run.learner.average).to("cpu", torch.float32).eval()
    notes = _notes(run)
    losses = None
    if len(run.corpus.validation) and run.team.leads:
        passages = run.corpus.validation.passages().head(MAX_VALIDATION)
        losses = measure_losses(best, passages, run.time_is_up)
        if part := describe_part(losses, passages, run.corpus.validation.documents > 0):
            notes += (part,)
    return TrainedModel(best, _summary(run, losses, notes), notes)


def describe_shortness(steps: int, epochs: float, tokens: int) -> str | None:
    """What is said of a run that was too short to learn much; None of one that was not.

    Args:
        steps: that it took.
        epochs: how often it read its corpus.
        tokens: of that.
    """
    if steps >= _FEW_STEPS and epochs * tokens >= min(tokens, _FEW_TOKENS):
        return None
    count = "1 step" if steps == 1 else f"{steps:,} steps"
    return (
        f"training took only {count} and read the corpus {epochs:.2g} times, too little to learn "
        "much"
    )


def describe_part(losses: Losses, passages: Passages, documents: bool) -> str | None:
    """What is said where time ended before all passages were measured; None where it did not.

    Args:
        losses: of as many of the passages as were measured.
        passages: that were to be measured.
        documents: whether they are documents, of which each ends with a token of its own.
    """
    if len(losses.predicted) == len(passages):
        return None
    measured, whole = (
        int(predicted.sum()) - documents * len(predicted)
        for predicted in (losses.predicted, passages.characters)  # [passages] each
    )
    return (
        f"the time was over when {measured:,} of {whole:,} held-out characters were measured: the "
        "loss is that of the first ones alone; chargen-ort score measures a file as a whole"
    )


def _notes(run: Run) -> tuple[str, ...]:
    """What went badly, in sentences."""
    notes = list(run.corpus.warnings)
    epochs = run.step / run.windows.per_epoch
    if short := describe_shortness(run.step, epochs, len(run.corpus.training)):
        cure = "more --epochs"
        if run.recipe.minutes is not None:
            cure = "more --minutes, a smaller --hidden-size, or a less busy machine"
        notes.append(f"{short}; give it {cure}")
    best, last = run.best, run.counters.validation
    if best.loss is not None and last is not None:
        exported = f"the weights of step {best.step:,} are exported"
        if run.earlier.parts and best.step <= run.earlier.steps:
            notes.append(
                f"{exported}, which the run had before it was given more time; in that time they "
                "did not become better"
            )
        elif best.step <= run.step - run.learner.steps:
            notes.append(
                f"{exported}, those of a teacher: in its time the model that was trained after "
                "it did not become better"
            )
        elif last > best.loss + _WORSE:
            notes.append(
                f"{exported}, whose loss was {best.loss:.4f} nats a character; that of "
                f"the last step was {last:.4f}"
            )
    return tuple(notes)


def _summary(run: Run, losses: Losses | None, notes: tuple[str, ...]) -> Training:
    recipe = run.recipe
    settings = {k: v for k, v in recorded_settings(recipe, run.earlier).items() if v is not None}
    del settings["device"], settings["seed"]
    reading = run.corpus.reading
    for name in ("column", "encoding"):
        if (value := getattr(reading, name)) is not None:
            settings[name] = printable(value)
    if reading.min_count > 1:
        settings["min_count"] = reading.min_count
    validation, quantiles = None, None
    if losses is not None:
        validation, quantiles = describe_losses(run.corpus, losses)
    return replace(
        describe_corpus(run.corpus),
        validation=validation,
        base=run.base,
        score_quantiles=quantiles,
        steps=run.step,
        exported_step=run.step if run.best.model is None else run.best.step,
        epochs=run.step / run.windows.per_epoch,
        processes=run.counters.processes,
        device=run.device.type,
        seed=recipe.seed,
        notes=notes,
        settings=settings,
        versions={"torch": torch.__version__, "numpy": np.__version__},
    )

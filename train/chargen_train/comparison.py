"""What a finished model is held against: an n-gram on the held-out text."""

from dataclasses import replace

from chargen_train.corpus import Corpus
from chargen_train.evaluate import WINDOW
from chargen_train.events import TrainedModel
from chargen_train.ngram import COUNTED_A_MINUTE, MAX_COUNTED, Yardstick, measure_ngram
from chargen_train.planning import MAX_VALIDATION
from chargen_train.recipe import Recipe


def measure_yardstick(corpus: Corpus, recipe: Recipe) -> Yardstick | None:
    """What an n-gram reaches on the held-out text, by the protocol of the model's own loss (P1).

    It is measured before the first step, so that its time is part of the minutes given, and those
    bound how much of the text is counted. None where no text is held out.
    """
    held_out = corpus.validation[:MAX_VALIDATION]
    if len(held_out) < 2:
        return None
    most = MAX_COUNTED
    if recipe.minutes is not None:
        most = min(most, max(1, int(recipe.minutes * COUNTED_A_MINUTE)))
    size = len(corpus.vocabulary)
    return measure_ngram(corpus.training, held_out, size, window=WINDOW, most=most)


def compared(trained: TrainedModel, yardstick: Yardstick | None) -> TrainedModel:
    """`trained` with what it was held against in its record.

    Args:
        trained: the result of a run.
        yardstick: that the run was given.
    """
    validation, baseline = trained.summary.validation, None
    if validation is not None and yardstick is not None:
        baseline = yardstick.over(validation.characters - 1)
    return replace(trained, summary=replace(trained.summary, baseline=baseline))

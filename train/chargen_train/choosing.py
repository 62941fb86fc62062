"""The settings of a run that are not given, by corpus, time and speed of the machine.

The measurements behind the numbers stand in EXPERIMENTS.md.
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Unpack

import numpy as np

from chargen_ort.errors import OptionError
from chargen_train.recipe import (
    LENGTHS,
    PRESETS,
    SIZES,
    Overrides,
    Recipe,
    given_settings,
    parameter_count,
)

# corpora up to so many characters, and the recipe that suits them
_BY_SIZE: tuple[tuple[float, Recipe], ...] = (
    (
        2_000,
        Recipe(
            hidden_size=64,
            num_layers=1,
            embedding_dim=16,
            seq_length=32,
            batch_size=8,
            learning_rate=0.01,
            average=0.9,
            steps=400,
        ),
    ),
    (
        20_000,
        Recipe(
            hidden_size=256,
            num_layers=1,
            embedding_dim=32,
            seq_length=64,
            batch_size=16,
            learning_rate=5e-3,
            dropout=0.3,
            steps=1000,
        ),
    ),
    (100_000, Recipe(hidden_size=256, num_layers=1, minutes=1.0)),
    (500_000, Recipe(num_layers=1, minutes=2.0)),
    (5_000_000, Recipe(minutes=5.0)),
    (float("inf"), Recipe(minutes=20.0)),
)


# Dropout costs a model that reads its corpus a few times, and saves one that reads it often from
# learning it by heart. So it follows from the epochs, and those from the speed of the machine.
_TABLE_HAS_DROPOUT = 20_000  # characters, up to which it does
_DROPOUT_BY_EPOCHS = ((7.0, 0.0), (15.0, 0.1), (32.0, 0.2), (100.0, 0.25))
_DROPOUT_STEP = 0.05
MEASURED_TOKENS = 64  # that the text had which this was measured on
# layers and widths by falling cost, each with how many tokens it must read to be taken: from about
# there on it is better than the next smaller one is after as many seconds; see EXPERIMENTS.md
_SIZES = (((2, 512), 4e6), ((1, 512), 9e5), ((1, 256), 4e5), ((1, 128), 0.0))
_LISTS_NEED = 0.6  # of that, as their steps are of fewer tokens
# units of a layer and passes through the corpus, at most, and their rate; others are not measured
_NARROW, _FEW_EPOCHS, _NARROW_RATE = 256, 20.0, 6e-3
# a run that would take fewer steps takes twice as many, with windows of half the length: at first
# more is learnt from another step than from what stands farther back
_FEW_STEPS = 1500
_WIDE_RATE = 4.5e-3  # of wider models in such a run
# characters; measured at a million, of lists at 160,000, and memory grows with them
_TAUGHT, _LISTS_TAUGHT = (500_000, 5_000_000), (100_000, 5_000_000)
_TAUGHT_DROPOUT, _LISTS_TAUGHT_DROPOUT = 0.05, 0.1  # soft targets leave little to learn by heart
# weights for each character, at least: with 0.27, 2.5 and 5 teachers gain, with 0.06 half of the
# time is better spent on the model itself
_TAUGHT_WEIGHTS = 0.25
# readings that make a good teacher: of a list, of a text, and characters that one of a text reads
_LIST_READINGS, _TEXT_READINGS, _TEXT_READ = 7.5, 3.75, 3.75e6
_MAX_TEACHERS = 8
# characters of a text whose counts teach, and tokens: of fewer there is nothing to count, of more
# characters the counts teach nothing that the text does not, of more tokens too few are kept
_COUNTS_TEACH = (2_000, 2_000_000), 512
# windows of documents have their mean length, but at least so many steps, as many small steps win;
# where steps bound the run they stay as they are, else its text would be read less often
_SHORTEST = 16
_MANY_TOKENS, _WIDE_EMBEDDING = 256, 128  # pieces have more to say of themselves than characters
_TYPICAL_RATE = 5e10  # weights times characters a second, of two cores


def suitable_dropout(epochs: float) -> float:
    """The dropout for a run that reads its corpus so many times, of some 64 characters.

    One that reads it six times learns next to nothing by heart; one that reads it often does.
    Measured on Tiny Shakespeare, see EXPERIMENTS.md; between the measurements it is linear in the
    logarithm of `epochs`. In coarse steps, so that a repeated run chooses the same.
    """
    epochs_seen, best = zip(*_DROPOUT_BY_EPOCHS, strict=True)
    between = float(np.interp(math.log(epochs), np.log(epochs_seen), best))
    return round(round(between / _DROPOUT_STEP) * _DROPOUT_STEP, 2)


def suitable_teachers(recipe: Recipe, epochs: float, characters: int, documents: bool) -> int:
    """How many teachers a run of so many epochs has time for in its first half; fewer than 2: 0.

    A single model gains next to nothing from reading a text of a million characters more than 4
    times, or a list more than 15 times; see EXPERIMENTS.md.
    """
    least, most = _LISTS_TAUGHT if documents else _TAUGHT
    if not least <= characters <= most:
        return 0
    if parameter_count(MEASURED_TOKENS, recipe) < _TAUGHT_WEIGHTS * characters:
        return 0
    readings = _LIST_READINGS if documents else max(_TEXT_READINGS, _TEXT_READ / characters)
    teachers = min(_MAX_TEACHERS, round(epochs / 2 / readings))
    return teachers if teachers >= 2 else 0


def typical_speed(recipe: Recipe) -> float:
    """A guess at the characters a second that a laptop trains."""
    return _TYPICAL_RATE / parameter_count(MEASURED_TOKENS, recipe)


def table_recipe(characters: int) -> Recipe:
    """The recipe that suits a corpus of so many characters, before anything else is known."""
    return next(recipe for size, recipe in _BY_SIZE if characters <= size)


def choose_recipe(
    characters: int,
    preset: str | None = None,
    measure_speed: Callable[[Recipe], float] = typical_speed,
    documents: int = 0,
    vocab_size: int = MEASURED_TOKENS,
    tokens: int | None = None,
    **overrides: Unpack[Overrides],
) -> Recipe:
    """The recipe for a corpus and a time.

    Where minutes bound the run and no size is given, the model is the largest of `_SIZES` that
    reads enough at the measured speed.

    Args:
        characters: that are trained on.
        preset: a name in `PRESETS`.
        measure_speed: gives the characters a second that are trained here; called if it matters.
        documents: how many the characters are of; 0 is running text.
        vocab_size: how many different tokens there are.
        tokens: that the characters are; None is one each.
        overrides: fields of `Recipe` that are fixed; None leaves one to the recipe.

    Raises:
        OptionError: an unknown preset, or a setting out of its range.
    """
    if preset is not None and preset not in PRESETS:
        raise OptionError(f"preset is {preset!r}; choose one of {', '.join(PRESETS)}")
    recipe = PRESETS[preset] if preset else table_recipe(characters)
    given = given_settings(overrides)
    tokens = characters if tokens is None else tokens
    if vocab_size > _MANY_TOKENS and tokens < characters and not preset:
        recipe = replace(recipe, embedding_dim=max(recipe.embedding_dim, _WIDE_EMBEDDING))
    if documents and recipe.steps is None:
        recipe = _for_documents(recipe, tokens // documents)
    recipe = _fit(_replace(recipe, given), tokens)
    may_shrink = recipe.minutes is not None and not given.keys() & set(SIZES)
    settled = {"dropout", "teachers"} <= given.keys() and not may_shrink
    if not (preset or characters <= _TABLE_HAS_DROPOUT or settled):
        recipe, epochs = _suitable_size(recipe, tokens, measure_speed, may_shrink, documents)
        # weights of thousands of characters learn by heart in fewer readings; words gain nothing
        many = parameter_count(vocab_size, recipe) / parameter_count(MEASURED_TOKENS, recipe)
        readings = epochs * max(1.0, many) if tokens == characters else epochs
        suitable = _suitable_settings(recipe, epochs, readings, tokens, bool(documents))
        suitable["teachers"] = suitable_teachers(recipe, epochs, characters, bool(documents))
        if given.get("teachers", suitable["teachers"]):
            suitable["dropout"] = _LISTS_TAUGHT_DROPOUT if documents else _TAUGHT_DROPOUT
        recipe = replace(recipe, **(suitable | given))
    (least, most), most_tokens = _COUNTS_TEACH
    counts_teach = not preset and least < characters <= most and vocab_size <= most_tokens
    # teachers of a text that begin as one n-gram are too much alike
    if counts_teach and (documents or not recipe.teachers):
        recipe = replace(recipe, ngram_share=given.get("ngram_share", 1.0))
    return recipe


def _for_documents(recipe: Recipe, mean_length: int) -> Recipe:
    """The recipe with windows of the documents' mean length."""
    time = min(recipe.seq_length, max(_SHORTEST, mean_length))
    # of short windows twice as many: as good after 15 seconds, and more characters a second
    rows = recipe.batch_size * (2 if 2 * time <= recipe.seq_length else 1)
    return replace(recipe, seq_length=time, batch_size=rows)


def _suitable_settings(
    recipe: Recipe, epochs: float, readings: float, tokens: int, documents: bool
) -> dict[str, Any]:
    """Fields of a recipe that follow from how often so many tokens are read.

    `readings` are the epochs that it is like to a model of few characters.
    """
    suitable: dict[str, Any] = {"dropout": suitable_dropout(readings)}
    few = epochs * tokens < _FEW_STEPS * recipe.batch_size * recipe.seq_length
    if recipe.hidden_size <= _NARROW:
        if epochs <= _FEW_EPOCHS:
            suitable["learning_rate"] = _NARROW_RATE
    elif few and not documents:
        suitable["learning_rate"] = _WIDE_RATE
    if not documents and recipe.steps is None and few:
        suitable["seq_length"] = max(1, recipe.seq_length // 2)
    return suitable


def _replace(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """`recipe` with the settings of `given`, whose length takes the place of its own."""
    unknown = set(given) - {field.name for field in fields(Recipe)}
    if unknown:
        raise OptionError(f"no such setting: {', '.join(sorted(unknown))}")
    # the recipe's own length is of one kind, and the user's may be of another
    lengths = given.keys() & set(LENGTHS)
    if len(lengths) > 1:
        raise OptionError(f"give only one of {' and '.join(sorted(lengths))}")
    if lengths:
        given = dict.fromkeys(LENGTHS) | given
    return replace(recipe, **given)


def _fit(recipe: Recipe, characters: int) -> Recipe:
    """The recipe with fewer and shorter windows, where the corpus is too short for its own."""
    seq_length = min(recipe.seq_length, max(1, (characters - 1) // 2))
    batch_size = recipe.batch_size
    # two windows of each row at least, so that the state is carried from one to the next
    if recipe.windows == "stateful":
        batch_size = min(batch_size, max(1, (characters - 1) // (2 * seq_length)))
    return replace(recipe, seq_length=seq_length, batch_size=batch_size)


def _suitable_size(
    recipe: Recipe,
    characters: int,
    measure_speed: Callable[[Recipe], float],
    may_shrink: bool,
    documents: int,
) -> tuple[Recipe, float]:
    """The recipe, smaller if need be and if it may be; and how often it reads the corpus.

    Args:
        recipe: with a length.
        characters: tokens of the corpus.
        measure_speed: gives the tokens a second.
        may_shrink: whether the size is free.
        documents: how many there are; 0 is running text.
    """
    if recipe.minutes is None:
        epochs = recipe.epochs
        if recipe.steps is not None:
            epochs = recipe.steps * recipe.batch_size * recipe.seq_length / characters
        assert epochs is not None
        return recipe, epochs
    seconds, share = recipe.minutes * 60, _LISTS_NEED if documents else 1.0
    read = seconds * measure_speed(recipe)
    if not may_shrink or read >= share * _SIZES[0][1]:
        return recipe, read / characters
    own = recipe.num_layers, recipe.hidden_size
    weights = parameter_count(MEASURED_TOKENS, recipe)
    for (layers, width), enough in _SIZES:
        enough *= share
        if (layers, width) == own and read >= enough:
            break
        if (layers, width) >= own:
            continue
        smaller = replace(recipe, num_layers=layers, hidden_size=width)
        # at best, the speed grows as the weights get fewer; what cannot be enough is not timed
        if read * weights / parameter_count(MEASURED_TOKENS, smaller) < enough:
            continue
        recipe, weights = smaller, parameter_count(MEASURED_TOKENS, smaller)
        read = seconds * measure_speed(recipe)
        if read >= enough:
            break
    return recipe, read / characters

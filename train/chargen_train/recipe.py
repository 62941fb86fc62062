"""How to train: every setting, the defaults by corpus size and time, and the presets."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from chargen_ort.checks import number
from chargen_ort.errors import OptionError


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run.

    Attributes:
        hidden_size, num_layers, embedding_dim: sizes of the network.
        seq_length: characters a window, and steps of back-propagation through time.
        batch_size: windows a step.
        learning_rate: its peak.
        dropout: see `CharGRU`; its `weight_drop` is the same number.
        weight_decay: of AdamW, on matrices only.
        gradient_clip: largest gradient norm; 0 does not clip. A student that begins with narrow
            weights has a multiple; see `chargen_train.distillation`.
        average: decay of the exponential average of the weights; 0 does not average.
        schedule: ``cosine`` warms up and decays to zero, ``constant`` does not.
        windows: ``stateful`` reads the corpus on, carrying the state; ``random`` takes windows
            from anywhere, each from a zero state.
        teachers: models that are trained one after the other before the one that is kept, which
            then learns from them; see `chargen_train.distillation`.
        ngram_share: of the loss, at first: what an n-gram predicts, instead of the text; it falls
            to 0 while a model is trained. See `chargen_train.ngram_targets`.
        reset: probability that a row's carried state is set to zero before a window, so that the
            model also learns to begin a text.
        steps, epochs, minutes: how long, exactly one of them.
        seed: of weights, windows and dropout.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    # the measurements behind these numbers stand in EXPERIMENTS.md
    hidden_size: int = 512
    num_layers: int = 2  # depth two beats one wide layer of as many weights
    embedding_dim: int = 48  # 2 x 512 with the letters of English stays below 10 MB
    seq_length: int = 64  # with the batch: many small steps win while time is short
    batch_size: int = 32
    learning_rate: float = 3e-3
    dropout: float = 0.0
    weight_decay: float = 0.01
    gradient_clip: float = 0.4
    average: float = 0.99
    schedule: Literal["cosine", "constant"] = "cosine"
    windows: Literal["stateful", "random"] = "stateful"
    reset: float = 0.15  # every text that a user begins starts from a zero state
    teachers: int = 0
    ngram_share: float = 0.0
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None:
                number(name, value, low, high)
        if sum(v is not None for v in (self.steps, self.epochs, self.minutes)) != 1:
            raise OptionError("give one of steps, epochs and minutes")
        if self.device not in ("auto", "cpu", "cuda"):
            raise OptionError(f"device is {self.device!r}; give auto, cpu or cuda")


class Overrides(TypedDict, total=False):
    """Fields of a `Recipe` that are given instead of chosen; None is as if it were left out."""

    hidden_size: int | None
    num_layers: int | None
    embedding_dim: int | None
    seq_length: int | None
    batch_size: int | None
    learning_rate: float | None
    dropout: float | None
    weight_decay: float | None
    gradient_clip: float | None
    average: float | None
    schedule: Literal["cosine", "constant"] | None
    windows: Literal["stateful", "random"] | None
    reset: float | None
    teachers: int | None
    ngram_share: float | None
    steps: int | None
    epochs: float | None
    minutes: float | None
    seed: int | None
    device: Literal["auto", "cpu", "cuda"] | None


LIMITS: dict[str, tuple[float, float]] = {
    "hidden_size": (1, 8192),
    "num_layers": (1, 16),
    "embedding_dim": (1, 8192),
    "seq_length": (1, 4096),
    "batch_size": (1, 4096),
    "learning_rate": (1e-7, 1.0),
    "dropout": (0.0, 0.9),
    "weight_decay": (0.0, 10.0),
    "gradient_clip": (0.0, 1e6),
    "average": (0.0, 0.99999),
    "reset": (0.0, 1.0),
    "teachers": (0, 32),
    "ngram_share": (0.0, 1.0),
    "steps": (1, 10**9),
    "epochs": (1e-3, 1e6),
    "minutes": (0.01, 100_000.0),
    "seed": (0, 2**63 - 1),
}

LENGTHS = ("steps", "epochs", "minutes")

LESSON = Recipe(
    hidden_size=32,
    num_layers=1,
    embedding_dim=16,
    seq_length=5,
    batch_size=1,
    learning_rate=0.01,
    weight_decay=0.0,
    gradient_clip=0.0,
    average=0.0,
    schedule="constant",
    windows="random",
    steps=200,
)
PRESETS = {"lesson": LESSON}

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
_SIZE_SETTINGS = {"hidden_size", "num_layers", "embedding_dim"}
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


def parameter_count(vocab_size: int, recipe: Recipe) -> int:
    """Weights and biases of the model that a recipe makes."""
    e, h = recipe.embedding_dim, recipe.hidden_size
    layers = sum(3 * h * ((h if layer else e) + h + 2) for layer in range(recipe.num_layers))
    return vocab_size * e + layers + h * vocab_size + vocab_size


def typical_speed(recipe: Recipe) -> float:
    """A guess at the characters a second that a laptop trains."""
    return _TYPICAL_RATE / parameter_count(64, recipe)


def choose_recipe(
    characters: int,
    preset: str | None = None,
    measure_speed: Callable[[Recipe], float] = typical_speed,
    documents: int = 0,
    vocab_size: int = 64,
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
    recipe = PRESETS[preset] if preset else next(r for size, r in _BY_SIZE if characters <= size)
    given = given_settings(overrides)
    tokens = characters if tokens is None else tokens
    counted, most = _COUNTS_TEACH
    if not preset and counted[0] < characters <= counted[1] and vocab_size <= most:
        recipe = replace(recipe, ngram_share=1.0)
    if vocab_size > _MANY_TOKENS and tokens < characters and not preset:
        recipe = replace(recipe, embedding_dim=max(recipe.embedding_dim, _WIDE_EMBEDDING))
    if documents and recipe.steps is None:
        time = min(recipe.seq_length, max(_SHORTEST, tokens // documents))
        # of short windows twice as many: as good after 15 seconds, and more characters a second
        rows = recipe.batch_size * (2 if 2 * time <= recipe.seq_length else 1)
        recipe = replace(recipe, seq_length=time, batch_size=rows)
    recipe = _fit(_replace(recipe, given), tokens)
    if preset or characters <= _TABLE_HAS_DROPOUT:
        return recipe
    may_shrink = recipe.minutes is not None and not given.keys() & _SIZE_SETTINGS
    if {"dropout", "teachers"} <= given.keys() and not may_shrink:
        return recipe
    recipe, epochs = _suitable_size(recipe, tokens, measure_speed, may_shrink, documents)
    # the weights of thousands of characters learn by heart in fewer readings; words gain nothing
    many = parameter_count(vocab_size, recipe) / parameter_count(MEASURED_TOKENS, recipe)
    readings = epochs * max(1.0, many) if tokens == characters else epochs
    suitable = _suitable_settings(recipe, epochs, readings, tokens, bool(documents))
    teachers = suitable_teachers(recipe, epochs, characters, bool(documents))
    if given.get("teachers", teachers):
        soft = _LISTS_TAUGHT_DROPOUT if documents else _TAUGHT_DROPOUT
        suitable |= {"teachers": teachers, "dropout": soft}
        if not documents:  # teachers that begin as one n-gram are too much alike
            suitable["ngram_share"] = 0.0
    return replace(recipe, **(suitable | given))


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


def describe_length(recipe: Recipe) -> str:
    """How long a run is, in words."""
    if recipe.minutes is not None:
        return f"{recipe.minutes:g} min"
    if recipe.epochs is not None:
        return f"{recipe.epochs:g} epochs"
    return f"{recipe.steps:,} steps"


def given_settings(overrides: Overrides) -> dict[str, Any]:
    """The overrides that are given, by name; those that are None are left to the recipe."""
    return {name: value for name, value in overrides.items() if value is not None}


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
    weights = parameter_count(64, recipe)
    for (layers, width), enough in _SIZES:
        enough *= share
        if (layers, width) == own and read >= enough:
            break
        if (layers, width) >= own:
            continue
        smaller = replace(recipe, num_layers=layers, hidden_size=width)
        # at best, the speed grows as the weights get fewer; what cannot be enough is not timed
        if read * weights / parameter_count(64, smaller) < enough:
            continue
        recipe, weights = smaller, parameter_count(64, smaller)
        read = seconds * measure_speed(recipe)
        if read >= enough:
            break
    return recipe, read / characters

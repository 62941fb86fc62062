"""How to train: every setting of a run, its limits and the presets.

`chargen_train.choosing` chooses those that are not given.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

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
SIZES = ("hidden_size", "num_layers", "embedding_dim")

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


def parameter_count(vocab_size: int, recipe: Recipe) -> int:
    """Weights and biases of the model that a recipe makes."""
    e, h = recipe.embedding_dim, recipe.hidden_size
    layers = sum(3 * h * ((h if layer else e) + h + 2) for layer in range(recipe.num_layers))
    return vocab_size * e + layers + h * vocab_size + vocab_size


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

"""What a run had behind it when it had ended and was given more time."""

from dataclasses import asdict, dataclass

from chargen_train.recipe import LENGTHS, Recipe, describe_length

MAX_LENGTHS = 256  # characters that say how long the parts of a run were


@dataclass(frozen=True)
class Earlier:
    """What a run had done when it had ended and was given more time.

    Attributes:
        parts: how often it has ended before.
        steps: that it had taken then.
        seconds: that those had used up.
        lengths: what it had been given, in words; empty where this is its first part.
    """

    parts: int = 0
    steps: int = 0
    seconds: float = 0.0
    lengths: str = ""


def recorded_settings(recipe: Recipe, earlier: Earlier) -> dict[str, int | float | str | None]:
    """The settings of a run for its records.

    Of a run of several parts, how long each was is one of them, since the recipe knows the length
    of the last alone.
    """
    settings = asdict(recipe)
    if earlier.parts:
        settings |= dict.fromkeys(LENGTHS)
        settings["length"] = f"{earlier.lengths}, then {describe_length(recipe)}"
    return settings

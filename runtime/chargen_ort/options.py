"""The sampling options: one table says what each is, from which all that is said of it follows.

A row of the table is a field of `SamplingOptions`. From it follow the checks and their messages,
the options of the command, the JSON of models and snapshots, and the limits in the JSON Schema;
the tests hold EMBEDDING.md and the schema against it. NumPy is not needed here, so that a
command's --help need not wait for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self, TypedDict

from chargen_ort.checks import instance, json_object, number, shown_limit, shown_value, whole_number
from chargen_ort.errors import OptionError

SEED_LIMIT = 1 << 64
ROW_LIMIT = 1 << 64
MAX_LENGTH = 1 << 40  # characters of one text
MAX_TOP_K = (1 << 63) - 1
MAX_STOPS = 16
MAX_STOP_LENGTH = 256  # characters
MAX_PATTERN = 4096  # characters
MAX_BOUND = 1 << 20  # of min_length and max_length, characters


@dataclass(frozen=True)
class Row:
    """What there is to know of a sampling option that is a number.

    Attributes:
        help: what it does, a whole sentence.
        low, high: the smallest and the largest value.
        whole: only whole numbers are taken.
        above: `low` itself is refused.
        special: a value below `low` that is taken too, and what it means.
        off: the value that switches it off.
    """

    help: str
    low: float
    high: float
    whole: bool = False
    above: bool = False
    special: tuple[float, str] | None = None
    off: float | None = None

    @cached_property
    def range(self) -> str:
        """The values that are taken, for a message: ``0 (off) to 1``."""
        low, high = shown_limit(self.low), shown_limit(self.high)
        if self.above:
            end = " (off)" if self.off == self.high else f" ({self.off:g} is off)"
            return f"a value above {low}, up to {high}{end}"
        special = ""
        if self.special:
            special = f"{shown_limit(self.special[0])} ({self.special[1]}), or "
        return f"{special}{low}{' (off)' if self.off == self.low else ''} to {high}"

    @property
    def schema(self) -> dict[str, Any]:
        """Its type and limits in JSON Schema, which has no gaps: a special value widens them."""
        low = self.special[0] if self.special else self.low
        return {
            "type": "integer" if self.whole else "number",
            "exclusiveMinimum" if self.above else "minimum": low,
            "maximum": self.high,
        }

    def check(self, name: str, value: object) -> float:
        """`value` as a plain number.

        Raises:
            OptionError: not a number of this kind, or out of the range.
        """
        if self.whole:
            low, high = int(self.low), int(self.high)
            return whole_number(name, value, low, high, self.range)
        found = number(name, value, cure=self.range)
        taken = self.low < found <= self.high or (found == self.low and not self.above)
        if not taken and not (self.special and found == self.special[0]):
            raise OptionError(f"{name} is {found:g}; give {self.range}")
        return found


def _option(default: Any, **facts: Any) -> Any:
    return field(default=default, metadata={"row": Row(**facts)})


def _bound(default: int | None, **facts: Any) -> Any:
    row = Row(low=0, high=MAX_BOUND, whole=True, **facts)
    return field(default=default, metadata={"control": row})


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen. `TABLE` has the range of each option that is a number.

    Args:
        temperature: divides the logits; 0 is greedy.
        top_k: keep the k most likely tokens, ties with the k-th included.
        top_p: keep the most likely tokens until their mass reaches p.
        min_p: drop tokens less likely than min_p times the likeliest.
        repetition_penalty: divides positive and multiplies negative logits of the tokens that
            the prompt or the output has.
        stop: strings that end the text; they are not part of it. One string or several, at most
            16 of at most 256 characters each.
        seed: of the draws; None takes a fresh one from the operating system.
        pattern: a regular expression that the whole text matches, its start included; see
            `chargen_ort.patterns`. None is any text.
        min_length, max_length: characters that the whole text has, its start included.
        ban: strings that the whole text does not have; as many and as long as those of `stop`.
        exact: draw freely, and begin a text anew that turns out not to be as it should. The texts
            are then distributed as the model's own that are; otherwise each draw is confined to
            what can still become one, which prefers some of them.

    Raises:
        OptionError: a value is out of its range or of another type.
    """

    temperature: float = _option(
        1.0,
        help="Below 1 the text is safer, above 1 it is bolder; 0 always takes the likeliest "
        "character.",
        low=1e-6,
        high=1e6,
        special=(0, "greedy"),
    )
    top_k: int = _option(
        0,
        help="Draw from the K likeliest characters; 0 is off.",
        low=0,
        high=MAX_TOP_K,
        whole=True,
        off=0,
    )
    top_p: float = _option(
        1.0,
        help="Draw from the likeliest characters that together have probability P; 1 is off.",
        low=0,
        high=1,
        above=True,
        off=1,
    )
    min_p: float = _option(
        0.0,
        help="Draw from characters at least P times as likely as the likeliest; 0 is off.",
        low=0,
        high=1,
        off=0,
    )
    repetition_penalty: float = _option(
        1.0,
        help="Above 1 makes characters that were used less likely; 1 is off.",
        low=0,
        high=100,
        above=True,
        off=1,
    )
    stop: str | Sequence[str] = ()
    seed: int | None = _option(
        None,
        help="The same seed gives the same text. By default each run takes a new one.",
        low=0,
        high=SEED_LIMIT - 1,
        whole=True,
    )
    pattern: str | None = None
    min_length: int = _bound(
        0, help="The whole text, its start included, has at least N characters."
    )
    max_length: int | None = _bound(
        None, help="The whole text, its start included, has at most N characters, and ends by then."
    )
    ban: str | Sequence[str] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        # plain Python numbers are kept, whatever came: they go through JSON, pickles and forks
        object.__setattr__(self, "stop", check_stops(self.stop))
        for name, row in TABLE.items():
            value = getattr(self, name)
            if value is not None or name != "seed":
                object.__setattr__(self, name, row.check(name, value))
        self._check_control()

    def _check_control(self) -> None:
        if self.pattern is not None:
            instance("pattern", self.pattern, str)
            if any("\ud800" <= character <= "\udfff" for character in self.pattern):
                raise OptionError("pattern has a lone surrogate, which no text has; leave it out")
            if len(self.pattern) > MAX_PATTERN:
                size = len(self.pattern)
                raise OptionError(f"pattern has {size:,} characters; give at most {MAX_PATTERN:,}")
        for name, row in CONTROL_TABLE.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, row.check(name, getattr(self, name)))
        if self.max_length is not None and self.min_length > self.max_length:
            raise OptionError(
                f"min_length is {self.min_length}, max_length is {self.max_length}; give a "
                "min_length that is no larger"
            )
        object.__setattr__(self, "ban", check_stops(self.ban, "ban", "banned"))
        instance("exact", self.exact, bool)
        if self.exact and not self.controlled:
            raise OptionError(
                "exact is for texts that are confined; give a pattern, min_length, max_length or "
                "ban as well"
            )

    @property
    def controlled(self) -> bool:
        """Whether the text is confined: by a pattern, a length, or banned strings."""
        lengths = self.min_length > 0 or self.max_length is not None
        return self.pattern is not None or lengths or bool(self.ban)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, as a tuple."""
        return tuple(self.stop)

    def to_json(self) -> dict[str, Any]:
        """The options as they stand in JSON, but for the seed, which is a text's and no model's.

        What confines a text stands there only where it does.
        """
        names = [each.name for each in fields(self) if each.name not in ("seed", *CONTROLS)]
        found = {name: getattr(self, name) for name in names} | {"stop": list(self.stops)}
        if self.controlled:
            found |= {name: getattr(self, name) for name in CONTROLS} | {"ban": list(self.ban)}
        return found

    @classmethod
    def from_json(cls, name: str, value: object) -> Self:
        """The options that `to_json` wrote: all of them and nothing else.

        Args:
            name: what they are, for the message.
            value: as it was read from JSON.

        Raises:
            OptionError: one is missing, not known, of another type or out of its range.
        """
        names = [each.name for each in fields(cls) if each.name not in ("seed", *CONTROLS)]
        if isinstance(value, dict) and CONTROLS[0] in value:
            names += CONTROLS
        found = json_object(name, value, names)
        try:
            for listed in ("stop", "ban"):
                if listed in found and not isinstance(found[listed], list):
                    raise OptionError(
                        f"{listed} is {shown_value(found[listed])}; it must be a list"
                    )
            return cls(**found)
        except OptionError as error:
            raise OptionError(f"{name}: {error}") from None


TABLE: Mapping[str, Row] = {
    each.name: each.metadata["row"] for each in fields(SamplingOptions) if "row" in each.metadata
}
CONTROL_TABLE: Mapping[str, Row] = {
    each.name: each.metadata["control"]
    for each in fields(SamplingOptions)
    if "control" in each.metadata
}
CONTROLS = ("pattern", "min_length", "max_length", "ban", "exact")  # what confines a text


class SamplingOverrides(TypedDict, total=False):
    """The fields of `SamplingOptions` as keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    stop: str | Sequence[str]
    seed: int | None
    pattern: str | None
    min_length: int
    max_length: int | None
    ban: str | Sequence[str]
    exact: bool


def check_stops(value: object, name: str = "stop", kind: str = "stop") -> tuple[str, ...]:
    """Stop strings, or other ones, as a tuple, from one string or several.

    Raises:
        OptionError: not strings, an empty one among several, too many or too long.
    """
    if isinstance(value, str):
        value = (value,) if value else ()
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise OptionError(f"{name} is {shown_value(value)}; give non-empty strings")
    if len(value) > MAX_STOPS:
        raise OptionError(f"{name} has {len(value)} strings; give at most {MAX_STOPS}")
    stops = tuple(value)
    for stop in stops:
        if not isinstance(stop, str) or not stop:
            raise OptionError(f"{name} has {shown_value(stop)}; give non-empty strings")
        if len(stop) > MAX_STOP_LENGTH:
            raise OptionError(
                f"a {kind} string has {len(stop)} characters; give at most {MAX_STOP_LENGTH}"
            )
    return stops

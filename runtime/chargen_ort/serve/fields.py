"""A field of a body: what it is for, its JSON Schema, and how a value of it is checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chargen_ort.checks import instance, number, shown_value, whole_number
from chargen_ort.errors import OptionError
from chargen_ort.options import Row


@dataclass(frozen=True)
class Field:
    """A field of a body.

    Attributes:
        help: what it is, a whole sentence.
        schema: its JSON Schema, without what it may be instead: null, for its default.
        read: checks a value and returns it.
    """

    help: str
    schema: Mapping[str, object]
    read: Callable[[str, object], object]


def whole_field(text: str, low: int, high: int) -> Field:
    """A whole number from `low` to `high`."""

    def read(name: str, value: object) -> object:
        return whole_number(name, value, low, high)

    return Field(text, {"type": "integer", "minimum": low, "maximum": high}, read)


def number_field(text: str, most: float) -> Field:
    """A number from -`most` to `most`."""

    def read(name: str, value: object) -> object:
        return number(name, value, -most, most)

    return Field(text, {"type": "number", "minimum": -most, "maximum": most}, read)


def row_field(row: Row) -> Field:
    """A sampling option, by its row of the table."""
    return Field(row.help, row.schema, row.check)


def flag_field(text: str) -> Field:
    """True or false."""
    return Field(text, {"type": "boolean"}, read_flag)


def read_flag(name: str, value: object) -> object:
    """`value`, which is true or false.

    Raises:
        OptionError: it is neither.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {shown_value(value)}; give true or false")
    return value


def text_field(help_text: str, most: int) -> Field:
    """A text of at most `most` characters."""

    def read(name: str, value: object) -> object:
        instance(name, value, str)
        if len(str(value)) > most:
            raise OptionError(f"{name} has {len(str(value)):,} characters; give at most {most:,}")
        return value

    return Field(help_text, {"type": "string", "maxLength": most}, read)


def refused_field(name: str, schema: Mapping[str, object]) -> Field:
    """A field of the interface that is refused by name."""

    def read(_: str, value: object) -> object:
        raise OptionError(f"{name} is not done here; leave it out")

    return Field("Not done here: anything but null is refused.", schema, read)

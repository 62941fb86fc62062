"""Reading the protobuf wire format, as much of it as an ONNX file needs.

Nothing is copied or allocated on the word of the file: every length is checked against the bytes
that are there. Source: the Protocol Buffers encoding guide.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from chargen_ort.errors import ArtifactError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The varint at `position` and the position after it.

    Raises:
        ArtifactError: it runs past the end or past 64 bits.
    """
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if position >= len(data):
            raise ArtifactError("the file is cut off inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >= 1 << 64 or (byte == 0 and count):
                break  # more than 64 bits, or longer than needed
            return value, position
    raise ArtifactError(f"a number before byte {position} is longer than its value needs")


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of one message, in order: number, wire type, value.

    The value is an int for varints and a view of the bytes for everything else.

    Raises:
        ArtifactError: a field is cut off, has number 0, or a wire type that ONNX never uses.
    """
    position = 0
    while position < len(data):
        key, position = read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == 0 or number >= 1 << 29:
            raise ArtifactError(f"field number {number} before byte {position} is not valid")
        if wire_type == VARINT:
            value, position = read_varint(data, position)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            size, position = read_varint(data, position)
        elif wire_type in _FIXED_SIZE:
            size = _FIXED_SIZE[wire_type]
        else:
            raise ArtifactError(f"wire type {wire_type} before byte {position} is not valid")
        if size > len(data) - position:
            raise ArtifactError(
                f"the file is cut off: field {number} needs {size} bytes, "
                f"{len(data) - position} are left"
            )
        yield number, wire_type, data[position : position + size]
        position += size


@dataclass(frozen=True)
class Field:
    """A field that a message may have: its name, its wire type, and how often it may occur."""

    name: str
    wire_type: int
    limit: int = 1


@dataclass(frozen=True)
class Message:
    """The fields of one message, each known, of the right wire type and not too many.

    Attributes:
        where: what the message is, for error messages.
        values: the values of each field that is there, by the field's name.
    """

    where: str
    values: Mapping[str, list[int | memoryview]]

    @classmethod
    def read(cls, data: memoryview, known: Mapping[int, Field], where: str) -> Self:
        """Read `data` as a message that has no other fields than `known`.

        Raises:
            ArtifactError: malformed, an unknown field, or one that occurs too often.
        """
        values: dict[str, list[int | memoryview]] = {}
        try:
            for number, wire_type, value in fields(data):
                field = known.get(number)
                if field is None:
                    raise ArtifactError(f"field {number} is not one that train-export writes")
                if wire_type != field.wire_type:
                    raise ArtifactError(f"{field.name} has wire type {wire_type}")
                found = values.setdefault(field.name, [])
                if len(found) == field.limit:
                    raise ArtifactError(f"{field.name} occurs more than {times(field.limit)}")
                found.append(value)
        except ArtifactError as error:
            raise ArtifactError(f"{where}: {error}") from None
        return cls(where, values)

    def numbers(self, name: str) -> tuple[int, ...]:
        """All values of an integer field, as signed 64-bit integers."""
        return tuple(
            value - (1 << 64) if value >> 63 else value
            for value in self.values.get(name, ())
            if isinstance(value, int)
        )

    def parts(self, name: str) -> list[memoryview]:
        """All values of a bytes field."""
        return [value for value in self.values.get(name, ()) if isinstance(value, memoryview)]

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a text field.

        Raises:
            ArtifactError: one is not UTF-8.
        """
        try:
            return tuple(str(value, "utf-8") for value in self.parts(name))
        except UnicodeDecodeError:
            raise ArtifactError(f"{self.where}: {name} is not UTF-8") from None

    def number(self, name: str) -> int:
        """The value of an integer field, 0 where it is absent."""
        return next(iter(self.numbers(name)), 0)

    def text(self, name: str) -> str:
        """The value of a text field, empty where it is absent."""
        return next(iter(self.texts(name)), "")

    def part(self, name: str) -> memoryview:
        """The value of a bytes field, empty where it is absent."""
        return next(iter(self.parts(name)), memoryview(b""))


def times(count: int) -> str:
    """`count` in words: once, or so many times."""
    return "once" if count == 1 else f"{count} times"


def write_varint(value: int) -> bytes:
    """`value` (0 or more) as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_bytes_field(number: int, value: bytes) -> bytes:
    """One length-delimited field."""
    return write_varint(number << 3 | BYTES) + write_varint(len(value)) + value

"""The protobuf wire format, as little of it as a model file needs.

Nothing is copied or allocated on the word of the file: every length is checked against the bytes
that are there. Source: the Protocol Buffers encoding guide.
"""

from collections.abc import Iterator
from typing import NamedTuple

from chargen_ort.errors import ArtifactError

_VARINT, _BYTES = 0, 2  # wire types
_MAX_VARINT_BYTES = 10


class Found(NamedTuple):
    """A field of a message: its number, an int or a view of its bytes, and where it lies."""

    number: int
    value: int | memoryview
    begin: int
    end: int


def fields(data: memoryview, begin: int = 0, end: int | None = None) -> Iterator[Found]:
    """The fields of the message in the bytes from `begin` to before `end`, in order.

    Raises:
        ArtifactError: a field is cut off, has number 0, or a wire type that no model file uses.
    """
    end = len(data) if end is None else end
    while begin < end:
        key, position = _read_varint(data, begin, end)
        number, wire_type = key >> 3, key & 7
        if number == 0 or number >= 1 << 29:
            raise ArtifactError(f"field number {number} at byte {begin} is not valid")
        if wire_type not in (_VARINT, _BYTES):
            raise ArtifactError(f"field {number} at byte {begin} has wire type {wire_type}")
        size, position = _read_varint(data, position, end)
        value: int | memoryview = size
        if wire_type == _BYTES:
            if size > end - position:
                raise ArtifactError(
                    f"the file is cut off: field {number} at byte {begin} needs {size} bytes, "
                    f"{end - position} are left"
                )
            value = data[position : position + size]
            position += size
        yield Found(number, value, begin, position)
        begin = position


def _read_varint(data: memoryview, begin: int, end: int) -> tuple[int, int]:
    """The varint at `begin` and the position after it."""
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if begin + count >= end:
            raise ArtifactError(f"the file is cut off inside the number at byte {begin}")
        byte = data[begin + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >= 1 << 64 or (byte == 0 and count):
                break  # more than 64 bits, or longer than needed
            return value, begin + count + 1
    raise ArtifactError(f"the number at byte {begin} is longer than its value needs")


def varint(value: int) -> bytes:
    """`value` as a varint; a negative one as 64 bits in two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer_field(number: int, value: int) -> bytes:
    """An integer field."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_header(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a text, a message or a tensor's data."""
    return varint(number << 3 | _BYTES) + varint(size)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of bytes."""
    return bytes_header(number, len(value)) + value

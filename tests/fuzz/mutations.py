"""One spoilt model file for each seed, the same for ever."""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from chargen_ort.artifact import seal
from chargen_ort.protobuf import bytes_field, fields, integer_field, varint

SEALED_SHARE = 4  # one seed in so many is sealed again after its mutation
_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 64) - 1)
_INFO = ((), (2,), (2, 1), (2, 1, 2), (2, 1, 2, 1))  # within a ValueInfoProto
_INNER = {(8,), (14,)} | {
    (*graph, *path)
    for graph in ((7,), (7, 1, 5, 6))  # the graph, and a graph in an attribute of one of its nodes
    for path in ((), (1,), (1, 5), (5,), *((side, *info) for side in (11, 12) for info in _INFO))
}  # paths of field numbers at which a model holds messages


class Mutant(NamedTuple):
    """A spoilt file and whether its seal was made anew."""

    data: bytes
    sealed: bool


def mutant(seed: int, bases: list[bytes]) -> Mutant:
    """The file of this seed; `bases` are honest artifacts without their seals."""
    rng = random.Random(seed)
    data = rng.choice(bases)
    sealed = seed % SEALED_SHARE == 0
    if not sealed:
        data = seal(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        change = rng.choice(_STRUCTURED if rng.random() < (0.7 if sealed else 0.2) else _BYTEWISE)
        data = change(data, rng)
    return Mutant(seal(data) if sealed else data, sealed)


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    out = bytearray(data)
    at = _place(data, rng)
    out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    new = rng.randbytes(rng.choice((1, 2, 4, 8)))
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 9, 100))) + data[at:]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 8, 100, 1000)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    piece = data[at : at + rng.choice((1, 8, 100, 1000))]
    return data[:at] + piece * rng.choice((2, 3, 50)) + data[at:]


def _number(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + varint(rng.choice(_NUMBERS)) + data[at + rng.choice((0, 1, 2)) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _place(data: bytes, rng: random.Random) -> int:
    """A position; the ends, where the structure is, more often than the weights."""
    edge = min(len(data), 2000)
    near = rng.randrange(edge or 1)
    return rng.choice((near, len(data) - near - 1 if data else 0, rng.randrange(len(data) or 1)))


Part = list[tuple[int, int | bytes]]  # number and value


def _split(data: bytes) -> Part:
    return [
        (field.number, field.value if isinstance(field.value, int) else bytes(field.value))
        for field in fields(memoryview(data))
    ]


def _join(parts: Part) -> bytes:
    return b"".join(
        integer_field(number, value) if isinstance(value, int) else bytes_field(number, value)
        for number, value in parts
    )


def _within(change: Callable[[Part, random.Random], None]) -> Callable[..., bytes]:
    """A change of the fields of one message somewhere in the model, lengths kept right."""

    def apply(data: bytes, rng: random.Random, path: tuple[int, ...] = ()) -> bytes:
        try:
            parts = _split(data)
        except Exception:  # an earlier change spoilt it
            return _flip(data, rng)
        inner = [
            (i, n, value)
            for i, (n, value) in enumerate(parts)
            if (*path, n) in _INNER and isinstance(value, bytes)
        ]
        if inner and rng.random() < 0.8:
            index, number, value = rng.choice(inner)
            parts[index] = (number, apply(value, rng, (*path, number)))
        elif parts:
            change(parts, rng)
        return _join(parts)

    return apply


def _drop(parts: Part, rng: random.Random) -> None:
    parts.pop(rng.randrange(len(parts)))


def _double(parts: Part, rng: random.Random) -> None:
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))


def _swap(parts: Part, rng: random.Random) -> None:
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[i], parts[j] = parts[j], parts[i]


def _renumber(parts: Part, rng: random.Random) -> None:
    i = rng.randrange(len(parts))
    number = rng.choice((rng.randrange(1, 30), rng.randrange(1, 1 << 29)))
    parts[i] = (number, parts[i][1])


def _change_value(parts: Part, rng: random.Random) -> None:
    i = rng.randrange(len(parts))
    number, value = parts[i]
    if isinstance(value, int):
        value = rng.choice((*_NUMBERS, value + 1, max(0, value - 1)))
    else:
        value = rng.choice((_flip, _overwrite, _insert, _delete, _cut))(value, rng)
    parts[i] = (number, value)


def _borrow(parts: Part, rng: random.Random) -> None:
    """One field takes the value of another of the same kind."""
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    if type(parts[i][1]) is type(parts[j][1]):
        parts[i] = (parts[i][0], parts[j][1])


_BYTEWISE = (_flip, _flip, _overwrite, _insert, _delete, _repeat, _number, _cut)
_STRUCTURED = tuple(
    _within(change) for change in (_drop, _double, _swap, _renumber, _change_value, _borrow)
)


_KEY = b"chargen.config"
_TEXTS = (
    "",
    " ",
    "\n",
    "é",
    "e\u0301",
    "😀",
    "\ud800",
    "\u2028",
    "\x00",
    "\ufffd",
    "th",
    "  ",
    " e",
)
_ODD = (-1, 0, 1, 2, 255, 256, 1 << 31, 1 << 63, 1.0, 0.5, True, None, "1", [], {})


def config_mutant(seed: int, bases: list[bytes]) -> bytes:
    """A sealed file whose config says something else, which most files of few bytes' change do not.

    `bases` are honest artifacts without their seals. What is changed are values, most of them
    tokens and merges, and what was a number may become anything.
    """
    rng = random.Random(seed)
    parts = _split(rng.choice(bases))
    for place, (number, value) in enumerate(parts):
        entry = _split(value) if number == 14 and isinstance(value, bytes) else []
        if entry and entry[0][1] == _KEY and isinstance(entry[1][1], bytes):
            config = json.loads(entry[1][1])
            for _ in range(rng.choice((1, 1, 2, 3))):
                try:
                    _change_config(config, rng)
                except (AttributeError, TypeError):  # an earlier change spoilt it
                    break
            text = json.dumps(config, ensure_ascii=rng.random() < 0.5)
            changed = text.encode("utf-8", "surrogatepass")
            parts[place] = (14, _join([entry[0], (2, changed)]))
    return seal(_join(parts))


def _change_config(config: dict[str, Any], rng: random.Random) -> None:
    tokens, merges = config["tokens"], config["merges"]
    if rng.random() < 0.4:  # another class of character may make another split
        old, new = rng.choice("abdehorst ."), rng.choice((*_TEXTS, chr(rng.randrange(0x11000))))
        config["tokens"] = [text.replace(old, new) for text in tokens]
    elif len(merges) > 1 and rng.random() < 0.4:
        i, j = (2 * rng.randrange(len(merges) // 2) for _ in range(2))
        merges[i : i + 2], merges[j : j + 2] = merges[j : j + 2], merges[i : i + 2]
    else:
        _change_value_of(config, rng.choice(("tokens", "tokens", "merges", *config)), rng)


def _change_value_of(config: dict[str, Any], key: str, rng: random.Random) -> None:
    value = config[key]
    if not isinstance(value, list) or not value:
        if isinstance(value, str) and rng.random() < 0.5:
            config[key] = rng.choice((*_TEXTS, value + "e"))
        else:
            config[key] = rng.choice((*_ODD, not value))
        return
    i, j = rng.randrange(len(value)), rng.randrange(len(value))
    change = rng.randrange(6)
    if change == 0:
        value[i], value[j] = value[j], value[i]
    elif change == 1:
        value[i] = value[j]
    elif change == 2:
        value.pop(i)
    elif change == 3:
        value.insert(j, value[i])
    elif change == 4:
        value[i] = rng.choice(_ODD)
    elif isinstance(value[i], str):
        value[i] = rng.choice((*_TEXTS, value[i] + rng.choice(_TEXTS), value[i] + str(value[j])))
    elif isinstance(value[i], int):
        value[i] += rng.choice((-1, 1, 2))

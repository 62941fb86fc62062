"""One way to check what a caller gives: numbers, token arrays, and how a refused value is shown.

Every public call converts what it is given with these functions before it does anything else. So
NumPy's scalars and arrays without dimensions are welcome wherever a number is, and what is kept
afterwards is always a plain Python number. NumPy itself is needed for arrays only, and imported
there, so that a command's --help need not wait for it.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from chargen_ort.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN_BITS = 80  # an integer with more is told by its number of digits
_SHOWN_POWER = 31  # a limit above this power of two is told as a power
_SHOWN_TEXT = 60
_SHOWN_PATH = 4096


def whole_number(name: str, value: object, low: int, high: int, cure: str = "") -> int:
    """`value` as an int.

    Args:
        name: what the number is, for the message.
        value: an int, a NumPy integer, or an integer array without dimensions; never a bool.
        low: the smallest value that is allowed.
        high: the largest.
        cure: what the message says to give; empty names the range.

    Raises:
        OptionError: not a whole number, or outside `low` … `high`.
    """
    if type(value) is not int:
        plain = _scalar(value)
        if isinstance(plain, bool) or not isinstance(plain, Integral):
            raise OptionError(f"{name} must be a whole number, got {_kind(value)}")
        value = int(plain)
    if not low <= value <= high:
        raise OptionError(f"{name} is {shown_number(value)}; give {cure or _range(low, high)}")
    return value


def number(
    name: str, value: object, low: float = -math.inf, high: float = math.inf, cure: str = ""
) -> float:
    """`value` as a float.

    Args:
        name: what the number is, for the message.
        value: an int, a float, a NumPy number, or an array without dimensions; never a bool.
        low: the smallest value that is allowed.
        high: the largest.
        cure: what the message says to give; empty names the range.

    Raises:
        OptionError: not a number, not finite, beyond what a float holds, or outside
            `low` … `high`.
    """
    plain = _scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise OptionError(f"{name} must be a number, got {_kind(value)}")
    try:
        found = float(plain)
    except OverflowError:
        found = math.inf
    if not (math.isfinite(found) and low <= found <= high):
        given = shown_number(plain) if isinstance(plain, int) else f"{found:g}"
        raise OptionError(f"{name} is {given}; give {cure or _range(low, high)}")
    return found


def _scalar(value: Any) -> object:
    """What is in an array without dimensions; anything else is itself."""
    if getattr(value, "ndim", None) != 0 or isinstance(value, (str, bytes)):
        return value  # NumPy's strings have no dimensions either, and are indexed by character
    return value[()]


def _range(low: float, high: float) -> str:
    if high == math.inf:
        return "a finite number" if low == -math.inf else f"{shown_limit(low)} or more"
    return f"{shown_limit(low)} to {shown_limit(high)}"


def token_array(tokens: object, vocab_size: int, ndim: int) -> "NDArray[np.int64]":
    """`tokens` as contiguous int64 with `ndim` dimensions, each from 0 to `vocab_size` - 1.

    ONNX Runtime accepts a token of -1 in silence, so nothing reaches it unchecked.

    Raises:
        OptionError: not an array of integers, another number of dimensions, or a token out of
            range.
    """
    import numpy as np

    if not isinstance(tokens, np.ndarray) or tokens.dtype.kind not in "iu":
        what = f"an array of {tokens.dtype}" if isinstance(tokens, np.ndarray) else _kind(tokens)
        raise OptionError(f"tokens must be an array of integers, got {what}")
    if tokens.ndim != ndim:
        raise OptionError(f"tokens must have {ndim} dimensions, got {tokens.ndim}")
    if tokens.size:
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= vocab_size:
            wrong = low if low < 0 else high
            raise OptionError(f"a token is {wrong}; give 0 to {vocab_size - 1}")
    return np.ascontiguousarray(tokens, dtype=np.int64)


def instance(name: str, value: object, kind: type) -> None:
    """Refuse a value of another kind.

    Raises:
        OptionError: `value` is no `kind`.
    """
    if not isinstance(value, kind):
        raise OptionError(f"{name} must be a {kind.__name__}, got {_kind(value)}")


def json_object(name: str, value: object, keys: Collection[str]) -> dict[str, Any]:
    """`value` as the JSON object that it must be, with exactly these keys.

    Raises:
        OptionError: not an object, or a key is missing or not known.
    """
    if not isinstance(value, dict):
        raise OptionError(f"{name} is {shown_value(value)}; it must be an object")
    if missing := [key for key in keys if key not in value]:
        raise OptionError(f"{name} lacks {', '.join(missing)}")
    if unknown := [key for key in value if key not in keys]:
        raise OptionError(f"{name} has a key that is not known: {shown_value(unknown[0])}")
    return value


def iterate_texts(name: str, texts: Iterable[str]) -> Iterator[str]:
    """The texts in `texts`, each checked as it comes; that there are some is checked at once.

    Raises:
        OptionError: one string, or nothing that can be iterated.
    """
    try:
        if not isinstance(texts, (str, bytes, bytearray)):
            return map(_text, iter(texts))
    except TypeError:
        pass
    raise OptionError(f"{name} must be a list of str, got {_kind(texts)}")


def _text(text: str) -> str:
    instance("a text", text, str)
    return text


def shown_number(value: int) -> str:
    """An integer as a message shows it: the digits, or how many there are if there are many."""
    if value.bit_length() <= _SHOWN_BITS:
        return str(value)
    digits = int(value.bit_length() * math.log10(2)) + 1
    return f"{'minus ' if value < 0 else ''}a number of about {digits} digits"


def shown_limit(value: float) -> str:
    """A limit as a message shows it: short, where it is a large power of two."""
    if not isinstance(value, int):
        return f"{value:g}"
    for less, end in ((0, ""), (1, " - 1")):
        power = (value + less).bit_length() - 1
        if value + less == 1 << max(power, 0) and power > _SHOWN_POWER:
            return f"2**{power}{end}"
    return str(value)


def shown_value(value: object, most: int = _SHOWN_TEXT) -> str:
    """A value as a message shows it: one printable line, of a text at most `most` characters."""
    if isinstance(value, int) and not isinstance(value, bool):
        return shown_number(value)
    if isinstance(value, str):
        cut = value[:most]
        return repr(cut) if len(cut) == len(value) else repr(cut) + "…"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value) if value is None or isinstance(value, (bool, float)) else _kind(value)


def printable(text: str, most: int = _SHOWN_PATH) -> str:
    """A name or message inside a message: at most `most` characters, escaped where need be."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])


def _kind(value: object) -> str:
    return type(value).__name__

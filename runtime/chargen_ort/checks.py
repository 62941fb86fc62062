"""One way to check what a caller gives: numbers, token arrays, and how a refused value is shown.

Every public call converts what it is given with these functions before it does anything else. So
NumPy's scalars and arrays without dimensions are welcome wherever a number is, and what is kept
afterwards is always a plain Python number.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import OptionError

_SHOWN_BITS = 80  # an integer with more is told by its number of digits
_SHOWN_TEXT = 60
_SHOWN_PATH = 4096


def whole_number(name: str, value: object, low: int, high: int, cure: str = "") -> int:
    """`value` as an int.

    Args:
        name: what the number is, for the message.
        value: an int, a NumPy integer, or an integer array without dimensions; never a bool.
        low: the smallest value that is allowed.
        high: the largest.
        cure: what the message advises; empty names the range.

    Raises:
        OptionError: not a whole number, or outside `low` … `high`.
    """
    if type(value) is not int:
        plain = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
        if isinstance(plain, bool) or not isinstance(plain, (int, np.integer)):
            raise OptionError(f"{name} must be a whole number, got {type(value).__name__}")
        value = int(plain)
    if not low <= value <= high:
        raise OptionError(f"{name} is {shown_number(value)}; {cure or f'give {low} to {high}'}")
    return value


def number(name: str, value: object) -> float:
    """`value` as a float; the caller checks its range.

    Args:
        name: what the number is, for the message.
        value: an int, a float, a NumPy number, or an array without dimensions; never a bool.

    Raises:
        OptionError: not a number, not finite, or beyond what a float holds.
    """
    plain = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float, np.integer, np.floating)):
        raise OptionError(f"{name} must be a number, got {type(value).__name__}")
    try:
        found = float(plain)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        given = shown_number(plain) if isinstance(plain, int) else f"{found:g}"
        raise OptionError(f"{name} is {given}; give a finite number")
    return found


def token_array(tokens: object, vocab_size: int, ndim: int) -> NDArray[np.int64]:
    """`tokens` as contiguous int64 with `ndim` dimensions, each from 0 to `vocab_size` - 1.

    ONNX Runtime accepts a token of -1 in silence, so nothing reaches it unchecked.

    Raises:
        OptionError: not an array of integers, another number of dimensions, or a token out of
            range.
    """
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


def shown_value(value: object, most: int = _SHOWN_TEXT) -> str:
    """A value as a message shows it: one printable line, of a text at most `most` characters."""
    if isinstance(value, int) and not isinstance(value, bool):
        return shown_number(value)
    if isinstance(value, str):
        cut = value[:most]
        return repr(cut) if len(cut) == len(value) else repr(cut) + "…"
    return repr(value) if value is None or isinstance(value, (bool, float)) else _kind(value)


def printable(name: str) -> str:
    """A file's name as a message shows it: as it is, or escaped where it would break the line."""
    return name if name.isprintable() else repr(name[:_SHOWN_PATH])


def _kind(value: object) -> str:
    return type(value).__name__

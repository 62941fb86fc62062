"""Escapes in a text that is typed in a shell, where a line end is hard to type."""

import re

from chargen_ort.errors import OptionError

_SIMPLE = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
# a pair of surrogates is one character; any other backslash takes what stands after it along
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.?", re.DOTALL
)


def unescape(option: str, text: str) -> str:
    r"""`text` with ``\n``, ``\t``, ``\\`` and ``\uXXXX`` replaced by what they stand for.

    Two ``\uXXXX`` that are a pair of surrogates give the one character that they stand for.

    Args:
        option: where the text was typed, such as ``--start``; messages name it.
        text: as the shell passed it on.

    Raises:
        OptionError: another escape, or half of a pair of surrogates.
    """

    def meaning(found: re.Match[str]) -> str:
        escape = found[0]
        if escape in _SIMPLE:
            return _SIMPLE[escape]
        if len(escape) < 6:
            raise OptionError(
                f"{option} has {escape} at position {found.start()}, which is no escape; the "
                r"escapes are \n, \t, \\ and \uXXXX, so write \\ for a backslash"
            )
        units = [int(digits, 16) for digits in escape.split("\\u")[1:]]
        try:
            return b"".join(unit.to_bytes(2, "little") for unit in units).decode("utf-16-le")
        except UnicodeDecodeError:
            raise OptionError(
                f"{option} has {escape} at position {found.start()}, which is half of a pair of "
                r"surrogates; write both halves, for example \ud83d\ude00"
            ) from None

    return _ESCAPE.sub(meaning, text)

"""Escapes in what is typed in a shell."""

import pytest

from chargen_ort import OptionError
from chargen_ort.escapes import unescape


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", ""),
        ("plain text, ä, 😀", "plain text, ä, 😀"),
        (r"a\nb\tc", "a\nb\tc"),
        (r"C\\C", "C\\C"),
        (r"\\n", r"\n"),
        (r"\\\n", "\\\n"),
        (r"\u0041\u00e4\u00E4", "Aää"),
        (r"\u00411", "A1"),
        (r"\ud83d\ude00!", "😀!"),
        (r"\\ud83d", r"\ud83d"),
    ],
)
def test_escapes_are_read(typed, meant):
    assert unescape("--start", typed) == meant


@pytest.mark.parametrize(
    ("typed", "escape", "position"),
    [
        (r"ab\xff", r"\x", 2),
        ("\\", "\\", 0),
        (r"\\a" + "\\", "\\", 3),
        (r"\u12", r"\u", 0),
        (r"\u12g4", r"\u", 0),
        (r"\r", r"\r", 0),
        ("\\\n", "\\\n", 0),
    ],
)
def test_other_escapes_are_refused_and_the_cure_named(typed, escape, position):
    with pytest.raises(OptionError) as caught:
        unescape("--stop", typed)
    assert str(caught.value) == (
        f"--stop has {escape} at position {position}, which is no escape; the escapes are "
        r"\n, \t, \\ and \uXXXX, so write \\ for a backslash"
    )


@pytest.mark.parametrize("typed", [r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\ud83d!", r"\ud83d\n"])
def test_half_a_pair_of_surrogates_is_refused(typed):
    with pytest.raises(OptionError, match="half of a pair of surrogates; write both halves"):
        unescape("--start", typed)

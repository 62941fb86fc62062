"""A text with each character shaded by its surprise, for terminals and notebooks."""

import html
import math
import os
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chargen_ort.terminal import visible

Colour = Literal["auto", "always", "never"]
# bits from which on a character belongs to the next shade; a die with 16 sides has 4 bits
_BITS = (2.0, 4.0, 7.0, 10.0)
_NAMES = ("below 2", "2 to 4", "4 to 7", "7 to 10", "10 and more")
# black on pale yellow to orange, white on red: legible on dark and on light terminals
_ANSI = ("", "30;48;5;229", "30;48;5;221", "30;48;5;208", "97;48;5;160")
_CSS = (
    "",
    "background:#ffffaf;color:#000",
    "background:#ffd75f;color:#000",
    "background:#ff8700;color:#000",
    "background:#d70000;color:#fff",
)
_TITLE = "surprise in bits:"
_MOST_SHOWN = 20_000  # characters in a notebook


def in_colour(colour: Colour, terminal: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to shade: ``auto`` does on a terminal, unless NO_COLOR is set or it is a dumb one."""
    if colour == "auto":
        dumb = environment.get("TERM") == "dumb"
        return terminal and not environment.get("NO_COLOR") and not dumb
    return colour == "always"


def shaded(text: str, log_probabilities: NDArray[np.float64]) -> str:
    """`text` with the escapes of a terminal; what a terminal would execute is made visible.

    Args:
        text: what was scored.
        log_probabilities: nats, of each character, or of all but the first; or of each and of the
            end, which is shown as a shaded space.
    """
    parts = []
    for shade, run in _runs(text, log_probabilities):
        # a line end in colour would shade the rest of the line
        for line in visible(run).splitlines(keepends=True) if shade else [visible(run)]:
            body = line.removesuffix("\n")
            parts.append(_painted(body, shade) + line[len(body) :])
    return "".join(parts)


def legend() -> str:
    """What the shades of `shaded` mean, a line."""
    shades = [_painted(f" {name} ", shade) for shade, name in enumerate(_NAMES)]
    return f"{_TITLE} {''.join(shades)}\n"


def score_html(
    text: str | None,
    log_probabilities: NDArray[np.float64] | None,
    bits_per_char: float,
    percentile: float | None,
) -> str:
    """HTML of a text in its shades, escaped, with a legend; and of its figures.

    Of a text of more than 20,000 characters the beginning is shown.
    """
    figures = f"{bits_per_char:.3f} bits per character"
    if percentile is not None:
        figures += f", percentile {percentile:.3f} among held-out texts"
    shown, cut = "", ""
    if text is not None and log_probabilities is not None:
        names = [_span(f" {name} ", shade) for shade, name in enumerate(_NAMES)]
        if len(text) > _MOST_SHOWN:
            cut = f", the first {_MOST_SHOWN:,} of {len(text):,} characters"
            unscored = max(0, len(text) - len(log_probabilities))
            log_probabilities = log_probabilities[: _MOST_SHOWN - unscored]
            text = text[:_MOST_SHOWN]
        runs = [_span(run, shade) for shade, run in _runs(text, log_probabilities)]
        shown = (
            f'<pre style="white-space:pre-wrap">{"".join(runs)}</pre>'
            f'<small style="white-space:pre">{_TITLE} {"".join(names)}</small> '
        )
    return f"<div>{shown}<small>{figures}{cut}</small></div>"


def _runs(text: str, log_probabilities: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """Pieces of `text` of the same shade, from 0 to 4, and the shade of each."""
    # -1 where the first character was not scored, 1 where the end was
    offset = len(log_probabilities) - len(text)
    bits = np.maximum(0, -log_probabilities / math.log(2))  # [scored]
    shades = [0] * -offset + np.searchsorted(_BITS, bits, side="right").tolist()
    shown = zip(shades, text + " " * offset, strict=True)
    for shade, pairs in groupby(shown, key=lambda pair: pair[0]):
        yield shade, "".join(character for _, character in pairs)


def _painted(text: str, shade: int) -> str:
    return f"\x1b[{_ANSI[shade]}m{text}\x1b[0m" if shade and text else text


def _span(text: str, shade: int) -> str:
    escaped = html.escape(text)
    return f'<span style="{_CSS[shade]}">{escaped}</span>' if shade else escaped

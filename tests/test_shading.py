"""Texts in their shades: for terminals, and for notebooks."""

import math
import re

import numpy as np
import pytest

from chargen_ort import Score
from chargen_ort.calibration import Calibration
from chargen_ort.provenance import Quantiles
from chargen_ort.shading import in_colour, legend, shaded


def nats(*bits):
    return -np.array(bits) * math.log(2)


def runs(text):
    """Pieces of what a terminal gets: the colour of each, and its characters."""
    found = re.findall(r"\x1b\[([\d;]+)m([^\x1b]*)\x1b\[0m|([^\x1b]+)", text)
    return [(colour, inside or plain) for colour, inside, plain in found]


@pytest.mark.parametrize(
    ("colour", "terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),  # as no-color.org has it
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_colour_is_for_terminals_of_people_who_want_it(colour, terminal, environment, expected):
    assert in_colour(colour, terminal, environment) is expected


def test_the_more_surprising_a_character_the_stronger_its_shade():
    shades = {name.strip(): colour for colour, name in runs(legend().split(":")[1]) if name.strip()}
    names = ["below 2", "2 to 4", "4 to 7", "7 to 10", "10 and more"]
    assert list(shades) == names
    assert len(set(shades.values())) == 5
    bits = {"a": 0, "b": 1.9, "c": 2.1, "d": 4.1, "e": 7.1, "f": 10.1, "g": 99}
    expected = [("ab", 0), ("c", 1), ("d", 2), ("e", 3), ("fg", 4)]
    assert runs(shaded("".join(bits), nats(*bits.values()))) == [
        (shades[names[shade]], text) for text, shade in expected
    ]


def test_a_first_character_without_a_score_is_plain_and_an_odd_end_is_a_space():
    assert runs(shaded("abc", nats(20, 0)))[0] == ("", "a")
    assert runs(shaded("abc", nats(20, 0)))[1][1] == "b"
    colour, end = runs(shaded("abc", nats(0, 0, 0, 20)))[-1]
    assert end == " "
    assert colour
    assert shaded("abc", nats(0, 0, 0, 0)) == "abc "


def test_what_a_terminal_would_execute_is_visible_and_a_line_end_is_not_shaded():
    shown = shaded("\x1b[2J\na", nats(*[20] * 6))
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J" in shown
    assert "\x1b[0m\n\x1b[" in shown


def test_a_notebook_shows_a_score_escaped_with_legend_and_figures():
    quantiles = Quantiles(window=None, count=9, levels=(0.1, 0.9), nats_per_char=(1.0, 2.0))
    text = "<b>&\n"
    score = Score(-6.0, 6, nats(20, 0, 0, 0, 0, 5), 0, text, Calibration.of(quantiles))
    shown = score._repr_html_()
    assert "<b>" not in shown
    plain = re.sub("<[^>]*>", "", shown)
    assert plain.startswith("&lt;b&gt;&amp;\n ")
    assert "10 and more" in plain
    assert "1.443 bits per character" in plain
    assert "percentile 10.0" in plain
    assert re.findall("<(/?)(div|pre|small)", shown).count(("", "pre")) == 1
    assert len(re.findall("<span", shown)) == len(re.findall("</span>", shown))


def test_a_notebook_shows_the_beginning_of_a_long_text_and_figures_where_no_text_was_kept():
    long = Score(-1.0, 49_999, np.zeros(49_999), 0, "x" * 50_000)
    assert long._repr_html_().count("x") < 20_100
    assert "the first 20,000 of 50,000 characters" in long._repr_html_()
    assert "<pre" not in Score(-1.0, 5)._repr_html_()
    assert "0.289 bits" in Score(-1.0, 5)._repr_html_()


def test_the_last_shade_of_a_cut_text_is_that_of_its_own_character():
    scores = np.zeros(30_000)
    scores[19_999] = -99
    shown = Score(-99.0, 30_000, scores, 0, "x" * 30_000)._repr_html_()
    assert re.search("[^x]x</span></pre>", shown)

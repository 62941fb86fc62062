"""The vectors of tests/golden, replayed; `tests/tools/golden.py` writes them.

Those of the hostile files are replayed where the files are, in test_hostile.
"""

import base64
import math

import numpy as np
import pytest

from chargen_ort import SamplingOptions
from chargen_ort.form import render
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Sizes
from chargen_ort.options import TABLE
from chargen_ort.sampling import Sampler, uniform_draws
from tests.tools import golden
from tests.tools.golden_units import MODELS

ROWS = 200


def cases(name):
    return pytest.mark.parametrize(
        "case", golden.read(name)["cases"], ids=lambda case: str(case)[:60]
    )


def assert_written(case, text):
    """The text of a case; where a draw lay on a boundary, another machine may write otherwise."""
    if text != case["text"]:
        same = [a == b for a, b in zip(text, case["text"], strict=False)]
        place = [*same, False].index(False)
        if place in case["near"]:
            pytest.xfail(f"draw {place} lies within {case['margin']} of another character")
    assert text == case["text"]


@cases("philox")
def test_draws(case):
    draws = uniform_draws(int(case["seed"]), int(case["row"]), case["first"], len(case["bits"]))
    assert (draws * 2**53).tolist() == case["bits"]


@cases("sampling")
def test_processors(case):
    assert golden.draws(case) == case["tokens"]
    options = SamplingOptions(**case["options"], seed=5)
    sampler = Sampler(options, len(case["logits"]), range(ROWS))
    for row in range(ROWS):
        sampler.see(row, np.array(case["seen"], dtype=np.int64))
    drawn = sampler.sample(np.tile(np.float32(case["logits"]), (ROWS, 1)))
    bounds = np.cumsum(case["probabilities"])
    assert math.isclose(bounds[-1], 1, abs_tol=1e-10)
    us = [uniform_draws(5, row, 0, 1)[0] for row in range(ROWS)]
    assert drawn.tolist() == [case["kept"][place] for place in np.searchsorted(bounds, us, "right")]


@cases("logits")
def test_logits(case):
    found = golden.open_model(case["model"]).state(case["text"]).logits()
    np.testing.assert_allclose(found, case["logits"], rtol=0, atol=case["tolerance"])


@cases("texts")
def test_texts(case):
    model = golden.open_model(case["model"])
    options = SamplingOptions(**case["options"], seed=int(case["seed"]))
    row = int(case["row"])
    stream = model.stream(case["start"], case["length"], options=options, row=row)
    assert_written(case, "".join(stream))
    assert stream.ended == case["ended"]
    if row < 8:
        starts = [case["start"]] * (row + 1)
        assert_written(case, model.generate_batch(starts, case["length"], options=options)[row])


def test_another_text_is_excused_by_a_draw_on_a_boundary_alone():
    case = {"text": "hello", "near": [3], "margin": 1e-6}
    assert_written(case, "hello")
    with pytest.raises(pytest.xfail.Exception, match="draw 3 lies within 1e-06"):
        assert_written(case, "help!")
    with pytest.raises(AssertionError):
        assert_written(case, "heap!")


@cases("snapshots")
def test_snapshots(case):
    model = golden.open_model(case["model"])
    state = model.restore(base64.b64decode(case["snapshot"]))
    assert_written(case, "".join(model.resume(state, case["length"])))


@cases("scores")
def test_scores(case):
    found = getattr(golden.open_model(case["model"]), case["call"])(**case["arguments"])
    found = found if isinstance(found, list) else [found]
    for score, expected in zip(found, case["scores"], strict=True):
        near = {"rtol": 0, "atol": case["tolerance"]}
        np.testing.assert_allclose(score.log_probabilities, expected["log_probabilities"], **near)
        assert score.unknown == expected["unknown"]


@cases("next")
def test_next_characters(case):
    expected = dict(case["next"])
    found = golden.open_model(case["model"]).next_probabilities(case["text"], len(expected))
    assert list(found) == list(expected)
    near = {"rtol": 0, "atol": case["tolerance"]}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), **near)


@cases("forms")
def test_forms(case):
    form = render(VARIANTS[case["precision"]].graph(Sizes(**case["sizes"])))
    assert golden.parts_of(form) == case["parts"]


def test_every_option_precision_and_ending_has_vectors():
    for name in set(TABLE) - {"seed"}:
        values = {case["options"][name] for case in golden.read("sampling")["cases"]}
        assert len(values) > 1, name
    assert {case["precision"] for case in golden.read("forms")["cases"]} == set(VARIANTS)
    for name in ("logits", "scores"):
        models = {case["model"] for case in golden.read(name)["cases"]}
        assert models >= {golden.DEMO, *golden.SMALL.values()}
    for name in ("texts", "scores", "next"):
        assert {case["model"] for case in golden.read(name)["cases"]} >= set(MODELS), name
    assert {case["ended"] for case in golden.read("texts")["cases"]} == {"length", "stop", "end"}


def test_they_are_small():
    assert sum(path.stat().st_size for path in golden.FOLDER.iterdir()) < 200_000

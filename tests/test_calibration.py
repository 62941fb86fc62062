"""Percentiles: what a file's quantiles say of a score, and how often they cry wolf."""

import dataclasses

import numpy as np
import pytest

from chargen_ort.calibration import Calibration
from chargen_ort.provenance import OfLength, Quantiles
from chargen_train.evaluate import Losses
from chargen_train.history import describe_spread


def calibration(count=999, **facts):
    levels, nats = (0.1, 0.5, 0.5, 0.9), (1.0, 2.0, 2.0, 4.0)
    facts = {"window": None, "count": count, "levels": levels, "nats_per_char": nats} | facts
    return Calibration.of(Quantiles(**facts))


def test_at_a_quantile_the_percentile_is_its_level_and_between_two_it_lies_between():
    known = calibration()
    assert known.percentile(1.0, 5) == pytest.approx(10, abs=1e-2)
    assert known.percentile(4.0, 5) == pytest.approx(90, abs=1e-2)
    rising = [known.percentile(nats, 5) for nats in np.linspace(0.5, 5, 46)]
    assert rising == sorted(rising)
    # half way between two levels in log odds: 1 to 1 and 9 to 1, so 3 to 1
    assert known.percentile(3.0, 5) == pytest.approx(75, abs=1e-2)


def test_a_score_that_many_texts_have_is_as_odd_as_the_least_odd_of_them():
    tied = calibration(levels=(0.1, 0.5, 0.9, 0.99), nats_per_char=(1.0, 2.0, 2.0, 3.0))
    assert tied.percentile(2.0, 5) == pytest.approx(50, abs=1e-2)
    assert tied.percentile(2.0001, 5) == pytest.approx(90, abs=0.1)


@pytest.mark.parametrize("count", [1, 9, 99])
def test_few_texts_tell_no_rare_ones_apart(count):
    known = calibration(count, levels=(0, 0.5, 1), nats_per_char=(1.0, 2.0, 3.0))
    assert known.highest == pytest.approx(100 * count / (count + 1))
    assert known.percentile(1e9, 5) == pytest.approx(known.highest)
    assert known.percentile(0, 5) == pytest.approx(100 - known.highest)


def test_a_score_is_held_against_what_is_usual_for_its_length():
    known = calibration(
        levels=(0.1, 0.5, 0.9),
        nats_per_char=(1.0, 2.0, 3.0),
        by_length=(
            OfLength(characters=4.0, nats_per_char=3.0, spread=1.0),
            OfLength(characters=8.0, nats_per_char=2.0, spread=0.5),
        ),
        oddness=(-1.0, 0.0, 1.0),
    )
    for characters, mean, spread in (
        (1, 3, 1),
        (4, 3, 1),
        (6, 2.5, 0.75),
        (8, 2, 0.5),
        (90, 2, 0.5),
    ):
        assert known.percentile(mean, characters) == pytest.approx(50, abs=0.01)
        assert known.percentile(mean + spread, characters) == pytest.approx(90, abs=0.01)


def scored(count, seed):
    """Lengths and nats of texts whose characters cost like those of names: by a gamma law."""
    rng = np.random.default_rng(seed)
    lengths = 3 + rng.poisson(6, count)
    nats = np.array([rng.gamma(1, 2, length).sum() + 3 for length in lengths])
    return lengths, nats


def test_of_other_clean_texts_one_in_a_hundred_is_above_the_99th_percentile_at_any_length():
    lengths, nats = scored(3000, seed=1)
    quantiles = describe_spread(Losses(nats, lengths), documents=True)
    known = Calibration.of(quantiles)
    plain = dataclasses.replace(known, usual=(), edges=quantiles.nats_per_char)
    lengths, nats = scored(20_000, seed=2)
    flagged = {}
    for name, which in (("by length", known), ("plain", plain)):
        odd = [which.percentile(n / c, int(c)) > 99 for n, c in zip(nats, lengths, strict=True)]
        assert 0.005 <= np.mean(odd) <= 0.015, name
        flagged[name] = np.array(odd)
    short, long = lengths < np.quantile(lengths, 0.2), lengths > np.quantile(lengths, 0.8)
    even, uneven = ((odd[short].mean(), odd[long].mean()) for odd in flagged.values())
    assert max(even) < 2 * min(even)
    assert uneven[0] > 10 * uneven[1], "by the mean alone, short texts are flagged"


def test_few_documents_and_windows_have_quantiles_of_the_mean_alone():
    lengths, nats = scored(99, seed=1)
    assert describe_spread(Losses(nats, lengths), documents=True).by_length == ()
    windows = np.full(500, 256)
    record = describe_spread(Losses(np.linspace(200, 600, 500), windows), documents=False)
    assert (record.window, record.count, record.by_length, record.oddness) == (256, 500, (), ())


def test_documents_that_are_all_alike_have_a_spread_too():
    record = describe_spread(Losses(np.full(200, 12.0), np.full(200, 6)), documents=True)
    known = Calibration.of(record)
    assert known.percentile(2.0, 6) < 1
    assert known.percentile(2.5, 6) == pytest.approx(known.highest)

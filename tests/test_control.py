"""Texts that are confined: they are as was asked for, and are drawn as is said."""

import itertools
import json
import math
import random
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from chargen_ort import ArtifactError, CharGenerator, OptionError, SamplingOptions
from chargen_ort.batch import write_texts
from chargen_ort.patterns import OUT, Control
from chargen_ort.places import Place
from chargen_ort.residuals import Namer
from chargen_ort.runs import ConfinedRuns
from tests.conftest import (
    ALPHABET,
    artifact_bytes,
    assert_refused,
    random_model,
    run_here,
)

ROOT = Path(__file__).parent.parent
FEW = "abc\n"
MANY = 1500


@pytest.fixture(scope="module")
def ending():
    """Random weights over a few characters, with an end token."""
    model = random_model(len(FEW) + 1, scale=1.5)
    return CharGenerator.from_bytes(artifact_bytes(model, FEW, end=True))


@pytest.fixture(scope="module")
def running():
    """The same characters, without an end token."""
    return CharGenerator.from_bytes(artifact_bytes(random_model(len(FEW), scale=3.0), FEW))


@pytest.fixture(scope="module")
def documents():
    """Random weights over the lower case letters, with an end token."""
    model = random_model(len(ALPHABET) + 1)
    return CharGenerator.from_bytes(artifact_bytes(model, ALPHABET, end=True))


PATTERNS = [
    "[a-l]{3,7}",
    "a(b|c)*",
    "(ab|abc)(c|bcd)?",  # the longer way is taken too
    r"\w+ \w?",
    "[^a]x?",
    "l.*",
    "(?i)A[B-Z]*",
    "a{3}?b",
    "^ab$|c",
    "(q|[^u])*",
]


def confined(model, start="", length=9, rows=12, **options):
    """What each way to write has written, as (text, why it ended)."""
    found = []
    for row in range(rows):
        stream = model.stream(start, length, row=row, seed=1, **options)
        found.append(("".join(stream), stream.ended))
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_whole_text_matches_and_ends_within_its_length(generator, documents, pattern):
    for model in (generator, documents):
        for text, ended in confined(model, pattern=pattern):
            assert re.fullmatch(pattern, text), text
            assert len(text) <= 9
            assert ended == ("length" if len(text) == 9 else "end")


MIXTURES = [
    {"pattern": "[a-f]{3,7}"},
    {"pattern": "[a-f]{3,7}", "temperature": 0},
    {"pattern": "[a-f]{3,7}", "top_k": 4, "top_p": 0.9, "repetition_penalty": 1.4},
    {"pattern": "[a-f]{3,7} ?[g-z]*", "min_length": 8, "ban": ["ab", "q"], "stop": ["z", "fx"]},
    {"ban": ["a", "e"], "temperature": 0.5},
    {"min_length": 6, "max_length": 7, "start": "ab"},
    {"pattern": "ab[c-z]{4}", "start": "ab"},
    {"pattern": "ab", "start": "ab"},
    {"pattern": "[a-z]{1,3}", "exact": True, "length": 4},
    {"pattern": "[a-z ]+", "exact": True, "stop": "b", "top_k": 20, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("options", MIXTURES)
def test_the_same_seed_gives_the_same_text_on_every_path(generator, documents, options):
    options = {"length": 9, **options}
    start, length = options.pop("start", ""), options.pop("length")
    for model in (generator, documents):
        expected = confined(model, start, length, **options)
        read, resumed = [], []
        for row in range(12):
            stream = model.stream(start, length, row=row, seed=1, **options)
            read.append((stream.read(), stream.ended))
            state = model.restore(model.state(start, row=row, seed=1, **options).snapshot())
            stream = model.resume(state, length)
            resumed.append((stream.read(), stream.ended))
        assert read == resumed == expected
        chosen = model.options(seed=1, **options)
        for size in (1, 5, 64):
            texts = write_texts(model.engine, iter([start] * 12), length, chosen, size, None)
            written = {each.index: (each.text, each.ended) for each in texts}
            assert [written[row] for row in range(12)] == expected


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_runs_of_many_steps_and_of_one_write_the_same(precision, temperature):
    """In each precision, of two layers: the masks in the graph and those before it."""
    model = CharGenerator.load(ROOT / f"tests/golden/{precision}.onnx")
    options = {"pattern": "[a-f]{3,7} ?[g-z]+", "temperature": temperature}
    alone = [text for text, _ in confined(model, **options)]
    assert model.generate_batch([""] * 12, 9, seed=1, batch_size=5, **options) == alone


LONG = [
    {"ban": ["th", "e ", " a"]},
    {"pattern": "([a-t]{1,5} )*[a-z]*"},
    {"pattern": "[a-t ]{80,}", "stop": ["ss", "e "]},
    {"min_length": 100, "ban": ["a"]},
]


@pytest.mark.parametrize("options", LONG)
def test_long_texts_are_the_same_on_every_path(generator, documents, options):
    """From where the room for a text does not matter yet to where it does."""
    for model in (generator, documents):
        expected = confined(model, length=170, rows=4, **options)
        model.engine._controls.clear()  # what is known of a language changes no text
        streams = [model.stream("", 170, row=row, seed=1, **options) for row in range(4)]
        assert [(stream.read(), stream.ended) for stream in streams] == expected
        chosen = model.options(seed=1, **options)
        texts = write_texts(model.engine, iter([""] * 4), 170, chosen, 3, None)
        assert {each.index: (each.text, each.ended) for each in texts} == dict(enumerate(expected))


def test_a_text_is_confined_by_all_of_the_options_together(generator, documents):
    for model in (generator, documents):
        found = confined(
            model, "b", 7, rows=60, pattern="[a-f]+z?[a-f]*", min_length=4, max_length=7,
            ban=["ab", "dd"], stop=["z", "cz"],
        )  # fmt: skip
        for text, _ in found:
            whole = "b" + text
            assert re.fullmatch("[a-f]+z?[a-f]*", whole)
            assert 4 <= len(whole) <= 7
            assert not any(part in whole for part in ("ab", "dd", "z"))
        assert {"stop", "end"} <= {ended for _, ended in found}


def test_what_is_banned_does_not_end_a_text_of_a_model_that_has_no_end(generator):
    for text, ended in confined(generator, length=30, ban=["a", "th", "\n"]):
        assert ended == "length"
        assert not re.search("a|th|\n", text)


def test_a_text_without_an_end_ends_where_the_model_leaves_the_pattern(running):
    """The longest beginning of what it would write freely, if that matches."""
    free = [running.generate("", 8, row=row, seed=1) for row in range(40)]
    found = confined(running, "", 8, rows=40, pattern="[abc]*")
    for (text, _), whole in zip(found, free, strict=True):
        assert text == re.match("[abc]*", whole)[0]


def test_states_are_confined_forked_and_fed(generator):
    state = generator.state("ab", pattern="ab[c-e]{2,5}x", seed=3)
    with pytest.raises(OptionError, match="no text of this model's characters begins with 'abz'"):
        state.feed("z")
    state.feed("c")
    other = state.fork()
    texts = []
    for each in (state, other):
        drawn = "".join(iter(each.draw, ""))
        assert re.fullmatch("[c-e]{1,4}x", drawn)
        texts.append((drawn, each.at_beginning))
        assert re.fullmatch("ab", "".join(each.draw() for _ in range(2)))  # the next text
    assert texts[0] == texts[1]
    assert texts[0][1]


def test_a_state_that_has_drawn_is_confined_anew_where_it_is_resumed(generator):
    """What was written ahead without bounds is forgotten."""
    for row in range(20):
        state = generator.state("ab", pattern="[a-z]+ [a-z]+x", seed=3, row=row)
        drawn = "".join(state.draw() for _ in range(4))
        other = generator.restore(state.snapshot())
        text = generator.resume(state, 5).read()
        assert text == generator.resume(other, 5).read()
        assert re.fullmatch("[a-z]+ [a-z]+x", "ab" + drawn + text)
        assert len(text) <= 5


def test_a_damaged_snapshot_of_a_confined_text_is_refused(generator):
    snapshot = generator.state("ab", pattern="ab.*", seed=3).snapshot()
    for damaged in (snapshot[:-1], snapshot.replace(b'"tokens":[0,1]', b'"tokens":[0,9]')):
        with pytest.raises(ArtifactError, match="the snapshot is damaged"):
            generator.restore(damaged)


LANGUAGES = [
    *({"pattern": each, "ban": ["dog"]} for each in PATTERNS),
    *({"pattern": each} for each in (r"[\w--b]+", "[[:alpha:]]{2}", "é|a", "a{2,3}b?|(c|cd*)*")),
    {"pattern": "(a|b)*(ba)?", "stop": ["a", "bb", "ab"], "ban": ["aaa"], "min_length": 2},
    {"pattern": "(?:[a-c]{1,2}d){0,3}", "max_length": 6, "ban": ["dd", "ca"]},
    {"stop": ["ab", "b"], "min_length": 3, "max_length": 5},
    {"pattern": "(a|b|c)*c", "stop": ["bb"]},  # which text stood before "bb" decides
]


@pytest.mark.parametrize("options", LANGUAGES, ids=str)
@pytest.mark.parametrize("room", [9, 100])
def test_the_nodes_say_what_llguidance_says_of_each_place(ending, documents, options, room):
    """Texts that share a node can go on alike, however they came there, near the end and far."""
    for model in (documents, ending):
        try:
            control = Control(model.config, SamplingOptions(**options))
            Place(control, (), 0, room)
        except OptionError:
            continue  # it has no text of few characters
        choose, end = random.Random(1), model.vocabulary.end_token
        for walk in range(16 if room == 9 else 1):
            place = Place(control, (), walk % 2, room)
            fresh = control.new_matcher(walk % 2, room)
            while True:
                place.approach()
                bits = np.frombuffer(fresh.compute_bitmask(), dtype=np.uint8)
                allowed = np.unpackbits(bits, bitorder="little")[: len(place.blocked)].astype(bool)
                assert (place.blocked == ~allowed).all()
                assert place.accepting == fresh.is_accepting()
                following = [each for each in np.flatnonzero(allowed).tolist() if each != end]
                if not following:
                    break
                token = choose.choice(following)
                place.move(token, place.child(token))
                fresh.consume_token(token)


@pytest.mark.parametrize(
    ("pattern", "far"),
    [("[a-z]{3,8}", 3), ("(a?){3}", 1), ("(an|ba|c)[a-z]+a", 3), ("[a-c]{5}(d[a-c]{5})*", 5),
     ("^x{2,}$", 2), ("a.c|Zzzz", 3), (r"(?:[a-z]{2,5} ){1,2}[a-z]*ing", 6), ("[[:alpha:]]", None)],
)  # fmt: skip
def test_how_far_a_text_may_be_from_its_end(documents, pattern, far):
    """Of the ways that the model's characters have: it has no capital letters."""
    assert Namer(documents.config, SamplingOptions(pattern=pattern)).far == far


def test_long_texts_need_few_nodes(documents):
    """So many as their language has places: later texts, and the rest of this one, know them."""
    options = SamplingOptions(pattern="([a-c]{1,3}x)*", ban=["cc"])
    control, choose = Control(documents.config, options), random.Random(1)
    for _ in range(20):
        place = Place(control)
        for _ in range(200):
            token = choose.choice(np.flatnonzero(~place.blocked[:-1]).tolist())
            place.move(token, place.child(token))
    assert len(control.children) == 64  # it has not grown


def test_what_another_thread_finds_during_a_run_changes_no_text(monkeypatch):
    def fresh():
        model = random_model(len(ALPHABET) + 1)
        return CharGenerator.from_bytes(artifact_bytes(model, ALPHABET, end=True))

    options = SamplingOptions(pattern="[a-m]*", min_length=40, seed=3)
    expected = fresh().generate("", 40, options=options)
    run, moved = ConfinedRuns.run, 0

    def followed(self, open_session, steps, source):
        """The run, and behind it another text that takes the tokens that it has drawn."""
        nonlocal moved
        begin = int(self.nodes[source][0])
        run(self, open_session, steps, source)
        beginnings = (Place(control, [0] * size, 0, 40) for size in range(40))
        place = next(place for place in beginnings if place.node == begin)
        for token in self.tokens[:steps, 0].tolist():
            if (child := place.child(token)) == OUT:
                break
            place.move(token, child)
            moved += 1

    model = fresh()
    control = model.engine.control(options)
    monkeypatch.setattr(ConfinedRuns, "run", followed)
    assert model.generate("", 40, options=options) == expected
    assert moved > 40, "it found more than the text did"


def test_a_tree_that_grows_large_is_begun_anew_and_texts_stay_the_same(documents, monkeypatch):
    options = {"ban": ["ab", "zz"], "pattern": "(a|b|[^c]c)*x?"}
    expected = confined(documents, length=20, **options)
    monkeypatch.setattr("chargen_ort.patterns._MOST_CELLS", 1000)
    documents.engine._controls.clear()
    assert confined(documents, length=20, **options) == expected
    chosen = documents.options(seed=1, **options)
    texts = write_texts(documents.engine, iter([""] * 12), 20, chosen, 5, None)
    assert {each.index: (each.text, each.ended) for each in texts} == dict(enumerate(expected))
    documents.engine._controls.clear()


# Distributions: short texts, whose probabilities are known


def probability(model, text):
    """Of a whole text under the model, its end included."""
    return math.exp(model.score(text).total)


def masked_probability(model, text, language):
    """Of a text where each draw is confined to beginnings of the language."""
    found = 1.0
    for size in range(len(text) + 1):
        beginning = text[:size]
        likely = model.next_probabilities(beginning)
        allowed = {other[size : size + 1] for other in language if other.startswith(beginning)}
        found *= likely[text[size : size + 1]] / sum(likely[each] for each in allowed)
    return found


PATTERN = "[ab]{1,2}|c(a|bb)"
LANGUAGE = [
    "".join(text)
    for size in range(1, 4)
    for text in itertools.product("abc", repeat=size)
    if re.fullmatch(PATTERN, "".join(text))
]


def chi_square(counts, expected):
    return sum((counts[text] - many) ** 2 / many for text, many in expected.items())


LIMIT = 29.6  # of chi-square with 7 degrees of freedom, exceeded once in 10,000 times


def drawn(model, **options):
    texts = [text for _, text in model.iterate_batch([""] * MANY, 5, seed=1, **options)]
    assert set(texts) <= set(LANGUAGE)
    return Counter(texts)


def test_masked_and_exact_texts_are_distributed_as_is_said(ending):
    assert len(LANGUAGE) == 8
    own = {text: probability(ending, text) for text in LANGUAGE}
    exact = {text: MANY * share / sum(own.values()) for text, share in own.items()}
    masked = {text: MANY * masked_probability(ending, text, LANGUAGE) for text in LANGUAGE}
    assert math.isclose(sum(masked.values()), MANY, rel_tol=1e-6)
    assert chi_square(drawn(ending, pattern=PATTERN), masked) < LIMIT
    assert chi_square(drawn(ending, pattern=PATTERN, exact=True), exact) < LIMIT
    # and the two are told apart, so that the test could fail
    assert chi_square(drawn(ending, pattern=PATTERN), exact) > LIMIT
    assert chi_square(drawn(ending, pattern=PATTERN, exact=True), masked) > LIMIT


def test_exact_texts_are_those_that_rejection_by_hand_leaves(ending):
    free = [text for _, text in ending.iterate_batch([""] * 4 * MANY, 5, seed=2)]
    kept = Counter(text for text in free if re.fullmatch(PATTERN, text))
    found, ratio = drawn(ending, pattern=PATTERN, exact=True), math.sqrt(kept.total() / MANY)
    # chi-square of two samples
    both = [(found[text], kept[text]) for text in LANGUAGE if found[text] + kept[text]]
    assert sum((ratio * one - two / ratio) ** 2 / (one + two) for one, two in both) < LIMIT


def test_the_log_weight_is_the_models_own_probability_over_that_of_the_draws(ending):
    for row in range(20):
        stream = ending.stream("", 5, pattern=PATTERN, seed=1, row=row)
        text = stream.read()
        ratio = probability(ending, text) / masked_probability(ending, text, LANGUAGE)
        assert math.isclose(stream.log_weight, math.log(ratio), abs_tol=1e-4)
    assert ending.stream("", 5, pattern=PATTERN, exact=True).log_weight == 0
    assert ending.stream("", 5).log_weight == 0
    assert ending.stream("", 5, pattern=PATTERN, temperature=0).log_weight is None


def test_json_has_the_log_weight(tmp_path, ending):
    path = tmp_path / "model.onnx"
    path.write_bytes(ending.artifact.data)
    command = ["--model", path, "--pattern", PATTERN, "--seed", 1, "--length", 5, "--num", 3]
    lines = run_here("chargen-ort", *command, "--json").stdout.splitlines()
    for row, line in enumerate(lines):
        stream = ending.stream("", 5, pattern=PATTERN, seed=1, row=row)
        assert json.loads(line)["text"] == stream.read()
        assert math.isclose(json.loads(line)["log_weight"], stream.log_weight, abs_tol=1e-6)
    assert "log_weight" not in run_here("chargen-ort", "--model", path, "--json").stdout


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, r"pattern is '\(': unclosed group"),
        ({"pattern": "a(?=b)"}, "look-around, .* is not supported"),
        ({"pattern": "a\\b"}, "lookarounds not supported"),
        ({"pattern": r"(a)\1"}, "backreferences are not supported"),
        ({"pattern": "[0-9]+"}, "no text of this model's characters matches the pattern"),
        ({"pattern": "a{20}"}, "ends within 9 characters"),
        ({"pattern": "a", "min_length": 2}, "has 2 characters or more"),
        ({"pattern": "ba", "start": "a"}, "begins with 'a' and matches the pattern 'ba'"),
        ({"max_length": 1, "start": "ab"}, "begins with 'ab' and has at most 1 characters"),
        ({"ban": "b", "start": "ab"}, "begins with 'ab' and is without what is banned"),
        ({"min_length": 3, "max_length": 2}, "min_length is 3, max_length is 2"),
        ({"min_length": -1}, "min_length is -1; give 0 to 1048576"),
        ({"pattern": 3}, "pattern must be a str"),
        ({"pattern": "a" * 4097}, "pattern has 4,097 characters; give at most 4,096"),
        ({"pattern": "\ud800"}, "pattern has a lone surrogate"),
        ({"ban": ["a", ""]}, "ban has ''; give non-empty strings"),
        ({"exact": True}, "exact is for texts that are confined"),
        ({"exact": True, "pattern": "abcabcabc"}, "exact found no text .* in 10,000 tries"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(generator, monkeypatch, options, message):
    options = {"seed": 1, **options}
    start = options.pop("start", "")
    if "tries" in message:
        monkeypatch.setattr("chargen_ort.confined.MOST_TRIES", 50)
        message = message.replace("10,000", "50")
    with pytest.raises(OptionError, match=message) as caught:
        generator.generate(start, 9, **options)
    assert "\n" not in str(caught.value)


def test_exact_is_for_whole_texts(generator):
    state = generator.state(pattern="a.*", exact=True)
    with pytest.raises(OptionError, match="exact is for whole texts"):
        state.draw()


def test_a_model_has_no_pattern(ending):
    with pytest.raises(OptionError, match="which a call does and no model"):
        artifact_bytes(random_model(), sampling=SamplingOptions(pattern="a"))


def test_without_llguidance_the_message_says_what_to_install(generator, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    generator.engine._controls.clear()
    with pytest.raises(OptionError, match=r"not installed: pip install 'chargen-ort\[pattern\]'"):
        generator.generate("", 9, pattern="a")
    assert generator.generate("", 9, seed=1)


def test_the_command_refuses_in_one_line(small_path):
    for options, message in (
        (["--pattern", "("], "unclosed group"),
        (["--pattern", "b", "--start", "a"], "begins with 'a' and matches the pattern 'b'"),
        (["--pattern", "a{300}"], "ends within 200 characters"),
        (["--exact"], "exact is for texts that are confined"),
        (["--ban", "\\q"], "--ban"),
    ):
        assert_refused(run_here("chargen-ort", "--model", small_path, *options), message)

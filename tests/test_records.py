"""A file's records: what they take, the schemas they publish, and contradictions in them."""

import dataclasses
import json
import math
import pickle
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from chargen_export.precision import GateText, derive_variant
from chargen_ort import Artifact, ArtifactError, CharGenerator, OptionError, parse_artifact
from chargen_ort.artifact import metadata_bytes, seal
from chargen_ort.certificate import Certificate, Gate, TestVector, TextComparison
from chargen_ort.cli import app
from chargen_ort.config import Config
from chargen_ort.graphs import VARIANTS
from chargen_ort.provenance import (
    Base,
    Baseline,
    CorpusFacts,
    HeldOut,
    Quantiles,
    SampleFacts,
    Split,
    Training,
)
from chargen_ort.strict import load_object, parse_record, record_of
from chargen_ort.verify import verify_vectors
from chargen_ort.vocabulary import Vocabulary
from chargen_train.split import Part
from tests.conftest import (
    ALPHABET,
    PARITY,
    PROPERTIES,
    TRAINING,
    artifact_bytes,
    model_bytes,
    random_model,
)
from tests.tools.schemas import FOLDER, SCHEMAS, schema_of, schema_text

NATS = 1.5
CONFIG = Config.of(Vocabulary(ALPHABET), 8, 16, 1, "\n")
VALIDATION = {
    "nats_per_char": NATS,
    "bits_per_char": NATS / math.log(2),
    "characters": 10,
    "documents": 0,
    "protocol": "none",
}
HISTORY = {
    "corpora": [{"name": "none", "sha256": "0" * 64, "characters": 100}],
    "characters": 100,
    "training_characters": 90,
    "split": {"documents": "none", "count": 0, "holdout": "tail"},
    "validation": VALIDATION,
}
VECTOR = {"tokens": [0], "stride": 1, "logits": [0.0] * 29, "greedy": [0]}
GATE = {
    "fp32_sha256": "0" * 64,
    "text": "a text",
    "held_out": True,
    "characters": 10,
    "protocol": "none",
    "fp32_nats_per_char": 1.5,
    "nats_per_char": 1.501,
    "loss_increase": 0.001,
    "max_loss_increase": 0.005,
    "greedy_agreement": 0.99,
}
ALL_OF_TRAINING = TRAINING.to_json() | {
    "baseline": {"method": "Witten-Bell", "order": 3, "nats_per_char": 1.7},
    "samples": {"count": 1000, "share_in_corpus": 0.1, "share_of_doubles": 0.02, "searched": 1.0},
    "score_quantiles": {
        "window": None,
        "count": 50,
        "levels": [0, 0.5, 1],
        "nats_per_char": [1.0, 2.0, 3.0],
        "by_length": [
            {"characters": 5.0, "nats_per_char": 2.5, "spread": 0.5},
            {"characters": 9.0, "nats_per_char": 2.0, "spread": 0.25},
        ],
        "oddness": [-2.0, 0.0, 3.0],
    },
    "base": {"name": "before", "sha256": "1" * 64},
    "notes": ["it went well"],
    "settings": {"seq_length": 64, "dropout": 0.5, "schedule": "cosine", "x": None, "y": True},
    "versions": {"torch": "2"},
    **HISTORY,
}
LENGTHS = ALL_OF_TRAINING["score_quantiles"]["by_length"][::-1]
EXAMPLES = {
    "config": CONFIG.to_json(),
    "training": ALL_OF_TRAINING,
    "parity": PARITY.to_json() | {"vectors": [VECTOR], "gate": GATE},
}
KINDS = (
    Config, CorpusFacts, Split, HeldOut, Baseline, SampleFacts, Quantiles, Base, Training,
    TextComparison, Gate, TestVector, Certificate,
)  # fmt: skip


def parse(training=None, parity=None):
    """The artifact of a file whose records are JSON of the test's own."""

    def dumped(value, honest):
        return honest if value is None else SimpleNamespace(dump=lambda: json.dumps(value))

    records = CONFIG, dumped(training, TRAINING), dumped(parity, PARITY)
    return parse_artifact(seal(model_bytes(random_model()) + metadata_bytes(*records, PROPERTIES)))


# What they take and give back


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_record_reads_what_it_writes(name):
    kind = SCHEMAS[name]
    record = record_of(kind, EXAMPLES[name], name)
    assert record.to_json() == EXAMPLES[name]
    assert parse_record(kind, record.dump(), name) == record
    assert pickle.loads(pickle.dumps(record)) == record
    assert dataclasses.replace(record) == record
    assert repr(record).startswith(f"{kind.__name__}(")


def test_a_record_is_frozen_and_keeps_plain_values():
    config = dataclasses.replace(CONFIG, hidden_size=np.int64(5), tokens=list(ALPHABET))
    assert type(config.hidden_size) is int
    assert config.tokens == tuple(ALPHABET)
    assert config != CONFIG
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        del config.hidden_size
    with pytest.raises(TypeError, match="no field x"):
        dataclasses.replace(config, x=1)
    with pytest.raises(TypeError, match="needs a value for separator"):
        Config(tokens=("a",))


def test_every_key_is_there_and_no_other():
    for name, value in EXAMPLES.items():
        for key in value:
            with pytest.raises(ArtifactError, match=f"{name} lacks {key}"):
                record_of(SCHEMAS[name], {k: v for k, v in value.items() if k != key}, name)
        with pytest.raises(ArtifactError, match="key that is not known: 'x'"):
            record_of(SCHEMAS[name], value | {"x": 1}, name)
    with pytest.raises(ArtifactError, match="validation has a key that is not known: 'x'"):
        parse(ALL_OF_TRAINING | {"validation": VALIDATION | {"x": 1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"x": []}}, "settings: x is a list; give a text"),
        ({"settings": {"x" * 65: 1}}, "a key of settings has 65 characters"),
        ({"settings": [1]}, "settings is a list; it must be an object"),
        ({"versions": {"torch": 2}}, "versions: torch must be a str"),
        ({"device": "cpu\x1b[2J"}, "device is 'cpu.*'; it must be one line"),
        ({"notes": ["a\nb"]}, r"notes\[0\] is 'a.nb'; it must be one line"),
        ({"notes": "a"}, "notes is 'a'; it must be a list"),
        ({"corpora": []}, "corpora has 0 values; give 1 to 256"),
        ({"seed": 1 << 64}, "seed is 18446744073709551616; give 0 to"),
        ({"epochs": -1}, "epochs is -1; give 0 or more"),
        ({"split": {"documents": "pages", "count": 0, "holdout": "tail"}}, "documents is 'pages'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ArtifactError, match=message):
        record_of(Training, ALL_OF_TRAINING | changes, "chargen.training")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merges": [0, 1]}, "with the unit char there are no pieces"),
        ({"unit": "byte"}, "the tokens are the 256 bytes"),
        ({"unit": "bpe", "tokens": [*ALPHABET, "ab"]}, r"tokens\[29\] is made by no merge"),
        ({"unit": "word", "tokens": ["ab", *ALPHABET]}, "has 1 characters and comes after"),
        ({"unit": "word", "tokens": [*ALPHABET, ""]}, "has 0 characters and comes after"),
    ],
)
def test_tokens_and_merges_are_those_of_the_unit(changes, message):
    with pytest.raises(ArtifactError, match=message):
        record_of(Config, CONFIG.to_json() | changes, "chargen.config")


# The published schemas


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_what_its_record_makes(name):
    assert (FOLDER / f"{name}.json").read_text() == schema_text(name)
    assert {path.stem for path in FOLDER.iterdir()} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_pass_what_the_exporter_writes(name, hello):
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema_of(SCHEMAS[name]))
    artifact = hello.artifact
    written = {
        "config": artifact.config,
        "training": artifact.training,
        "parity": artifact.certificate,
    }
    for value in (written[name].to_json(), EXAMPLES[name]):
        validator(schema_of(SCHEMAS[name])).validate(json.loads(json.dumps(value)))


TEMPERATURE = ("sampling", "temperature")
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70000), st.floats(-2, 2), st.text(max_size=3)
)
anything = st.recursive(
    scalars,
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(st.sampled_from(["corpora", "steps", "top_p", "x"]), v, max_size=3)
    ),
    max_leaves=5,
)


def places(value, path=()):
    """Every place in a JSON value, as a path of keys and indices."""
    yield path
    if not isinstance(value, (dict, list)):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(item, (*path, key))


@pytest.fixture
def without_contradictions(monkeypatch):
    """Records that look at each value alone, as a schema does."""
    for kind in KINDS:
        monkeypatch.setattr(kind, "contradiction", lambda self: "")


@pytest.mark.usefixtures("without_contradictions")
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_records_agree_with_jsonschema(name):
    validator = jsonschema.Draft202012Validator(schema_of(SCHEMAS[name]))

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def one_change(data):
        value = json.loads(json.dumps(EXAMPLES[name]))
        path = data.draw(st.sampled_from([p for p in places(value) if p]))
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder, dict) and data.draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = data.draw(anything)
        try:
            record_of(SCHEMAS[name], value, name)
            ours = True
        except ArtifactError:
            ours = False
        whole = any(isinstance(n, float) and n.is_integer() for n in numbers(value))
        # 1.0 is no integer here, and the temperatures between 0 and 1e-6 need more than a schema
        assert ours == validator.is_valid(value) or (whole and not ours) or path == TEMPERATURE

    one_change()


def numbers(value):
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    else:
        yield value


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.lists(scalars, max_size=3), max_size=4))
def test_honest_json_is_read_as_it_was_written(value):
    for ensure_ascii in (True, False):
        text = json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False)
        assert load_object(text, "x") == value


# Contradictions


def history(validation=(), **changes):
    return ALL_OF_TRAINING | {"validation": VALIDATION | dict(validation)} | changes


SPLIT = HISTORY["split"]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (history({"bits_per_char": 1.5}), "bits_per_char is 1.5, but 1.5 nats are 2.16"),
        (history({"bits_per_char": 0}), "bits_per_char is 0"),
        (history({"characters": 11}), "characters is 11, but 10 were held out"),
        (history(training_characters=101), "is 101, but the corpus has 100"),
        (history(training_characters=100), "is 10, but 0 were held out"),
        (history(split=SPLIT | {"holdout": "none"}), "is 10, but 0 were held out"),
        (history({"documents": 2}, split=SPLIT | {"count": 1}), "documents is 2 of 1"),
        (history(characters=99), "characters is 99, but a corpus has 100"),
        (history(steps=3, exported_step=4), "exported_step is 4, but steps is 3"),
        (history(steps=-1), "steps is -1"),
        (
            history(score_quantiles=ALL_OF_TRAINING["score_quantiles"] | {"levels": [0, 1]}),
            "2 levels and 3 nats_per_char",
        ),
        (
            history(score_quantiles=ALL_OF_TRAINING["score_quantiles"] | {"levels": [0, 1, 0.5]}),
            "levels do not rise",
        ),
        (
            history(score_quantiles=ALL_OF_TRAINING["score_quantiles"] | {"oddness": []}),
            "2 by_length and 0 oddness",
        ),
        (
            history(score_quantiles=ALL_OF_TRAINING["score_quantiles"] | {"by_length": LENGTHS}),
            "by_length does not rise",
        ),
    ],
)
def test_a_training_record_that_contradicts_itself_is_refused(training, message):
    with pytest.raises(ArtifactError, match=f"chargen.training: .*{message}"):
        parse(training)


@pytest.mark.parametrize("bits", [NATS / math.log(2) * (1 + 1e-7), round(NATS / math.log(2), 7)])
def test_bits_may_be_rounded(bits):
    assert parse(history({"bits_per_char": bits})).training.validation


def test_text_from_a_file_of_its_own_is_not_part_of_the_corpus():
    assert parse(history({"characters": 999}, split=SPLIT | {"holdout": "file"}))


TEXT = PARITY.greedy.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": {"logits": 1e300, "hidden": 1e-4}}, "not known: 'tolerance'"),
        ({"largest_logits_difference": 1.1e-4}, "logits_difference is 0.00011; the format allows"),
        ({"largest_hidden_difference": 1}, "largest_hidden_difference is 1; the format allows"),
        ({"largest_prefill_difference": 1}, "largest_prefill_difference is 1; the format allows"),
        ({"greedy": TEXT | {"equal": False}}, "greedy: equal is False with 0 near"),
        ({"seeded": TEXT | {"near_ties": 1, "characters": 9}}, "seeded: equal is True with 1"),
        (
            {"seeded": TEXT | {"near_ties": 1, "equal": False}},
            "seeded: 1 near ties in 0 characters",
        ),
        ({"gate": GATE | {"loss_increase": 0}}, "loss_increase is 0, but the losses say 0.001"),
        ({"gate": GATE | {"max_loss_increase": 0}}, "loss_increase is 0.001, above 0"),
        ({"vectors": [VECTOR, VECTOR | {"tokens": [29]}]}, "vector 1: a token is not below 29"),
        ({"vectors": [VECTOR | {"greedy": [29]}]}, "vector 0: a token is not below 29"),
        ({"vectors": [VECTOR | {"logits": [0.0]}]}, "vector 0: 1 logits; the vocabulary"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ArtifactError, match=message):
        parse(parity=PARITY.to_json() | changes)


def test_a_certificate_may_have_near_ties():
    ties = TEXT | {"characters": 9, "near_ties": 2, "equal": False}
    assert parse(parity=PARITY.to_json() | {"greedy": ties}).certificate.greedy.near_ties == 2


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\u202eb", "x" * 4097])
def test_what_viewers_show_is_one_line(text):
    data = model_bytes(random_model())
    data += metadata_bytes(CONFIG, TRAINING, PARITY, PROPERTIES | {"license": text})
    with pytest.raises(ArtifactError, match=r"license is '.*'…?; it must be one line"):
        parse_artifact(seal(data))


def slightly_off(artifact: Artifact) -> Artifact:
    """The artifact with a test vector that is a little off."""
    off = [float(x) + 0.01 for x in CharGenerator(artifact).state("a").logits()]
    vector = TestVector(tokens=(0,), stride=1, logits=off, greedy=())
    certificate = dataclasses.replace(artifact.certificate, vectors=(vector,))
    return dataclasses.replace(artifact, certificate=certificate)


def test_verify_applies_the_formats_tolerance():
    verdict = verify_vectors(slightly_off(parse()))
    assert verdict.passed is False
    assert "(limit 0.0001)" in str(verdict)


@pytest.fixture(scope="module")
def int8():
    base = parse_artifact(artifact_bytes(random_model()))
    text = GateText("letters", Part.of(np.arange(len(ALPHABET)).repeat(3)), held_out=True)
    return derive_variant(base, "int8", text, max_loss_increase=0.1)


def test_int8_has_a_tolerance_of_its_own(int8):
    assert VARIANTS["int8"].tolerance.vectors == 0.1
    assert verify_vectors(slightly_off(int8)).passed


def test_info_tells_of_an_int8_file(int8, tmp_path):
    path = tmp_path / "x.int8.onnx"
    path.write_bytes(int8.data)
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 0, result.output
    assert "training    0 steps, " in result.stdout
    assert "against the quantised GRU in NumPy" in result.stdout
    assert "greedy" not in result.stdout
    assert "the likeliest character is the same at" in result.stdout


def test_a_configuration_is_checked_when_it_is_made():
    with pytest.raises(OptionError, match="precision is 'fp8', none of fp32"):
        dataclasses.replace(CONFIG, precision="fp8")

"""The JSON of a model file, and what is refused before its graph is looked at."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_ort.artifact import parse_artifact
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.strict_json import check, load_object, schema
from tests.conftest import PARITY, TRAINING
from tests.hostile.build import body, changed, value_of

# JSON


@pytest.mark.parametrize("name", ["config", "training", "parity"])
def test_the_schemas_are_schemas_and_pass_what_the_exporter_writes(name, hello):
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema(name))
    found = {"training": hello.artifact.training, "parity": hello.artifact.parity}
    values = {"training": TRAINING, "parity": PARITY} if name != "config" else {}
    for value in [
        found.get(name, json.loads(value_of("chargen.config"))),
        values.get(name, json.loads(value_of("chargen.config"))),
    ]:
        validator(schema(name)).validate(value)
        check(value, schema(name), name)
        assert load_object(json.dumps(value), name) == value


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70000), st.floats(-2, 2), st.text(max_size=3)
)
anything = st.recursive(
    scalars,
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(st.sampled_from(["corpus", "steps", "top_p", "stop", "x"]), v, max_size=3)
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


@pytest.mark.parametrize("name", ["config", "training", "parity"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_small_checker_agrees_with_jsonschema(name, data):
    value = {
        "config": json.loads(value_of("chargen.config")),
        "training": TRAINING,
        "parity": PARITY
        | {"vectors": [{"tokens": [1], "stride": 1, "logits": [0.5], "greedy": []}]},
    }[name]
    value = json.loads(json.dumps(value))
    path = data.draw(st.sampled_from([p for p in places(value) if p]))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = data.draw(anything)
    by_jsonschema = jsonschema.Draft202012Validator(schema(name)).is_valid(value)
    try:
        check(value, schema(name), name)
        ours = True
    except ArtifactError:
        ours = False
    whole = any(isinstance(n, float) and n.is_integer() for n in numbers(value))
    assert ours == by_jsonschema or (whole and not ours)  # 1.0 is no integer here


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


def test_only_bytes_are_a_model():
    with pytest.raises(OptionError, match="a model is bytes, got bytearray"):
        parse_artifact(bytearray(body()))


def test_a_file_that_grows_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("chargen_ort.artifact.MAX_FILE_BYTES", 1000)
    with pytest.raises(ArtifactError, match="bytes; the limit is 1000"):
        parse_artifact(body())


def test_changed_helper_takes_keys_out():
    assert "unit" not in json.loads(changed("chargen.config", unit=...))

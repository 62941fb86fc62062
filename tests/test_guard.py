"""The JSON of a model file, and what is refused before its graph is looked at."""

import json

import pytest

from chargen_ort.artifact import parse_artifact
from chargen_ort.errors import ArtifactError, OptionError
from tests.hostile.build import body, changed

# Before the graph is looked at


def test_only_bytes_are_a_model():
    with pytest.raises(OptionError, match="a model is bytes, got bytearray"):
        parse_artifact(bytearray(body()))


def test_a_file_that_grows_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("chargen_ort.artifact.MAX_FILE_BYTES", 1000)
    with pytest.raises(ArtifactError, match="bytes; the limit is 1000"):
        parse_artifact(body())


def test_changed_helper_takes_keys_out():
    assert "unit" not in json.loads(changed("chargen.config", unit=...))

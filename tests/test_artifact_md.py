"""What ARTIFACT.md says is what the code does."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from chargen_ort import strict
from chargen_ort.artifact import (
    FORMAT,
    GRAPH_KEY,
    KEYS,
    MAX_FILE_BYTES,
    graph_of,
    parse_artifact,
    seal,
)
from chargen_ort.config import MAX_LAYERS, MAX_WIDTH
from chargen_ort.fields import MAX_LINE, MAX_TOKENS
from chargen_ort.form import MAX_METADATA_BYTES, MAX_WEIGHT
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Tolerance
from chargen_ort.options import MAX_STOP_LENGTH, MAX_STOPS, SamplingOptions
from chargen_ort.samplers import as_sampler
from chargen_ort.sampling import Sampler, uniform_draws
from tests.hostile.build import honest, of_precision
from tests.tools.schemas import SCHEMAS, schema_of

TEXT = (Path(__file__).parent.parent / "runtime/ARTIFACT.md").read_text()


def test_it_names_every_key_format_and_precision():
    assert f"format {FORMAT}\n" in TEXT
    for key in (*KEYS, GRAPH_KEY, *VARIANTS):
        assert f"`{key}`" in TEXT, key


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_names_every_key_of_the_schemas(name):
    def keys(value):
        for key, inner in value.get("properties", {}).items():
            yield key
            yield from keys(inner)
        for inner in [value["items"]] if "items" in value else value.get("anyOf", ()):
            yield from keys(inner)

    section = TEXT.split(f"### chargen.{name}")[1].split("\n## ")[0].split("\n### ")[0]
    for key in keys(schema_of(SCHEMAS[name])):
        assert f"`{key}`" in section, key


def test_its_limits_are_the_codes():
    assert MAX_FILE_BYTES == 1 << 30
    assert f"{MAX_METADATA_BYTES:,} bytes" in TEXT
    assert f"{MAX_WEIGHT:,.0f} either way" in TEXT
    assert f"nested at most {strict.MAX_DEPTH} deep" in TEXT
    assert f"at most {strict.MAX_OPENINGS:,} lists and objects" in TEXT
    assert f"{strict.MAX_COLONS:,} keys" in TEXT
    assert f"at most {MAX_STOPS} strings of 1 to {MAX_STOP_LENGTH} characters" in TEXT
    assert f"integers of at most {strict.MAX_DIGITS} digits" in TEXT
    assert f"1 to {MAX_TOKENS:,}" in TEXT
    assert f"1 to {MAX_WIDTH:,}" in TEXT
    assert f"1 to {MAX_LAYERS} |" in TEXT
    assert f"at most {MAX_LINE:,} characters" in TEXT


def test_its_tolerances_are_the_formats():
    rows = re.findall(r"^\| (`fp32`.*|`int8`) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", TEXT, re.M)
    found = {
        name: Tolerance(*map(float, limits))
        for names, *limits in rows
        for name in re.findall(r"\w+", names)
    }
    assert found == {name: variant.tolerance for name, variant in VARIANTS.items()}


def names(message):
    """The names of the fields of every message in a protobuf message, by number."""
    for field, value in message.ListFields():
        yield message.DESCRIPTOR.name, field.number, field.name
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from names(inner)


def test_its_list_of_fields_is_what_files_have():
    found = {}
    files = [of_precision(precision) for precision in VARIANTS]
    files.append(as_sampler(parse_artifact(files[0])).data)
    for data in files:
        for message, number, name in names(onnx.load_from_string(data)):
            found.setdefault(message, {})[str(number)] = name
    rows = re.findall(r"^\| (\w+Proto) \| (.*) \|$", TEXT, re.M)
    assert len(rows) == 6
    for message, row in rows:
        assert dict(re.findall(r"(\d+) (\w+)", row)) == found[message]


def test_the_example_of_the_seal():
    entry = seal(b"abc")[3:]
    assert entry.hex() in TEXT
    assert len(entry) == 84
    section = TEXT.split("## The seal")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| `([0-9a-f ]+)` \|", section, re.MULTILINE)
    assert len(rows) == 5
    for offset, written in rows:
        part = bytes.fromhex(written)
        assert entry[int(offset) : int(offset) + len(part)] == part


def test_the_seal_is_checked_as_it_says():
    data = honest()
    assert data[-84:-64] == seal(b"")[:20]
    assert data[-64:].decode() == hashlib.sha256(data[:-84]).hexdigest()


def test_the_example_of_the_draws():
    rows = re.findall(r"^\| (\d) \| `([0-9a-f]{16})` \| (0\.\d+) \|", TEXT, re.MULTILINE)
    assert len(rows) == 5
    raw = philox(7, 0, 5)
    for t, word, u in rows:
        assert raw[int(t)] == int(word, 16)
        assert float(u) == (int(word, 16) >> 11) * 2.0**-53 == uniform_draws(7, 0, int(t), 1)[0]
    u = float(uniform_draws(7, 3, 0, 1)[0])
    assert f"Seed 7, row 3, t 0: `{philox(7, 3, 1)[0]:016x}`, u = {u!r}." in TEXT


def philox(seed, row, count):
    """Philox-4x64-10 as the paper has it, in plain Python."""
    mask = (1 << 64) - 1
    words = []
    for block in range(-(-count // 4)):
        c, k0, k1 = [block + 1, 0, 0, 0], seed, row
        for _ in range(10):
            a, b = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
            c = [(b >> 64) ^ c[1] ^ k0, b & mask, (a >> 64) ^ c[3] ^ k1, a & mask]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += c
    return words[:count]


def test_the_example_of_a_token():
    options = SamplingOptions(
        temperature=0.8, top_k=4, top_p=0.9, min_p=0.05, repetition_penalty=1.2, seed=7
    )
    sampler = Sampler(options, 5)
    sampler.see(0, np.array([0]))
    token = sampler.sample(np.array([[2, 1, 0.5, -1, 0]], dtype=np.float32))
    assert f"the token is {token[0]}." in TEXT


def test_its_tables_of_a_sampler_are_the_graphs():
    kinds = {1: "float32", 7: "int64", 11: "float64"}
    found = {}
    for uniforms in (False, True):
        made = as_sampler(parse_artifact(of_precision("fp32")), uniforms)
        graph = graph_of(made.config, made.graph)
        for value in (*graph.inputs, *graph.outputs):
            shape = ", ".join(map(str, value.shape)).replace("2, 16", "num_layers, hidden_size")
            found[value.name] = (kinds[value.kind], f"[{shape}]")
    section = TEXT.split("## Samplers")[1].split("\n### ")[0]
    rows = re.findall(r"`(\w+)`(?:,| \|) (\w+) (?:\| )?`(\[[^`]+\])`", section)
    assert {name: (kind, shape) for name, kind, shape in rows} == found
    assert len(rows) == len(found) == 12

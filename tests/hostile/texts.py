"""Metadata that lies: keys, sizes, JSON, and configurations that do not fit the weights."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

from chargen_ort.artifact import CONFIG_KEY, FILTER_KEY, FORMAT_KEY, PARITY_KEY, TRAINING_KEY
from chargen_ort.document_filter import filter_bytes
from chargen_ort.documents import DocumentKind
from chargen_ort.provenance import Split
from tests.conftest import TRAINING, artifact_bytes, random_model
from tests.hostile.build import (
    Case,
    changed,
    entry,
    metadata,
    model,
    sealed,
    value_of,
    without_seal,
)


def config(name: str, message: str, **changes: object) -> Case:
    return metadata(f"config_{name}", CONFIG_KEY, changed(CONFIG_KEY, **changes), message)


def sampling(name: str, message: str, **changes: object) -> Case:
    options = json.loads(value_of(CONFIG_KEY))["sampling"] | changes
    options = {k: v for k, v in options.items() if v is not ...}
    return config(f"sampling_{name}", message, sampling=options)


def json_case(name: str, text: str | bytes, message: str, key: str = TRAINING_KEY) -> Case:
    return metadata(f"json_{name}", key, text, message)


CONFIG = value_of(CONFIG_KEY)
LETTERS = json.loads(CONFIG)["tokens"]
VECTOR = {"tokens": [0], "stride": 1, "logits": [0.0], "greedy": [0]}


def parity(name: str, message: str, **changes: object) -> Case:
    return metadata(f"parity_{name}", PARITY_KEY, changed(PARITY_KEY, **changes), message)


def filtered(
    name: str, text: str, message: str, documents: DocumentKind = "lines", count: int = 3
) -> Case:
    """A filter beside the record of a corpus of `count` documents."""
    training = replace(TRAINING, split=Split(documents=documents, count=count, holdout="none"))
    data = without_seal(artifact_bytes(random_model(), training=training))
    return sealed(f"filter_{name}", lambda _: data + entry(FILTER_KEY, text), message)


SIZE = 4 * filter_bytes(3) // 3
FILTERS = [
    filtered("of_running_text", "A" * SIZE, "this corpus has 3", documents="none"),
    filtered("of_nothing", "A" * SIZE, "it is there for 1 to 200000 documents", count=0),
    filtered("of_too_many", "A" * SIZE, "and this corpus has 200001", count=200_001),
    filtered("empty", "", f"it is not base64 of {SIZE} characters"),
    filtered("short", "A" * (SIZE - 4), f"base64 of {SIZE} characters, which 3 documents have"),
    filtered("long", "A" * (SIZE + 4), f"base64 of {SIZE} characters"),
    filtered("padded", "A" * (SIZE - 1) + "=", f"base64 of {SIZE} characters"),
    filtered("of_other_letters", "A" * (SIZE - 1) + "\n", f"base64 of {SIZE} characters"),
    filtered("of_digits", "A" * (SIZE - 1) + "٣", f"base64 of {SIZE} characters"),
]
MANY = ["".join(each) for each in islice(product(LETTERS[:26], repeat=4), 65_000)]


def pieces(
    name: str, message: str, merges: list[Any], more: Sequence[str] = ("ab",), unit: str = "bpe"
) -> Case:
    """A configuration of pieces."""
    return config(name, message, unit=unit, tokens=[*LETTERS, *more], merges=merges)


ENTRIES = [
    sealed("metadata_50_mb", lambda b: b + entry("a", "x" * 50_000_000), "more than 2097152 bytes"),
    sealed(
        "metadata_300000_keys",
        lambda b: b + b"".join(entry(f"k{i}", "") for i in range(300_000)),
        "more than 64 entries",
    ),
    sealed("metadata_one_more", lambda b: b + entry("a", "b"), "key that is not known: 'a'"),
    sealed("metadata_twice", lambda b: b + entry(CONFIG_KEY, CONFIG), "appears twice"),
    sealed("metadata_empty_key", lambda b: b + entry("", "b"), "key that is not known: ''"),
    sealed(
        "metadata_empty_entry",
        lambda b: b + b"\x72\x00",
        "metadata entry 10 is not one key and then one value",
    ),
    sealed(
        "metadata_two_keys",
        lambda b: b + b"\x72\x08\x0a\x02ab\x0a\x02cd",
        "metadata entry 10 is not one key and then one value",
    ),
    sealed(
        "metadata_third_field",
        lambda b: b + b"\x72\x02\x18\x01",
        "metadata entry 10 is not one key and then one value",
    ),
    sealed("metadata_cut_off", lambda b: b + b"\x72\x02\x0a\x09", "the file is cut off"),
    sealed("metadata_escape_key", lambda b: b + entry("\x1b[31m", ""), r"not known: '\x1b[31m'"),
    model("metadata_none", lambda m: m.ClearField("metadata_props"), "metadata lacks"),
    model("metadata_config_missing", lambda m: m.metadata_props.pop(1), "lacks chargen.config"),
    model("metadata_license_missing", lambda m: m.metadata_props.pop(6), "lacks license"),
    metadata("format_1", FORMAT_KEY, "1", "of format 1, which only development versions wrote"),
    metadata("format_3", FORMAT_KEY, "3", "format '3' is not known to this version"),
    metadata("format_empty", FORMAT_KEY, "", "format '' is not known"),
    metadata("format_long", FORMAT_KEY, "9" * 100_000, "is not known to this version"),
    metadata("format_padded", FORMAT_KEY, "2 ", "format '2 ' is not known"),
    metadata("config_not_utf8", CONFIG_KEY, b"\xff\xfe", "not UTF-8"),
    metadata("config_surrogate_bytes", CONFIG_KEY, b'"\xed\xa0\x80"', "not UTF-8"),
    metadata("license_not_utf8", "license", b"\x80", "not UTF-8"),
    metadata("license_two_lines", "license", "a\nb", r"license is 'a\nb'; it must be one line"),
    metadata("author_escape", "author", "\x1b[2J", r"author is '\x1b[2J'; it must be one line"),
    metadata("task_long", "task", "x" * 5000, "at most 4096 characters"),
]

JSON = [
    json_case("empty", "", "is not JSON"),
    json_case("not_json", "hello", "is not JSON"),
    json_case("list", "[]", "is not a JSON object"),
    json_case("null", "null", "is not a JSON object"),
    json_case("two_values", "{} {}", "is not JSON"),
    json_case("python", "{'a': 1}", "is not JSON"),
    json_case("byte_order_mark", "\ufeff{}", "is not JSON"),
    json_case("control_character", '{"a": "\n"}', "is not JSON"),
    json_case("duplicate_key", '{"a": 1, "a": 2}', "the key 'a' appears twice"),
    json_case("duplicate_inside", '{"a": [{"b": 1, "b": 1}]}', "the key 'b' appears twice"),
    json_case("nan", '{"a": NaN}', "NaN is not a number"),
    json_case("infinity", '{"a": -Infinity}', "-Infinity is not a number"),
    json_case("overflow", '{"a": 1e999}', "too long or too large"),
    json_case("long_fraction", '{"a": 0.' + "1" * 100_000 + "}", "too long or too large"),
    json_case("long_integer", '{"a": 1' + "0" * 4_000 + "}", "an integer of 4001 digits"),
    json_case("longer_integer", '{"a": 1' + "0" * 1_000_000 + "}", "an integer of 1000001 digits"),
    json_case("lone_surrogate", r'{"a": "\ud800"}', "lone surrogate"),
    json_case("lone_surrogate_key", r'{"\udfff": 1}', "lone surrogate"),
    json_case("swapped_surrogates", r'{"a": "\ude00\ud83d"}', "lone surrogate"),
    json_case("nested_20", '{"a": ' + "[" * 20 + "]" * 20 + "}", "nested more than 16 deep"),
    json_case("nested_3000", '{"a": ' + "[" * 3000 + "]" * 3000 + "}", "nested more than 16 deep"),
    json_case("nested_million", "[" * 1_000_000, "more than 4096 lists"),
    json_case("many_lists", '{"a": [' + "[]," * 400_000 + "[]]}", "more than 4096 lists"),
    json_case("many_objects", '{"a": [' + "{}," * 400_000 + "{}]}", "more than 4096 lists"),
    json_case(
        "many_keys",
        "{" + ",".join(f'"{i}":1' for i in range(150_000)) + "}",
        "more than 16384 keys",
    ),
    json_case("same_key_often", "{" + ",".join(['"a":1'] * 150_000) + "}", "more than 16384 keys"),
    json_case("training_empty", "{}", "chargen.training lacks corpora"),
    json_case("parity_empty", "{}", "chargen.parity lacks against", PARITY_KEY),
    json_case("config_empty", "{}", "chargen.config lacks unit", CONFIG_KEY),
    json_case("training_corpus", changed(TRAINING_KEY, corpora=3), "corpora is 3; it must be a"),
    json_case("training_steps", changed(TRAINING_KEY, steps=-1), "steps is -1; give 0"),
    json_case("training_true", changed(TRAINING_KEY, steps=True), "steps must be a whole number"),
    json_case("training_half", changed(TRAINING_KEY, steps=0.5), "steps must be a whole number"),
    json_case("training_validation", changed(TRAINING_KEY, validation=[]), "validation is a list"),
    parity("batches", "batches[0] must be a whole number, got str", batches=["a"]),
    parity("tolerance", "key that is not known: 'tolerance'", tolerance={}),
    parity("vectors_no_list", "vectors is an object; it must be a list", vectors={}),
    parity("vectors_17", "vectors has 17 values", vectors=[VECTOR] * 17),
    parity("vectors_negative_token", "tokens[0] is -1", vectors=[VECTOR | {"tokens": [-1]}]),
    parity("vectors_no_tokens", "tokens has 0 values", vectors=[VECTOR | {"tokens": []}]),
    parity("vectors_stride_0", "stride is 0", vectors=[VECTOR | {"stride": 0}]),
]

CONFIGS = [
    config("unknown_key", "key that is not known: 'extra'", extra=1),
    config("no_tokens", "lacks tokens", tokens=...),
    config("unit", "unit is 'syllable'; it must be one of", unit="syllable"),
    config("unit_byte_of_letters", "the tokens are the 256 bytes", unit="byte"),
    config("merges_of_characters", "with the unit char there are no pieces", merges=[0, 1]),
    pieces("merges_odd", "merges has 1 tokens, which are no pairs", [0]),
    pieces("merges_of_others", "the pair (0, 2) makes no token", [0, 2]),
    pieces("merges_none", "tokens[29] is made by no merge", []),
    pieces("merges_twice", "the pair (0, 1) stands twice", [0, 1, 0, 1]),
    pieces("merges_too_soon", "a token of the pair (29, 2) is not made before it", [29, 2, 0, 1]),
    pieces("merges_beyond", "a token of the pair (0, 500) is not made before it", [0, 500]),
    pieces("merges_negative", "merges[1] is -1", [0, -1]),
    pieces("merges_lists", "merges[0] must be a whole number, got list", [[0, 1]]),
    pieces("merges_many", "merges has 131074 values; give 0 to 131072", [0, 1] * 65537),
    pieces("merges_of_words", "merges are of the unit bpe", [0, 1], unit="word"),
    pieces("piece_empty", "tokens[29] has 0 characters and comes after a", [], [""]),
    pieces("piece_single", "tokens[30] has 1 characters and comes after a longer", [], ["ab", "é"]),
    pieces("piece_of_others", "tokens[29] has a character that is no token", [], ["aé"]),
    pieces("piece_across", "tokens[29] goes across where a text is split", [], ["a b"]),
    pieces("piece_twice", "has a value twice", [0, 1], ["ab", "ab"]),
    pieces("piece_long", "tokens[29] has 257 characters; give 0 to 256", [], ["a" * 257]),
    pieces("pieces_65000", "tokens[29] is made by no merge", [], MANY),
    config("vocabulary_text", "tokens is 'abc'; it must be a list", tokens="abc"),
    config("vocabulary_empty", "tokens has 0 values; give 1 to 65536", tokens=[]),
    config("vocabulary_short", "tensor embedding: dims 0 is 29", tokens=LETTERS[1:]),
    config("vocabulary_long", "tensor embedding: dims 0 is 29", tokens=[*LETTERS, "é"]),
    config("vocabulary_duplicate", "has a value twice", tokens=[*LETTERS[:-1], "a"]),
    config("vocabulary_of_words", "has 2 characters", tokens=["ab", *LETTERS[1:]]),
    config("vocabulary_empty_text", "has 0 characters", tokens=["", *LETTERS[1:]]),
    config("vocabulary_numbers", "tokens[0] must be a str, got int", tokens=[1] * 29),
    config("vocabulary_lists", "tokens[0] must be a str, got list", tokens=[[]] * 29),
    config("vocabulary_null", "tokens is None; it must be a list", tokens=None),
    config("vocabulary_surrogate", "lone surrogate", tokens=["\ud800", *LETTERS[1:]]),
    config("vocabulary_100000", "100000 values", tokens=[chr(0x10000 + i) for i in range(100_000)]),
    config("hidden_size_0", "hidden_size is 0; give 1 to 65536", hidden_size=0),
    config("hidden_size_negative", "hidden_size is -1", hidden_size=-1),
    config("hidden_size_true", "hidden_size must be a whole number, got bool", hidden_size=True),
    config("hidden_size_float", "hidden_size must be a whole number, got float", hidden_size=16.0),
    config("hidden_size_text", "hidden_size must be a whole number, got str", hidden_size="16"),
    config("hidden_size_huge", "hidden_size is 1000000000000", hidden_size=10**12),
    config("hidden_size_other", "attribute hidden_size: i is 16", hidden_size=17),
    config("embedding_dim_other", "tensor embedding: dims 1 is 8", embedding_dim=9),
    config("num_layers_other", "input 0 is 'hidden_by_layer'", num_layers=1),
    config("num_layers_more", "field 3; train-export writes output 2", num_layers=3),
    config("num_layers_1000", "num_layers is 1000; give 1 to 64", num_layers=1000),
    config("precision", "precision is 'fp8', none of fp32, fp16, int8; that", precision="fp8"),
    config("precision_list", "precision must be a str, got list", precision=[]),
    config("precision_escape", r"precision is '\x1b[2J'; it must be one line", precision="\x1b[2J"),
    config("separator_unknown", "the separator 'é' is not one character of the", separator="é"),
    config("separator_two", "the separator 'ab' is not one character", separator="ab"),
    config("separator_empty", "the separator '' is not one character", separator=""),
    config("end_alone", "end is true, so the last of two or more tokens, and the sep", end=True),
    config("separator_null", "separator must be a str, got NoneType", separator=None),
    config("unknown_policy", "unknown is 'ignore'; it must be one of", unknown="ignore"),
    config("replacement_unknown", "replacement 'é' is not one character", replacement="é"),
    config("replacement_list", "replacement must be a str, got list", replacement=[]),
    config("sampling_list", "sampling is a list; it must be an object", sampling=[]),
    sampling("seed", "key that is not known: 'seed'", seed=1),
    sampling("temperature_negative", "temperature is -1", temperature=-1),
    sampling("temperature_tiny", "temperature is 1e-300", temperature=1e-300),
    sampling("temperature_text", "temperature must be a number, got str", temperature="hot"),
    sampling("temperature_missing", "sampling lacks temperature", temperature=...),
    sampling("top_k_negative", "top_k is -1", top_k=-1),
    sampling("top_k_fraction", "top_k must be a whole number, got float", top_k=1.5),
    sampling("top_p_0", "top_p is 0; give a value above 0", top_p=0),
    sampling("min_p_2", "min_p is 2", min_p=2),
    sampling("penalty_0", "repetition_penalty is 0", repetition_penalty=0),
    sampling("stop_text", "stop is 'x'; it must be a list", stop="x"),
    sampling("stop_empty", "stop has ''; give non-empty strings", stop=[""]),
    sampling("stop_numbers", "stop has 1; give non-empty strings", stop=[1]),
    sampling("stop_many", "stop has 100 strings; give at most 16", stop=["x"] * 100),
    sampling("stop_17", "stop has 17 strings; give at most 16", stop=["x"] * 17),
    sampling("stop_long", "a stop string has 257 characters; give at most 256", stop=["x" * 257]),
    sampling("stop_unknown", "stop has the character 'X' (U+0058)", stop=["aX"]),
]

CASES: list[Case] = [*ENTRIES, *FILTERS, *JSON, *CONFIGS]

"""The honest artifact that every hostile file starts from, and the ways to spoil it."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from chargen_ort.artifact import SEAL_KEY, metadata_bytes, seal
from chargen_ort.config import Config
from chargen_ort.form import fill, render
from chargen_ort.graphs import VARIANTS
from chargen_ort.protobuf import bytes_field
from chargen_ort.vocabulary import Vocabulary
from tests.conftest import ALPHABET, PARITY, PROPERTIES, TRAINING, artifact_bytes, random_model

NUM_LAYERS = 2


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        name: of the test.
        make: puts the file into a folder and returns its path.
        message: what the refusal must say.
    """

    name: str
    make: Callable[[Path], Path]
    message: str


@functools.cache
def honest() -> bytes:
    """A sealed artifact of two layers with random weights."""
    return artifact_bytes(random_model(num_layers=NUM_LAYERS))


@functools.cache
def body() -> bytes:
    """The honest artifact without its seal."""
    return without_seal(honest())


def of_precision(
    precision: str,
    num_layers: int = NUM_LAYERS,
    scale: float = 0.1,
    embedding_dim: int = 8,
    hidden_size: int = 16,
    vocabulary: Vocabulary | None = None,
) -> bytes:
    """A sealed artifact of a precision, with random weights up to `scale` either way."""
    vocabulary = vocabulary or Vocabulary(ALPHABET)
    separator = "" if vocabulary.end else "\n"
    config = Config.of(
        vocabulary, embedding_dim, hidden_size, num_layers, separator, precision=precision
    )
    form = render(VARIANTS[precision].graph(config.sizes))
    rng = np.random.default_rng(0)
    weights = {
        hole.name: rng.uniform(-scale, scale, hole.shape).astype(hole.dtype)
        if hole.dtype.kind == "f"
        else rng.integers(-63, 64, hole.shape).astype(hole.dtype)
        for hole in form.holes
    }
    return seal(fill(form, weights) + metadata_bytes(config, TRAINING, PARITY, PROPERTIES))


def file(name: str, make: Callable[[], bytes], message: str) -> Case:
    """A file of these bytes as they are."""

    def write(folder: Path) -> Path:
        path = folder / "hostile.onnx"
        path.write_bytes(make())
        return path

    return Case(name, write, message)


def sealed(name: str, make: Callable[[bytes], bytes], message: str) -> Case:
    """The honest body changed as bytes, then sealed as its author could."""
    return file(name, lambda: seal(make(body())), message)


def without_seal(data: bytes) -> bytes:
    """An artifact without its last entry."""
    return data[: data.rindex(SEAL_KEY.encode()) - 4]


def model(
    name: str, change: Callable[[ModelProto], object], message: str, precision: str = ""
) -> Case:
    """The honest model, or that of a precision, changed through onnx, then sealed."""

    def make() -> bytes:
        data = without_seal(of_precision(precision)) if precision else body()
        proto = onnx.load_from_string(data)
        change(proto)
        return seal(proto.SerializeToString(deterministic=True))

    return file(name, make, message)


def metadata(name: str, key: str, value: str | bytes, message: str) -> Case:
    """The honest model with another value of one metadata key, then sealed."""

    def make(data: bytes) -> bytes:
        proto = onnx.load_from_string(data)
        entries = [(p.key, p.value.encode()) for p in proto.metadata_props]
        del proto.metadata_props[:]
        text = value if isinstance(value, bytes) else value.encode()
        return proto.SerializeToString(deterministic=True) + b"".join(
            entry(k, text if k == key else v) for k, v in entries
        )

    return sealed(name, make, message)


def value_of(key: str) -> str:
    """The honest artifact's metadata value."""
    proto = onnx.load_from_string(honest())
    return next(p.value for p in proto.metadata_props if p.key == key)


def changed(key: str, **changes: object) -> str:
    """The honest JSON value with some keys replaced; `...` takes a key out."""
    value = json.loads(value_of(key)) | changes
    return json.dumps({k: v for k, v in value.items() if v is not ...})


def entry(key: str, value: str | bytes) -> bytes:
    """A metadata entry as a field of a model."""
    text = value if isinstance(value, bytes) else value.encode()
    return bytes_field(14, bytes_field(1, key.encode()) + bytes_field(2, text))

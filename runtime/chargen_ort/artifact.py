"""The artifact: one .onnx file that carries its vocabulary, its history and its seal.

ARTIFACT.md describes the format for other languages; this module is its one definition in code.
The export writes with `metadata_bytes` and `seal`, the runtime reads with `read_artifact`.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chargen_ort.errors import ArtifactError, ChargenError
from chargen_ort.sampling import SamplingOptions
from chargen_ort.vocabulary import UNKNOWN_POLICIES, Vocabulary
from chargen_ort.wire import BYTES, fields, write_bytes_field

FORMAT = 1
TOKEN, HIDDEN, LOGITS, NEXT_HIDDEN = "token", "hidden", "logits", "next_hidden"
OPSET, IR_VERSION = 17, 8
PRECISIONS = ("fp32", "fp16", "int8")

FORMAT_KEY = "chargen.format"
CONFIG_KEY = "chargen.config"
TRAINING_KEY = "chargen.training"
PARITY_KEY = "chargen.parity"
SEAL_KEY = "chargen.sha256"
FLAT_KEYS = ("description", "author", "license", "version", "task")
KEYS = (FORMAT_KEY, CONFIG_KEY, TRAINING_KEY, PARITY_KEY, *FLAT_KEYS, SEAL_KEY)

MAX_FILE_BYTES = 1 << 30
_METADATA_FIELD = 14  # ModelProto.metadata_props


@dataclass(frozen=True)
class ModelConfig:
    """What the model is: the facts a caller cannot choose, and the options it suggests.

    Attributes:
        vocabulary: characters in token order, and the policy for others.
        embedding_dim, hidden_size, num_layers: sizes of the network.
        separator: one character that stands before a text begins; an empty start feeds it.
        sampling: the options that apply when a call gives none.
        precision: how the weights are stored, one of `PRECISIONS`.
    """

    vocabulary: Vocabulary
    embedding_dim: int
    hidden_size: int
    num_layers: int
    separator: str
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    precision: str = "fp32"


@dataclass(frozen=True)
class Artifact:
    """A model file that was read whole and found intact.

    Attributes:
        data: the bytes of the file.
        sha256: the seal, 64 hexadecimal digits.
        config: what the model is.
        training: how it came to be, as in `chargen.training`.
        parity: the parity certificate, as in `chargen.parity`.
        properties: the flat keys that model viewers show.
    """

    data: bytes
    sha256: str
    config: ModelConfig
    training: Mapping[str, Any]
    parity: Mapping[str, Any]
    properties: Mapping[str, str]


def metadata_bytes(
    config: ModelConfig,
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    properties: Mapping[str, str],
) -> bytes:
    """The metadata of a model as protobuf fields to append to a ModelProto without any."""
    entries = {
        FORMAT_KEY: str(FORMAT),
        CONFIG_KEY: _dump_json(_config_to_json(config)),
        TRAINING_KEY: _dump_json(training),
        PARITY_KEY: _dump_json(parity),
        **{key: properties[key] for key in FLAT_KEYS},
    }
    return b"".join(_entry(key, value) for key, value in entries.items())


def seal(data: bytes) -> bytes:
    """`data` with the entry appended that holds the SHA-256 of every byte before it."""
    return data + _entry(SEAL_KEY, hashlib.sha256(data).hexdigest())


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read and check a model file.

    Raises:
        ArtifactError: not a regular file, too large, damaged, or not an artifact of this format.
    """
    return parse_artifact(_read_file(Path(path)), str(path))


def parse_artifact(data: bytes, name: str = "the model") -> Artifact:
    """Check the bytes of a model file; `name` says in messages what they are.

    Raises:
        ArtifactError: damaged, or not an artifact of this format.
    """
    try:
        sha256 = check_seal(data)
        metadata = _read_metadata(data)
        config = _config_from_json(_load_json(metadata, CONFIG_KEY))
        return Artifact(
            data=data,
            sha256=sha256,
            config=config,
            training=_load_json(metadata, TRAINING_KEY),
            parity=_load_json(metadata, PARITY_KEY),
            properties={key: metadata[key] for key in FLAT_KEYS},
        )
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from None


def check_seal(data: bytes) -> str:
    """The seal of a file, recomputed over its bytes.

    Raises:
        ArtifactError: the last entry is not a seal, or not the one of the bytes before it.
    """
    size = len(_entry(SEAL_KEY, "0" * 64))
    body, entry = data[:-size], data[-size:]
    if entry[:-64] != _entry(SEAL_KEY, "0" * 64)[:-64]:
        raise ArtifactError(_describe_foreign(data))
    expected = hashlib.sha256(body).hexdigest()
    if entry[-64:] != expected.encode():
        raise ArtifactError(
            "the seal does not match: the file is damaged or was changed after its export; "
            "copy or export it again"
        )
    return expected


def _entry(key: str, value: str) -> bytes:
    pair = write_bytes_field(1, key.encode()) + write_bytes_field(2, value.encode())
    return write_bytes_field(_METADATA_FIELD, pair)


def _read_file(path: Path) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise ArtifactError(f"no such model file: {path}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ArtifactError(f"{path} is not a regular file; give an .onnx file")
    with open(descriptor, "rb") as file:
        if status.st_size > MAX_FILE_BYTES:
            raise ArtifactError(f"{path} has {status.st_size} bytes; the limit is {MAX_FILE_BYTES}")
        return file.read(MAX_FILE_BYTES)


def _describe_foreign(data: bytes) -> str:
    if not data:
        return "the file is empty; copy or export it again"
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the model; run: git lfs pull"
    if data.lstrip()[:1] == b"<":
        return "this is an HTML or XML page, not a model; download the raw file"
    if SEAL_KEY.encode() in data:
        return "the seal is not the last thing in the file: it is cut off or was added to"
    return "no seal: not a model that train-export wrote, or cut off; export it with train-export"


def _read_metadata(data: bytes) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for number, wire_type, value in fields(memoryview(data)):
        if number == _METADATA_FIELD and wire_type == BYTES and isinstance(value, memoryview):
            pair = {n: v for n, _, v in fields(value) if isinstance(v, memoryview)}
            try:
                key, text = (bytes(pair.get(n, b"")).decode("utf-8") for n in (1, 2))
            except UnicodeDecodeError:
                raise ArtifactError("a metadata entry is not UTF-8") from None
            if key in metadata:
                raise ArtifactError(f"the metadata key {key!r} appears twice")
            metadata[key] = text
    version = metadata.get(FORMAT_KEY)
    if version is not None and version != str(FORMAT):
        raise ArtifactError(
            f"format {version[:20]!r} is not known to this version, which reads format {FORMAT}; "
            "update with: pip install --upgrade chargen-ort"
        )
    missing = [key for key in KEYS if key not in metadata]
    if missing:
        raise ArtifactError(f"the metadata lacks {', '.join(missing)}; export it with train-export")
    return metadata


def _dump_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def _load_json(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise ArtifactError(f"{key} is not JSON") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{key} is not a JSON object")
    return value


def _config_to_json(config: ModelConfig) -> dict[str, Any]:
    options = config.sampling
    return {
        "unit": "char",
        "vocabulary": list(config.vocabulary.characters),
        "embedding_dim": config.embedding_dim,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_layers,
        "precision": config.precision,
        "separator": config.separator,
        "unknown": config.vocabulary.unknown,
        "replacement": config.vocabulary.replacement,
        "sampling": {
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": options.top_p,
            "min_p": options.min_p,
            "repetition_penalty": options.repetition_penalty,
            "stop": list(options.stops),
        },
    }


def _config_from_json(value: Mapping[str, Any]) -> ModelConfig:
    try:
        if value["unit"] != "char":
            raise ArtifactError(f"{CONFIG_KEY}: unit {value['unit']!r} is not known; it is char")
        characters = value["vocabulary"]
        if not isinstance(characters, list) or not all(
            isinstance(c, str) and len(c) == 1 and not "\ud800" <= c <= "\udfff" for c in characters
        ):
            raise ArtifactError(f"{CONFIG_KEY}: vocabulary is not a list of characters")
        if value["unknown"] not in UNKNOWN_POLICIES:
            raise ArtifactError(f"{CONFIG_KEY}: unknown is none of {UNKNOWN_POLICIES}")
        config = ModelConfig(
            vocabulary=Vocabulary("".join(characters), value["unknown"], value["replacement"]),
            embedding_dim=_size(value, "embedding_dim"),
            hidden_size=_size(value, "hidden_size"),
            num_layers=_size(value, "num_layers"),
            separator=value["separator"],
            sampling=SamplingOptions(**value["sampling"]),
            precision=value["precision"],
        )
    except KeyError as error:
        raise ArtifactError(f"{CONFIG_KEY} lacks {error}") from None
    except ArtifactError:
        raise
    except (ChargenError, TypeError, ValueError) as error:
        raise ArtifactError(f"{CONFIG_KEY}: {error}") from None
    if config.precision not in PRECISIONS:
        raise ArtifactError(f"{CONFIG_KEY}: precision is none of {PRECISIONS}")
    if not isinstance(config.separator, str) or config.separator not in list(characters):
        raise ArtifactError(f"{CONFIG_KEY}: separator is not one character of the vocabulary")
    return config


def _size(value: Mapping[str, Any], key: str) -> int:
    size = value[key]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= 1 << 16:
        raise ArtifactError(f"{CONFIG_KEY}: {key} is not a whole number from 1 to {1 << 16}")
    return size

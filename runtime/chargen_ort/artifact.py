"""The artifact: one .onnx file that carries its vocabulary, its history and its seal.

ARTIFACT.md describes the format for other languages; this module is its one definition in code.
The export writes with `metadata_bytes` and `seal`, the runtime reads with `read_artifact`.
"""

import hashlib
import io
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chargen_ort.certificate import Certificate
from chargen_ort.checks import instance, printable, shown_value
from chargen_ort.config import Config
from chargen_ort.document_filter import describe_misfit
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.fields import LINE_PATTERN, MAX_LINE
from chargen_ort.foreign import describe_foreign
from chargen_ort.form import Array, metadata_entry, read, read_metadata, render
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import FORMAT as FORMAT
from chargen_ort.graphs.spec import Graph
from chargen_ort.provenance import Training
from chargen_ort.strict import parse_record

PRECISIONS = tuple(VARIANTS)

FORMAT_KEY = "chargen.format"
GRAPH_KEY = "chargen.graph"  # in files whose graph is not the step
CONFIG_KEY = "chargen.config"
TRAINING_KEY = "chargen.training"
PARITY_KEY = "chargen.parity"
FILTER_KEY = "chargen.filter"  # in files that know the documents of their corpus
SEAL_KEY = "chargen.sha256"
FLAT_KEYS = ("description", "author", "license", "version", "task")
KEYS = (FORMAT_KEY, CONFIG_KEY, TRAINING_KEY, PARITY_KEY, *FLAT_KEYS, SEAL_KEY)
MORE_KEYS = (GRAPH_KEY, FILTER_KEY)  # that a file may have

STEP, SAMPLER, SAMPLER_UNIFORMS = "step", "sampler", "sampler-uniforms"
KINDS: Mapping[str, str] = {
    STEP: "a step: as many tokens as it is fed",
    SAMPLER: "a sampler: one run is a text, drawn by a seed",
    SAMPLER_UNIFORMS: "a sampler: one run is a text, drawn by the numbers that it is given",
}

MAX_FILE_BYTES = 1 << 30
_PEEK = 4096  # bytes at either end that tell what a file is


@dataclass(frozen=True)
class Artifact:
    """A model file that was read whole and found intact.

    Attributes:
        data: the bytes of the file.
        sha256: the seal, 64 hexadecimal digits.
        config: what the model is.
        training: how it came to be.
        certificate: what was compared when it was exported, the value of `chargen.parity`.
        properties: the flat keys that model viewers show.
        graph: what one run of its graph does, one of `KINDS`.
        filter: of the documents of its corpus, see `chargen_ort.document_filter`; empty where there
            is none.

    Raises:
        OptionError: a value of another kind.
    """

    data: bytes
    sha256: str
    config: Config
    training: Training
    certificate: Certificate
    properties: Mapping[str, str]
    graph: str = STEP
    filter: str = ""

    def __post_init__(self) -> None:
        instance("data", self.data, bytes)
        instance("sha256", self.sha256, str)
        instance("config", self.config, Config)
        instance("training", self.training, Training)
        instance("certificate", self.certificate, Certificate)
        instance("properties", self.properties, Mapping)
        instance("graph", self.graph, str)
        instance("filter", self.filter, str)


def metadata_bytes(
    config: Config,
    training: Training,
    certificate: Certificate,
    properties: Mapping[str, str],
    graph: str = STEP,
    filter_text: str = "",
) -> bytes:
    """The metadata of a model as protobuf fields to append to a ModelProto without any."""
    entries = {
        FORMAT_KEY: str(FORMAT),
        **({} if graph == STEP else {GRAPH_KEY: graph}),
        CONFIG_KEY: config.dump(),
        TRAINING_KEY: training.dump(),
        PARITY_KEY: certificate.dump(),
        **({FILTER_KEY: filter_text} if filter_text else {}),
        **{key: properties[key] for key in FLAT_KEYS},
    }
    return b"".join(metadata_entry(key, value) for key, value in entries.items())


def seal(data: bytes) -> bytes:
    """`data` with the entry appended that holds the SHA-256 of every byte before it."""
    return data + metadata_entry(SEAL_KEY, hashlib.sha256(data).hexdigest())


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read and check a model file.

    Raises:
        ArtifactError: not a regular file, too large, damaged, or not an artifact of this format.
        OptionError: not a path.
    """
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        in_memory = isinstance(path, (bytes, bytearray, memoryview, io.IOBase))
        cure = "; CharGenerator.from_bytes takes the bytes of one" if in_memory else ""
        raise OptionError(f"the path of a model is a str or Path, got {type(path).__name__}{cure}")
    return parse_artifact(_read_file(Path(name)), printable(name))


def parse_artifact(data: bytes, name: str = "the model") -> Artifact:
    """Check the bytes of a model file; `name` says in messages what they are.

    Raises:
        ArtifactError: damaged, or not an artifact of this format.
        OptionError: not bytes.
    """
    if not isinstance(data, bytes):  # a buffer that changes could be swapped after the check
        cure = "; for a file use chargen_ort.load" if isinstance(data, (str, os.PathLike)) else ""
        raise OptionError(f"a model is bytes, got {type(data).__name__}{cure}")
    instance("name", name, str)
    try:
        _check_size(len(data))
        sha256 = check_seal(data)
        metadata, _ = read_metadata(memoryview(data))
        _check_keys(metadata, sha256)
        config = parse_record(Config, metadata[CONFIG_KEY], CONFIG_KEY)
        training = parse_record(Training, metadata[TRAINING_KEY], TRAINING_KEY)
        certificate = parse_record(Certificate, metadata[PARITY_KEY], PARITY_KEY)
        try:
            certificate.refuse_misfit(config.precision, len(config.vocabulary))
        except OptionError as error:
            raise ArtifactError(f"{PARITY_KEY}: {error}") from None
        artifact = Artifact(
            data=data,
            sha256=sha256,
            config=config,
            training=training,
            certificate=certificate,
            properties={key: metadata[key] for key in FLAT_KEYS},
            graph=metadata.get(GRAPH_KEY, STEP),
            filter=metadata.get(FILTER_KEY, ""),
        )
        if FILTER_KEY in metadata and (problem := describe_misfit(artifact.filter, training)):
            raise ArtifactError(f"{FILTER_KEY}: {problem}")
        read_weights(artifact)
        return artifact
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from None


def read_weights(artifact: Artifact) -> dict[str, Array]:
    """The weights by their names in the graph: read-only views; part of `parse_artifact`.

    Raises:
        ArtifactError: the graph is not the one that the configuration asks for.
    """
    view = memoryview(artifact.data)
    _, end = read_metadata(view)
    return read(view[:end], render(graph_of(artifact.config, artifact.graph)))


def graph_of(config: Config, kind: str) -> Graph:
    """The graph of a file of this kind, one of `KINDS`.

    Raises:
        ArtifactError: no file has it, see `chargen_ort.graphs`.
    """
    if kind == STEP:
        return VARIANTS[config.precision].graph(config.sizes)
    from chargen_ort.graphs.sampler import Alphabet, sampler_graph  # few programs need it

    if config.unit != "char":
        raise ArtifactError(
            f"a sampler writes characters, and the unit of this model is {config.unit}"
        )
    vocabulary = config.vocabulary
    replaces = vocabulary.unknown == "replace"
    alphabet = Alphabet(
        code_points=tuple(map(ord, vocabulary.characters)),
        end=config.end,
        separator=config.separator_token,
        unknown=config.tokens.index(vocabulary.replacement) if replaces else None,
    )
    return sampler_graph(config.sizes, config.precision, alphabet, kind == SAMPLER)


def check_seal(data: bytes) -> str:
    """The seal of a file, recomputed over its bytes.

    Raises:
        ArtifactError: the last entry is not a seal, or not the one of the bytes before it.
    """
    if not _ends_with_seal(data):
        raise ArtifactError(describe_foreign(data[:_PEEK], data[-_PEEK:], SEAL_KEY))
    expected = hashlib.sha256(memoryview(data)[: -len(_SEAL_FORM)]).hexdigest()
    if data[-64:] != expected.encode():
        raise ArtifactError(
            "the seal does not match: the file is damaged or was changed after its export; "
            "copy or export it again"
        )
    return expected


_SEAL_FORM = metadata_entry(SEAL_KEY, "0" * 64)


def _ends_with_seal(data: bytes) -> bool:
    return data[-len(_SEAL_FORM) : -64] == _SEAL_FORM[:-64] and len(data) > len(_SEAL_FORM)


def _read_file(path: Path) -> bytes:
    name = printable(str(path))
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer; O_BINARY: of Windows
        flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        raise ArtifactError(f"no such model file: {name}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {name}: {error.strerror}") from None
    except ValueError:
        raise ArtifactError(f"cannot read {name}: not a path") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ArtifactError(f"{name} is not a regular file; give an .onnx file")
    with open(descriptor, "rb") as file:
        try:
            return _read_regular(file, status, name)
        except OSError as error:
            raise ArtifactError(f"cannot read {name}: {error.strerror}") from None


def _read_regular(file: BinaryIO, status: os.stat_result, name: str) -> bytes:
    try:
        _check_size(status.st_size)
        if status.st_size > _PEEK:  # a large file of another kind is not read whole
            file.seek(-_PEEK, os.SEEK_END)
            tail = file.read(_PEEK)
            file.seek(0)
            if not _ends_with_seal(tail):
                raise ArtifactError(describe_foreign(file.read(_PEEK), tail, SEAL_KEY))
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from None
    return file.read(status.st_size)


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"the file has {size} bytes; the limit is {MAX_FILE_BYTES}")


def _check_keys(metadata: Mapping[str, str], sha256: str) -> None:
    version = metadata.get(FORMAT_KEY)
    if version == "1":
        raise ArtifactError(
            "this is a file of format 1, which only development versions wrote; write it again "
            "with train-export, from its text or from its checkpoint"
        )
    if version is not None and version != str(FORMAT):
        writer = re.search(r"chargen-ort ([0-9][0-9A-Za-z.]{0,30})", metadata.get("author", ""))
        package = f"'chargen-ort>={writer[1]}'" if writer else "chargen-ort"
        raise ArtifactError(
            f"format {shown_value(version)} is not known to this version, which reads format "
            f"{FORMAT}; update with: pip install --upgrade {package}"
        )
    missing = [key for key in KEYS if key not in metadata]
    if missing:
        raise ArtifactError(f"the metadata lacks {', '.join(missing)}; export it with train-export")
    if metadata.get(GRAPH_KEY, SAMPLER) not in (SAMPLER, SAMPLER_UNIFORMS):
        raise ArtifactError(
            f"{GRAPH_KEY} is {shown_value(metadata[GRAPH_KEY])}, which this version does not know; "
            "update with: pip install --upgrade chargen-ort"
        )
    unknown = [key for key in metadata if key not in (*KEYS, *MORE_KEYS)]
    if unknown:
        raise ArtifactError(f"the metadata has a key that is not known: {shown_value(unknown[0])}")
    if list(metadata)[-1] != SEAL_KEY or metadata[SEAL_KEY] != sha256:
        raise ArtifactError("the seal is not the last metadata entry")
    for key in FLAT_KEYS:
        if not re.fullmatch(LINE_PATTERN, metadata[key]) or len(metadata[key]) > MAX_LINE:
            raise ArtifactError(
                f"{key} is {shown_value(metadata[key])}; it must be one line of at most {MAX_LINE} "
                "characters, none of them a control character"
            )

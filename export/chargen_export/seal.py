"""Writing the artifact: metadata and seal appended, then the file replaced in one move."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from chargen_ort.artifact import Artifact, ModelConfig, metadata_bytes, parse_artifact, seal
from chargen_ort.errors import ArtifactError, OptionError

_TEMPORARY_SUFFIX = ".part"


def seal_artifact(
    path: Path,
    model_bytes: bytes,
    config: ModelConfig,
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    properties: Mapping[str, str],
) -> Artifact:
    """Write the artifact: `model_bytes` as they are, then the metadata, then the seal.

    The bytes that parity was proven on are a prefix of the file.

    Raises:
        OptionError: the file cannot be written; the old one, if any, is untouched.
    """
    artifact = assemble_artifact(model_bytes, config, training, parity, properties, str(path))
    write_atomically(path, artifact.data)
    return artifact


def assemble_artifact(
    model_bytes: bytes,
    config: ModelConfig,
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    properties: Mapping[str, str],
    name: str = "the model",
) -> Artifact:
    """The artifact in memory, checked as a reader checks it; `name` is for messages."""
    data = seal(model_bytes + metadata_bytes(config, training, parity, properties))
    onnx.checker.check_model(data, full_check=True)
    return parse_artifact(data, name)


def check_writable(path: Path) -> None:
    """Refuse, before hours of training, a path that cannot be written.

    Raises:
        OptionError: naming the path and the reason.
    """
    if path.is_dir():
        raise OptionError(f"cannot write {path}: it is a directory; give a file name")
    with _as_option_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=_TEMPORARY_SUFFIX, dir=path.parent
        )
        os.close(descriptor)
        os.unlink(name)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, so that at every moment the old or the new file is there, whole.

    A sibling temporary file is written, flushed to the disk, read back and compared, then renamed.
    What an earlier run was killed over is removed.

    Raises:
        OptionError: not writable, or the disk is full.
    """
    with _as_option_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if temporary.read_bytes() != data:
                raise ArtifactError(f"{temporary} does not read back as written; check the disk")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _remove_stale(path: Path) -> None:
    for stale in path.parent.glob(f".{path.name}.*{_TEMPORARY_SUFFIX}"):
        process = stale.name.split(".")[-2]
        if not process.isdigit() or not _is_running(int(process)):
            stale.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a folder cannot be opened elsewhere
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _as_option_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}; choose another --out") from None

"""Writing the artifact: metadata and seal appended, then the file replaced in one move."""

import contextlib
import glob
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import onnx

from chargen_ort.artifact import Artifact, ModelConfig, metadata_bytes, parse_artifact, seal
from chargen_ort.errors import ArtifactError, OptionError

if sys.platform != "win32":
    import fcntl

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
    data = seal(model_bytes + metadata_bytes(config, training, parity, properties))
    onnx.checker.check_model(data, full_check=True)
    artifact = parse_artifact(data, str(path))
    write_atomically(path, data)
    return artifact


def check_writable(path: Path) -> None:
    """Refuse, before hours of training, a path that cannot be written.

    Raises:
        OptionError: naming the path and the reason.
    """
    if path.is_dir():
        raise OptionError(f"cannot write {path}: it is a directory; give a file name")
    with _as_option_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path):
            pass


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
        with _temporary(path) as (file, temporary):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if temporary.read_bytes() != data:
                raise ArtifactError(f"{temporary} does not read back as written; check the disk")
            if sys.platform == "win32":  # there an open file cannot be renamed
                file.close()
            os.replace(temporary, path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside `path`, locked for as long as it is written, and removed afterwards."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_TEMPORARY_SUFFIX}")
        with open(temporary, "xb") as file:
            # another run may have taken it for a stale one before it was locked
            if _lock(file.fileno()) and os.fstat(file.fileno()).st_nlink:
                try:
                    yield file, temporary
                finally:
                    if sys.platform == "win32":
                        file.close()
                    temporary.unlink(missing_ok=True)
                return


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of runs that were killed; those of running ones are locked."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError), open(stale, "rb") as file:
            if _lock(file.fileno()):
                stale.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file, which ends with its process; whether it was free."""
    if sys.platform != "win32":  # there an open file cannot be removed, which is lock enough
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


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

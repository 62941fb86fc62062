"""Writing files so that at every moment the old or the new one is there, whole."""

import contextlib
import errno
import glob
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chargen_ort.errors import ArtifactError, OptionError

if sys.platform != "win32":
    import fcntl

_TEMPORARY_SUFFIX = ".part"


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


def write_atomically(path: Path, data: bytes, previous: Path | None = None) -> None:
    """Replace `path` by `data`, so that at every moment the old or the new file is there, whole.

    A sibling temporary file is written, flushed to the disk, read back and compared, then renamed.
    What an earlier run was killed over is removed. If `previous` is given, the old file is kept
    under that name (and for a moment it is there alone).

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
            if previous is not None and path.exists():
                os.replace(path, previous)
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
        except OSError:  # a file system without locks
            return True
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
        cure = "choose another --out"
        if error.errno == errno.ENOSPC:
            cure = f"free some space, or {cure}"
        raise OptionError(f"cannot write {path}: {error.strerror}; {cure}") from None

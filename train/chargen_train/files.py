"""Writing files so that at every moment the old or the new one is there, whole."""

import contextlib
import errno
import glob
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chargen_ort.errors import ArtifactError, OptionError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TEMPORARY_SUFFIX = ".part"
_LOCKED_BYTE = 1 << 30  # on Windows; far behind what the file holds, which others may read
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def output_path(out: str | Path | None, name: str, folder: Path) -> Path:
    """The file to write for what `--out` says.

    Args:
        out: a file; or, with a slash at its end or if it exists, the folder of the file `name`;
            None means the folder `folder`.
        name: of the file, if `out` does not say it.
        folder: that is meant if nothing is given.

    Raises:
        OptionError: `out` is empty.
    """
    if out is None:
        return folder / name
    if not os.fspath(out):
        raise OptionError("--out is empty; give the name of a file or a folder, or leave it out")
    path = Path(out)
    is_folder = os.path.basename(out) in ("", ".", "..") or path.is_dir()
    return path / name if is_folder else path


def check_writable(path: Path) -> None:
    """Refuse, before hours of training, a path that cannot be written.

    Raises:
        OptionError: naming the path and the reason.
    """
    refuse_special(path)
    with as_option_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path):
            pass


def refuse_special(path: Path) -> None:
    """Refuse a path where there is something that is not a regular file; nothing is opened.

    A link is refused too: replaced, it would be a link no longer, and what it names would go stale.

    Raises:
        OptionError: a folder, link, pipe, socket or device, or a path that cannot be looked at.
    """
    with as_option_error(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        except ValueError:  # a NUL in it
            raise OptionError(f"cannot write {str(path)!a}: it is not a path") from None
    if stat.S_ISREG(mode):
        return
    cure = "choose another --out"
    if stat.S_ISDIR(mode):
        what, cure = "a directory", "give a file name"
    elif stat.S_ISLNK(mode):
        real = os.path.realpath(path)
        what, cure = f"a link to {real}", "name that file itself, or choose another --out"
    elif stat.S_ISFIFO(mode):
        what = "a pipe"
    elif stat.S_ISSOCK(mode):
        what = "a socket"
    else:
        what = "a device"
    raise OptionError(f"cannot write {path}: it is {what}; {cure}")


def write_atomically(path: Path, data: bytes, previous: Path | None = None) -> None:
    """Replace `path` by `data`, so that at every moment the old or the new file is there, whole.

    A sibling temporary file is written, flushed to the disk, read back and compared, then renamed.
    What an earlier run was killed over is removed. If `previous` is given, the old file is kept
    under that name (and for a moment it is there alone).

    Raises:
        OptionError: not writable, no regular file, or the disk is full.
    """
    refuse_special(path)
    with as_option_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        with temporary(path) as (file, beside):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if beside.read_bytes() != data:
                raise ArtifactError(f"{beside} does not read back as written; check the disk")
            if sys.platform == "win32":  # there an open file cannot be renamed
                file.close()
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(beside, path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside `path`, locked for as long as it is written, and removed afterwards."""
    while True:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_TEMPORARY_SUFFIX}")
        with open(beside, "x+b") as file:
            # another run may have taken it for a stale one before it was locked
            if _lock_temporary(file.fileno()) and os.fstat(file.fileno()).st_nlink:
                try:
                    yield file, beside
                finally:
                    if sys.platform == "win32":
                        file.close()
                    beside.unlink(missing_ok=True)
                return


def remove_stale(path: Path) -> None:
    """Remove the temporary files of runs that were killed; those of running ones are locked."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError), open(stale, "rb") as file:
            if _lock_temporary(file.fileno()):
                stale.unlink(missing_ok=True)


def take_lock(descriptor: int) -> bool:
    """Take the lock of an open file, which ends with its process; returns whether it was free.

    On a file system without locks it always is.
    """
    if sys.platform == "win32":
        return _take_lock_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


if sys.platform == "win32":

    def _take_lock_on_windows(descriptor: int) -> bool:
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EDEADLK)
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True


def _lock_temporary(descriptor: int) -> bool:
    """As `take_lock`; on Windows an open file cannot be removed, which is lock enough."""
    return sys.platform == "win32" or take_lock(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a folder cannot be opened elsewhere
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def as_option_error(path: Path) -> Iterator[None]:
    """A context in which the failure to write `path` becomes one line.

    Raises:
        OptionError: naming the path, the reason and the cure.
    """
    try:
        yield
    except OSError as error:
        cure = "choose another --out"
        if error.errno in _NO_SPACE:
            cure = f"free some space, or {cure}"
        raise OptionError(f"cannot write {path}: {error.strerror}; {cure}") from None

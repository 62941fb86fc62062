"""The lock of a run folder: who holds it may write there. It ends with its process."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chargen_ort.errors import OptionError
from chargen_train.files import as_option_error, take_lock

LOCK_NAME = "run.lock"
_MAX_DIGITS = 20


@dataclass(frozen=True)
class FolderLock:
    """A lock that is held.

    Attributes:
        path: of the file that is locked; it holds the number of the process.
        file: open as long as the lock is held.
    """

    path: Path
    file: BinaryIO

    def release(self) -> None:
        """Let others take it; the file is removed."""
        if sys.platform == "win32":  # there an open file cannot be removed
            self.file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.file.close()


def lock_folder(folder: Path) -> FolderLock:
    """Take the lock of a folder that exists.

    Raises:
        OptionError: another run holds it, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    while True:
        with as_option_error(folder):
            file = os.fdopen(os.open(path, _flags(), 0o666), "r+b", buffering=0)
        with contextlib.ExitStack() as stack:
            stack.callback(file.close)
            if not take_lock(file.fileno()):
                raise OptionError(
                    f"{folder} is in use by another run{_describe_holder(file)}; wait until it "
                    "has ended, or choose another --out"
                )
            if not _is_still_at(path, file):
                continue  # its holder removed it, or moved the folder, before it was locked
            stack.pop_all()
        with contextlib.suppress(OSError):  # the number is a courtesy
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        return FolderLock(path, file)


def _flags() -> int:
    # through no link; O_BINARY: of Windows
    return os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _describe_holder(file: BinaryIO) -> str:
    with contextlib.suppress(OSError):
        number = file.read(_MAX_DIGITS).strip()
        if number.isdigit():
            return f" (process {number.decode()})"
    return ""


def _is_still_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False

"""The tokens of a corpus: made once, in bounded pieces, in memory or of a large one in a file.

The file holds the tokens, from its first byte on, in the smallest type; then one JSON text that
says what they are of; and at its end a line with the length of that text and the SHA-256 of all
before. While it is used it is mapped into memory, and what was read of it is given back now and
then, so that a corpus of gigabytes takes no more memory than a short one.
"""

import contextlib
import hashlib
import io
import json
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from chargen_train.files import as_option_error, remove_stale, temporary

Tokens = NDArray[np.unsignedinteger]

IN_MEMORY = 1 << 26  # bytes of tokens that are held in memory; more are put into a file
PIECE = 1 << 20  # tokens handled at a time
_FEW = 1 << 14  # places anywhere in a file that are read as they come …
_SPAN = 1 << 24  # … and tokens of it at a time from which more are read
_FRONT = 4  # tokens of room before the first: `rewrite` may make a text that much longer
_LAST_LINE = "chargen ids 1 {:>12} {}\n"
_LAST = len(_LAST_LINE.format(0, "0" * 64))
_MOST_FACTS = 1 << 26  # bytes of the JSON text


class TokenStore:
    """Takes the tokens of a corpus, gives them new numbers, and keeps them.

    A context: what it has put into a file is gone at its end, unless `keep` was called.

    Args:
        beside: the run folder, beside which the file is made; None makes one without a name.
        kept: a file of the same corpus that may be there already; see `load_tokens`.
    """

    def __init__(self, beside: Path | None = None, kept: Path | None = None) -> None:
        self._beside, self.kept = beside, kept
        self._open = contextlib.ExitStack()
        self._file: BinaryIO = io.BytesIO(bytes(_FRONT))
        self._file.seek(_FRONT)
        self._path: Path | None = None  # of the file, if it has one
        self.dtype: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint8)
        self.length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def in_file(self) -> bool:
        """Whether the tokens are in a file rather than in memory."""
        return not isinstance(self._file, io.BytesIO)

    def append(self, numbers: NDArray[np.integer[Any]]) -> None:
        """Add tokens behind those that are there, none above what `dtype` can hold."""
        data = numbers.astype(self.dtype).data
        size = (_FRONT + self.length) * self.dtype.itemsize + data.nbytes
        if size > IN_MEMORY and not self.in_file:
            self._spill()
        with self._as_error():
            self._file.write(data)
        self.length += len(numbers)

    def cut(self, length: int) -> None:
        """Drop the tokens behind the first `length`."""
        self.length = length
        end = (_FRONT + length) * self.dtype.itemsize
        self._file.truncate(end)
        self._file.seek(end)

    def widen(self, most: int) -> None:
        """Choose a type that holds numbers up to `most`, and rewrite what is there in it."""
        wider = np.min_scalar_type(most)
        if wider.itemsize <= self.dtype.itemsize:
            return
        whole = _FRONT + self.length
        # from the end, as each piece moves to where nothing is left to be read
        for begin in reversed(range(0, whole, PIECE)):
            piece = self._read(begin, min(PIECE, whole - begin))
            with self._as_error():
                self._file.seek(begin * wider.itemsize)
                self._file.write(piece.astype(wider).data)
        self.dtype = wider
        self.cut(self.length)

    def pieces(self, length: int) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """The first tokens, `PIECE` at a time; each is a copy."""
        for begin in range(0, length, PIECE):
            yield self._read(_FRONT + begin, min(PIECE, length - begin))

    def rewrite(
        self, change: Callable[[NDArray[Any], int], NDArray[np.unsignedinteger[Any]]], most: int
    ) -> None:
        """Put in the place of each piece what `change` makes of it, in the smallest type.

        Args:
            change: takes a piece and where it begins; all its results together may be 4 tokens
                longer than what it was given.
            most: the largest number in its results.
        """
        self.widen(most)
        given, dtype = self.dtype, np.min_scalar_type(most)
        written = 0
        for begin in range(0, self.length, PIECE):
            self.dtype = given
            piece = self._read(_FRONT + begin, min(PIECE, self.length - begin))
            changed = change(piece, begin).astype(dtype)
            with self._as_error():
                self._file.seek(written * dtype.itemsize)
                self._file.write(changed.data)
            written += len(changed)
        self._file.truncate(written * dtype.itemsize)
        self.dtype, self.length = dtype, written

    def close(self, facts: Mapping[str, Any]) -> Tokens:
        """The tokens after `rewrite`, ``[tokens]``, not to be changed; no more can be added.

        Args:
            facts: what they are of, ready for JSON; they stand in the file, if there is one.
        """
        if isinstance(self._file, io.BytesIO):
            tokens = np.frombuffer(self._file.getbuffer(), self.dtype, self.length)
            tokens.flags.writeable = False
            return tokens
        digest = hashlib.sha256()
        self._file.seek(0)
        for piece in iter(lambda: self._file.read(PIECE), b""):
            digest.update(piece)
        text = json.dumps({"type": self.dtype.name, "length": self.length, **facts}).encode()
        digest.update(text)
        with self._as_error():
            self._file.write(text + _LAST_LINE.format(len(text), digest.hexdigest()).encode())
            self._file.flush()
        return _mapped(self._file, self.dtype, self.length)

    def keep(self, path: Path) -> None:
        """Give the file the name `path`, where a run that is resumed looks for it.

        On Windows, where an open file cannot be renamed, and in memory nothing is kept.

        Raises:
            OptionError: it cannot be written.
        """
        if self._path is not None and sys.platform != "win32":
            with as_option_error(path):
                os.replace(self._path, path)

    def _spill(self) -> None:
        """Go on in a file."""
        held = self._file
        assert isinstance(held, io.BytesIO)
        with self._as_error():
            if self._beside is None:
                file: Any = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            else:
                self._beside.parent.mkdir(parents=True, exist_ok=True)
                remove_stale(self._name)
                file, self._path = self._open.enter_context(temporary(self._name))
            file.write(held.getbuffer())
        self._file = file

    @property
    def _name(self) -> Path:
        assert self._beside is not None
        return self._beside.with_name(f"{self._beside.name}.ids")

    def _read(self, begin: int, count: int) -> NDArray[np.unsignedinteger[Any]]:
        self._file.seek(begin * self.dtype.itemsize)
        return np.frombuffer(self._file.read(count * self.dtype.itemsize), self.dtype)

    def _as_error(self) -> contextlib.AbstractContextManager[None]:
        return as_option_error(self._path or self._beside or Path(tempfile.gettempdir()))


def load_tokens(path: Path) -> tuple[Tokens, dict[str, Any]] | None:
    """The tokens in a file that `TokenStore.keep` named, mapped into memory, and what they are of.

    None where there is no such file, or it is damaged.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LAST))
        *name, length, digest = file.read().decode().split()
        at = size - _LAST - int(length)
        if name != _LAST_LINE.split()[:3] or not 0 <= at <= size - _LAST < at + _MOST_FACTS:
            return None
        found = hashlib.sha256()
        file.seek(0)
        left = size - _LAST
        while left:
            piece = file.read(min(PIECE, left))
            found.update(piece)
            left -= len(piece) or left
        if found.hexdigest() != digest:
            return None
        file.seek(at)
        facts = json.loads(file.read(int(length)))
        dtype = np.dtype(facts["type"])
        return _mapped(file, dtype, at // dtype.itemsize), facts
    return None


def look_up(table: NDArray[Any], places: NDArray[Any], most: int) -> NDArray[Any]:
    """What stands in a table at each place, numbers up to `most`: of bytes, ten times as fast."""
    if places.dtype != np.uint8 or most > 255:
        return np.asarray(table[places])
    as_bytes = np.zeros(256, dtype=np.uint8)
    as_bytes[: len(table)] = table[:256]
    return np.frombuffer(places.tobytes().translate(as_bytes.tobytes()), dtype=np.uint8)


def in_pieces(tokens: Tokens, size: int = PIECE, overlap: int = 0) -> Iterator[tuple[int, Tokens]]:
    """Where each piece of a text begins, and the piece, a view; what was read is given back.

    Args:
        tokens: ``[tokens]``.
        size: tokens of each.
        overlap: tokens that a piece has besides, which the next one begins with.
    """
    for begin in range(0, len(tokens), size):
        yield begin, tokens[begin : begin + size + overlap]
        give_back(tokens)


def gather(tokens: Tokens, places: NDArray[np.int64]) -> Tokens:
    """The tokens at any places, in the shape of `places`.

    Many that lie anywhere in a file are read in its order: around each the system reads 64 kB,
    which would be all of the file in the end, and what is behind is given back.
    """
    if places.size <= _FEW or _mapping(tokens) is None:
        return np.asarray(tokens[places])
    flat = places.ravel()
    order = np.argsort(flat)
    found = np.empty(flat.shape, dtype=tokens.dtype)
    edges = np.searchsorted(flat, np.arange(0, len(tokens), _SPAN), sorter=order)
    for some in np.split(order, edges[1:]):
        found[some] = tokens[flat[some]]
        give_back(tokens)
    return found.reshape(places.shape)


def give_back(tokens: Tokens) -> None:
    """Let the system take the memory of what was read of tokens in a file; it reads them again."""
    mapping = _mapping(tokens)
    if mapping is not None and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(tokens: Tokens) -> mmap.mmap | None:
    """The file in memory that tokens are of, if they are."""
    base: Any = tokens
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base


def _mapped(file: BinaryIO, dtype: np.dtype[Any], length: int) -> Tokens:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, length)

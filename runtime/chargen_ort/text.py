"""Reading a text the same way everywhere, whatever wrote it, without holding it twice.

UTF-8 is read, and what names itself: UTF-16 and UTF-32 with a byte order mark, and gzip with any
of these inside. Everything else is refused with its cure. Byte order marks are dropped wherever
they stand; every run of carriage returns before a line feed, and every lone carriage return,
becomes one line feed.
"""

import contextlib
import gzip
import hashlib
import io
import os
import select
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from chargen_ort.decoding import Decoder, LineEnds
from chargen_ort.errors import CorpusError
from chargen_ort.foreign import GZIP, Source, iconv_name, marked_encoding, refuse_foreign

CHUNK = 1 << 20  # bytes read at a time
MAX_UNPACKED = 1 << 30  # bytes of what has no size to look at first: out of gzip, or from a pipe
_HEAD = 1 << 16  # bytes that are looked at to tell what they are
_WRITER_SECONDS = 2.0  # that a named pipe may take to get a writer


@dataclass(frozen=True)
class Text:
    """A text that was read.

    Attributes:
        text: its characters.
        sha256: of the bytes as they are on disk, hexadecimal.
        notes: a line for people about what was not plain UTF-8 with LF line ends; else nothing.
    """

    text: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_text(path: Path) -> Text:
    """The text of a file.

    Raises:
        CorpusError: see `open_text` and `TextReader`.
    """
    with open_text(path) as reader:
        text = "".join(reader)
        return Text(text, reader.sha256, reader.notes)


def read_stream(file: BinaryIO, name: str) -> Text:
    """The text of an open binary file, read to its end; `name` is for messages.

    Raises:
        CorpusError: see `TextReader`; also if there are more than `MAX_UNPACKED` bytes.
    """
    with as_corpus_error(name):
        reader = TextReader(file, Source(name), MAX_UNPACKED)
        text = "".join(reader)
        return Text(text, reader.sha256, reader.notes)


def decode_text(data: bytes, name: str) -> str:
    """The text in `data`; `name` says in messages where it came from.

    Raises:
        CorpusError: see `TextReader`.
    """
    return read_stream(io.BytesIO(data), name).text


@contextlib.contextmanager
def open_live(file: BinaryIO, name: str) -> Iterator["TextReader"]:
    """Read an open binary file as it comes, of any length; `name` is for messages.

    Raises:
        CorpusError: see `TextReader`.
    """
    with as_corpus_error(name):
        yield TextReader(file, Source(name), live=True)


@contextlib.contextmanager
def open_text(
    path: Path, encoding: str | None = None, asks: bool = False, live: bool = False
) -> Iterator["TextReader"]:
    """Open a file to read its text in pieces; with `live`, as it comes and of any length.

    Regular files are read, and pipes that somebody writes to, so that ``<(command)`` and
    ``/dev/stdin`` work; a named pipe that has no writer after two seconds is refused, as are
    devices and sockets, because some of them never end.

    Args:
        path: of the file.
        encoding, asks: see `TextReader`.

    Raises:
        CorpusError: no such file, none that is read, not readable, or the memory does not suffice
            for what is done with it; also whatever `TextReader` raises.
    """
    with as_corpus_error(str(path)):
        if "\0" in str(path):  # no file has such a name, and os.stat raises ValueError
            raise CorpusError(f"no such file: {str(path)!r}")
        _refuse_kind(path, os.stat(path).st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            _refuse_kind(path, mode)
            if not stat.S_ISFIFO(mode):
                source = Source(str(path), path, asks=asks)
                yield TextReader(file, source, encoding=encoding, live=live)
                return
            begin = _await_writer(file.fileno(), path)
            os.set_blocking(file.fileno(), True)
            limit = None if live else MAX_UNPACKED
            source = Source(str(path), asks=asks)
            yield TextReader(file, source, limit, begin=begin, encoding=encoding, live=live)


class TextReader:
    """Gives the text of a binary file in pieces, once.

    Iterating raises CorpusError at the end if the bytes are not a text in UTF-8, or in UTF-16 or
    UTF-32 with a byte order mark; if it contains NULs; if gzip is damaged; or if more than the
    limit comes out. The pieces before then are of a text that is not whole.

    Args:
        file: gives bytes until its end.
        source: what messages call it.
        limit: bytes that may come, after unpacking; what is unpacked from gzip always has one.
        size: bytes that are decoded at a time.
        begin: bytes that were read from the file before.
        encoding: of the text, a name that Python knows; None is UTF-8, or what a mark says. Where
            the command has an option for it, the source says so.
        live: whether to give what a pipe has, rather than to wait until it has as much as `size`.
    """

    def __init__(
        self,
        file: BinaryIO,
        source: Source,
        limit: int | None = None,
        size: int = CHUNK,
        begin: bytes = b"",
        encoding: str | None = None,
        live: bool = False,
    ) -> None:
        self._raw = _Raw(file, begin, live)
        self._given = encoding
        self._source = source
        self._limit = limit
        self._size = size
        self._line_ends = LineEnds()
        self._encoding = "utf-8"
        self._over = False

    def __iter__(self) -> Iterator[str]:
        chunks = self._chunks()
        head = next(chunks, b"")
        self._encoding, skip = (self._given, 0) if self._given else marked_encoding(head)
        if not skip:
            refuse_foreign(head, self._source, self._encoding)
        self._line_ends.marks += skip > 0 and self._encoding == "utf-8"
        decoder = Decoder(self._encoding, skip, self._given is not None)
        for chunk in self._cut(head[skip:], chunks):
            piece = self._line_ends.feed(decoder.feed(chunk))
            if piece and not decoder.failed:
                yield piece
        decoder.refuse(self._source)
        if self._over:
            packed = self._source.packed and self._source.path is not None
            cure = f"unpack it with: {self._source.through()}" if packed else "write it to a file"
            raise CorpusError(
                f"{self._source.name} has more than {self._limit:,} bytes of text, the limit for "
                f"what is packed or comes from a pipe; {cure}"
            )
        piece = self._line_ends.feed(decoder.feed(b"", final=True), final=True)
        decoder.refuse(self._source)
        if piece:
            yield piece

    @property
    def read(self) -> int:
        """Bytes that were read so far, as they are on disk."""
        return self._raw.size

    @property
    def sha256(self) -> str:
        """Of the bytes that were read, as they are on disk; hexadecimal."""
        return self._raw.hash.hexdigest()

    @property
    def bytes_read(self) -> int:
        """How many bytes were read so far, as they are on disk."""
        return self._raw.size

    @property
    def notes(self) -> tuple[str, ...]:
        """After the last piece: at most one line about what was changed, for people."""
        parts = ["unpacked from gzip"] if self._source.packed else []
        if self._encoding != "utf-8":
            parts.append(f"read as {iconv_name(self._encoding)}")
        parts += self._line_ends.changes()
        return (", ".join(parts),) if parts else ()

    def _chunks(self) -> Iterator[bytes]:
        """The bytes, unpacked if they were packed; those that show what they are come first."""
        file: _Raw | gzip.GzipFile = self._raw
        if self._raw.peek(len(GZIP)) == GZIP:
            self._source = replace(self._source, packed=True)
            self._limit = MAX_UNPACKED if self._limit is None else self._limit
            file = gzip.GzipFile(fileobj=self._raw, mode="rb")
        total, size = 0, _HEAD
        with _as_gzip_error(self._source.name):
            while chunk := file.read(size):
                total, size = total + len(chunk), max(self._size, _HEAD)
                if self._limit is not None and total > self._limit:
                    self._over = True
                    return
                yield chunk

    def _cut(self, head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """`head` and `chunks` in parts of at most the size given."""
        for begin in range(0, len(head), self._size):
            yield head[begin : begin + self._size]
        for chunk in chunks:
            if len(chunk) <= self._size:
                yield chunk
                continue
            for begin in range(0, len(chunk), self._size):
                yield chunk[begin : begin + self._size]


class _Raw:
    """Bytes as they are on disk, hashed as they are read."""

    def __init__(self, file: BinaryIO, begin: bytes, live: bool) -> None:
        self.hash = hashlib.sha256(begin)
        self.size = len(begin)
        self._read = cast("io.BufferedReader", file).read1 if live else file.read
        self._live = live
        self._waiting = begin
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        begin = self._waiting if size < 0 else self._waiting[:size]
        self._waiting = self._waiting[len(begin) :]
        missing = size - len(begin)
        # asked again after its end, a terminal would wait for more
        if missing == 0 or self._ended:
            return begin
        data = self._read(missing if size >= 0 else -1)
        self._ended = size < 0 or len(data) < (1 if self._live else missing)
        self.hash.update(data)
        self.size += len(data)
        return begin + data if begin else data

    def peek(self, size: int) -> bytes:
        self._waiting = self.read(max(size, len(self._waiting)))
        return self._waiting[:size]

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")


def _refuse_kind(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise CorpusError(f"{path} is a directory; give a text file")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise CorpusError(f"{path} is a device, which may have no end; give a text file")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise CorpusError(f"{path} is a socket or the like; give a text file")


def _await_writer(descriptor: int, path: Path) -> bytes:
    """Wait until somebody writes to a pipe; returns bytes that were read meanwhile."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if poll.poll(1000 * _WRITER_SECONDS):
        return b""
    try:
        begin = os.read(descriptor, _HEAD)
    except BlockingIOError:  # there is a writer, which takes its time
        return b""
    if not begin:
        raise CorpusError(
            f"{path} is a pipe that nobody writes to; give a file, or start its writer first"
        )
    return begin


@contextlib.contextmanager
def _as_gzip_error(name: str) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise CorpusError(f"{name} is a gzip file that breaks off; copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(
            f"{name} is a gzip file that is damaged ({error}); copy it again"
        ) from None


@contextlib.contextmanager
def as_corpus_error(name: str) -> Iterator[None]:
    """A context in which what goes wrong with a text, `name`, becomes one line."""
    try:
        yield
    except FileNotFoundError:
        raise CorpusError(f"no such file: {name}") from None
    except OSError as error:
        raise CorpusError(f"cannot read {name}: {error.strerror}") from None
    except MemoryError:
        try:
            size = f"{os.stat(name).st_size:,} bytes"
        except (OSError, ValueError):
            size = "of unknown size"
        raise CorpusError(
            f"there is not enough memory to read {name} ({size}); give a smaller text"
        ) from None

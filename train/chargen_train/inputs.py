"""What a corpus is read from: files, the files of folders, and standard input, in their order."""

import codecs
import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chargen_ort.checks import printable
from chargen_ort.errors import CorpusError
from chargen_ort.foreign import GZIP, Source, marked_encoding, refuse_foreign
from chargen_ort.text import MAX_UNPACKED, TextReader, as_corpus_error, open_text

STDIN = Path("-")
_HEAD = 1 << 16  # bytes that tell whether a file can be a text
_SHOWN = 5  # names in a line
_NO_TEXTS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")


@dataclass(frozen=True)
class Input:
    """Something to read a text from.

    Attributes:
        path: of a file, or `STDIN`.
        name: of the file; of one in a folder, its path within it, after the folder's name.
        size: bytes that are known to come; 0 if that is not known.
    """

    path: Path
    name: str = "stdin"
    size: int = 0

    def __str__(self) -> str:
        return "standard input" if self.path == STDIN else str(self.path)

    @contextlib.contextmanager
    def open(self, encoding: str | None) -> Iterator[TextReader]:
        """Open it to read its text in pieces.

        Raises:
            CorpusError: see `chargen_ort.text.open_text`.
        """
        if self.path != STDIN:
            with open_text(self.path, encoding, asks=True) as reader:
                yield reader
            return
        with as_corpus_error(str(self)):
            source = Source(str(self), asks=True)
            yield TextReader(sys.stdin.buffer, source, MAX_UNPACKED, encoding=encoding)


def find_inputs(paths: Sequence[Path]) -> tuple[Input, ...]:
    """What is read for the names on a command line, in their order.

    In the place of a folder stand its files and those of the folders in it, sorted by their paths
    within it. What is hidden, that is, begins with a dot, is left out, and links to folders are not
    followed.

    Raises:
        CorpusError: a file that is there twice (by whatever name or link), standard input that is
            a terminal or there twice, a folder that cannot be read or without files.
    """
    found: list[Input] = []
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        if path == STDIN:
            if Input(STDIN) in found:
                raise CorpusError("standard input is given twice, and can be read once; give one -")
            if sys.stdin is None or sys.stdin.isatty():
                raise CorpusError(
                    "standard input is a terminal; send a text into it, for example with: "
                    "train-export - < corpus.txt"
                )
            found.append(Input(STDIN))
            continue
        is_folder = path.is_dir()
        for file in _files_of(path) if is_folder else (path,):
            name = (
                str(Path(path.resolve().name) / file.relative_to(path)) if is_folder else path.name
            )
            try:
                status = os.stat(file)
            except (OSError, ValueError):  # told when it is opened
                found.append(Input(file, name))
                continue
            first = seen.setdefault((status.st_dev, status.st_ino), file)
            if stat.S_ISREG(status.st_mode) and first is not file:
                raise CorpusError(f"{file} is the same file as {first}; give it once")
            found.append(Input(file, name, status.st_size if stat.S_ISREG(status.st_mode) else 0))
    return tuple(found)


def refuse_missing(paths: Sequence[Path]) -> None:
    """Look whether what is named on a command line is there.

    Raises:
        CorpusError: naming the first that is not.
    """
    for path in paths:
        if path != STDIN:
            with as_corpus_error(str(path)):
                os.stat(path)


def _files_of(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise CorpusError(f"cannot read {error.filename}: {error.strerror}")

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    if not files:
        raise CorpusError(f"{folder} has no files (hidden ones are not read); give a text file")
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def refuse_unreadable(inputs: Sequence[Input], encoding: str | None) -> None:
    """Look at how several files begin, and name all that are no texts, before any is read.

    Raises:
        CorpusError: naming them, and why the first of them is none.
    """
    if len(inputs) < 2:
        return
    bad = [(each, reason) for each in inputs if (reason := _unreadable(each, encoding))]
    if bad:
        raise CorpusError(
            f"{describe_many([each for each, _ in bad])}, of {len(inputs):,} files, cannot be read "
            f"as text ({bad[0][1]}); take {'it' if len(bad) == 1 else 'them'} out, or give "
            "--skip-unreadable"
        )


def _unreadable(each: Input, encoding: str | None) -> str:
    """Why what a file begins with is no text; empty where it is one, or cannot be told yet."""
    if each.path == STDIN or not each.size:
        return ""
    try:
        with open(each.path, "rb") as file:
            head = file.read(_HEAD)
        if head.startswith(GZIP):
            return ""
        marked, skip = marked_encoding(head)
        if not skip:
            refuse_foreign(head, Source(each.path.name), encoding or "utf-8")
        decoder = codecs.getincrementaldecoder(encoding or marked)()
        if "\0" in decoder.decode(head[0 if encoding else skip :]):
            return f"{each.path.name} has NUL characters"
    except OSError as error:
        return f"cannot read {each.path.name}: {error.strerror}"
    except UnicodeError:
        return f"{each.path.name} is not {encoding or 'UTF-8'}"
    except CorpusError as error:
        return str(error).split(";")[0]
    return ""


def describe_many(inputs: Sequence[object]) -> str:
    """The first names, and how many there are besides."""
    names = ", ".join(printable(str(each), 200) for each in inputs[:_SHOWN])
    more = len(inputs) - _SHOWN
    return f"{names} and {more:,} more" if more > 0 else names


def corpus_name(paths: Path | Sequence[Path]) -> str:
    """What a corpus is called: names.txt and names.txt.gz both names, several by their first."""
    first, *more = [paths] if isinstance(paths, Path) else paths
    if first == STDIN:
        name = "stdin"
    elif first.is_dir():
        name = first.resolve().name or "corpus"
    else:
        name = Path(first.stem).stem if first.suffix.lower() == ".gz" else first.stem
    return f"{name}-and-{len(more):,}-more" if more else name


def combined_sha256(hashes: Sequence[str]) -> str:
    """One SHA-256 for several files: of their hexadecimal digits, a line each, in their order.

    That of a single file is its own. ``sha256sum a b | cut -c-64 | sha256sum`` gives the same.
    """
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(f"{each}\n" for each in hashes).encode()).hexdigest()


def check_encoding(name: str) -> str:
    """Python's name of an encoding of texts; empty where there is no such encoding."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return ""
    is_text = getattr(found, "_is_text_encoding", True) and found.incrementaldecoder is not None
    return found.name if is_text and found.name.replace("_", "-") not in _NO_TEXTS else ""

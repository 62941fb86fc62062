"""What bytes are that are not plain UTF-8 text, or not a model, and the cure."""

import codecs
import shlex
from dataclasses import dataclass
from pathlib import Path

from chargen_ort.errors import ArtifactError, CorpusError
from chargen_ort.protobuf import fields

GZIP = b"\x1f\x8b"
_PACKED_SUFFIXES = {".gz", ".bz2", ".xz", ".zst", ".lz", ".lz4", ".z"}

# UTF-32 first: the mark of UTF-32 LE begins with that of UTF-16 LE
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# the marks of UTF-16 read as Latin-1, written as UTF-8
_MISTAKEN = ("\xff\xfe".encode(), "\xfe\xff".encode())

# where, the bytes there, what has them there, and the filter that unpacks it
_PACKED = (
    (0, GZIP, "a gzip file", "gzip -dc"),
    (0, b"\x1f\x9d", "a file of compress", "gzip -dc"),
    (4, b"1AY&SY", "a bzip2 file", "bzip2 -dc"),
    (0, b"\xfd7zXZ\0", "an xz file", "xz -dc"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -dc"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", "lz4 -dc"),
    (0, b"LZIP\x01", "a lzip file", "lzip -dc"),
)
# as above, with the command that takes the file's name
_ARCHIVES = (
    (0, b"PK\x03\x04", "a zip archive", "unzip"),
    (0, b"PK\x05\x06", "a zip archive", "unzip"),
    (257, b"ustar", "a tar archive", "tar -xf"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x"),
    (0, b"Rar!\x1a\x07", "a rar archive", "unrar x"),
)
# as above, with the cure in words
_DOCUMENTS = (
    (0, b"%PDF-", "a PDF document", "take its text out first, for example with pdftotext"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document", "save it as plain text first"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", "give a text file"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "give a text file"),
    (0, b"GIF87a", "a GIF picture", "give a text file"),
    (0, b"GIF89a", "a GIF picture", "give a text file"),
    (0, b"\x7fELF", "a program", "give a text file"),
    (0, b"SQLite format 3\0", "an SQLite database", "export its text first"),
    (0, b"PAR1", "a Parquet table", "export its text first"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "export its text first"),
    (0, b"\x93NUMPY", "a NumPy array", "give a text file"),
)
_OFFICE_SUFFIXES = {".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".epub"}  # zip archives
# in the place of a model: the first bytes, and what has them
_MODELS = (
    (b"PK\x03\x04", "a ZIP archive or PyTorch checkpoint"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"GGUF", "a GGUF model"),
    (GZIP, "gzip data"),
    (b"\x89PNG", "a picture"),
    (b"%PDF", "a PDF document"),
)

_LATIN = 0x100  # code points below have a zero byte in UTF-16
_MANY = 8  # zero bytes that say more than chance, where they are few among others


@dataclass(frozen=True)
class Source:
    """Where bytes come from, for messages.

    Attributes:
        name: for people.
        path: of a file that a command can read again; None for a pipe.
        packed: whether the text stands in it as gzip.
        asks: whether the command has an option --encoding.
    """

    name: str
    path: Path | None = None
    packed: bool = False
    asks: bool = False

    def through(self, *filters: str) -> str:
        """The command line that sends this through `filters` into a new file, quoted."""
        if self.packed:
            filters = ("gzip -dc", *filters)
        if self.path is None:
            return " | ".join(filters)
        first, *others = filters
        file, out = shlex.quote(str(self.path)), shlex.quote(str(_free_name(self.path)))
        return " | ".join([f"{first} < {file}", *others]) + f" > {out}"


def marked_encoding(head: bytes) -> tuple[str, int]:
    """The encoding that a byte order mark at the start names, and the mark's length.

    UTF-8 and 0 where there is no mark.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def refuse_foreign(head: bytes, source: Source, encoding: str = "utf-8") -> None:
    """Refuse what its first bytes show to be something else than a text in UTF-8.

    Args:
        head: the first bytes, unpacked if they were packed; more are a surer sign.
        source: where they come from.
        encoding: of the text, if it is another one.

    Raises:
        CorpusError: an archive, a picture, a program and the like, or UTF-16 or UTF-32 without a
            byte order mark; the message has the cure.
    """
    inside = " inside gzip" if source.packed else ""
    for offset, magic, kind, unpack in _PACKED:
        if _has(head, offset, magic):
            cure = f"unpack it first with: {source.through(unpack)}"
            raise CorpusError(f"{source.name} is {kind}{inside}; {cure}")
    for offset, magic, kind, unpack in _ARCHIVES:
        if _has(head, offset, magic):
            raise CorpusError(f"{source.name} is {kind}{inside}; {_unpack(unpack, source)}")
    for offset, magic, kind, cure in _DOCUMENTS:
        if _has(head, offset, magic):
            raise CorpusError(f"{source.name} is {kind}{inside}; {cure}")
    if encoding != "utf-8":
        return
    if head.startswith(_MISTAKEN) and 0 in head:
        raise CorpusError(
            f"{source.name} looks like UTF-16 that was converted as if it were Latin-1; "
            "give the file that it was made of"
        )
    guess = unmarked_encoding(head)
    if guess:
        cure = source.through(f"iconv -f {guess} -t UTF-8")
        option = f"give --encoding {guess}, or " if source.asks else ""
        raise CorpusError(
            f"{source.name} looks like {guess} without a byte order mark; {option}convert it with: "
            f"{cure}"
        )


def unmarked_encoding(head: bytes) -> str | None:
    """UTF-16LE, UTF-16BE, UTF-32LE or UTF-32BE if zero bytes betray it, else None."""
    zeros = head.count(0)
    if not zeros:
        return None
    for name in ("UTF-32LE", "UTF-32BE"):
        if _decodes(head, name, 4):
            return name
    odd = head[1::2].count(0)
    share, name = max((odd, "UTF-16LE"), (zeros - odd, "UTF-16BE"))
    enough = 4 * zeros >= len(head) or zeros >= _MANY
    if enough and 10 * share >= 9 * zeros and _decodes(head, name, 2):
        return name
    return None


def describe_foreign(head: bytes, tail: bytes, seal_key: str) -> str:
    """One helpful sentence about a file that does not end with a seal, from its two ends."""
    start = head.lstrip()[:64].lower()
    if not head:
        return "the file is empty; copy or export it again"
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the model; run: git lfs pull"
    if start.startswith(b"<"):
        return "this is an HTML or XML page, not a model; download the raw file"
    for magic, what in _MODELS:
        if head.startswith(magic):
            return f"this is {what}, not an .onnx file; export one with train-export"
    if seal_key.encode() in tail:
        return "the seal is not the last thing in the file: it is cut off or was added to"
    if _looks_like_onnx(memoryview(head)):
        return (
            "no seal: an ONNX model of another program, or one that was cut off or saved again; "
            "train-export writes the models that run here"
        )
    return "no seal: not a model that train-export wrote, or cut off; export it with train-export"


def iconv_name(encoding: str) -> str:
    """What iconv calls an encoding of `marked_encoding`; utf-16-le is UTF-16LE."""
    return encoding.upper().replace("-LE", "LE").replace("-BE", "BE")


def _has(head: bytes, offset: int, magic: bytes) -> bool:
    if head[offset : offset + len(magic)] != magic:
        return False
    # what could be the start of a text counts only if the rest is none
    return not magic.isalnum() or 0 in head


def _unpack(command: str, source: Source) -> str:
    if source.path is None:
        return "unpack it first"
    if source.path.suffix.lower() in _OFFICE_SUFFIXES:
        return "if it is an office document, save it as plain text first"
    if source.packed:
        command = "tar -xzf" if command == "tar -xf" else f"gzip -d, and then {command},"
    return f"unpack it first with: {command} {shlex.quote(str(source.path))}"


def _decodes(head: bytes, encoding: str, width: int) -> bool:
    """Whether the whole units in `head` are text in `encoding`, without NULs."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(head[: len(head) // width * width])
    except UnicodeDecodeError:
        return False
    return bool(text) and "\0" not in text and min(map(ord, text)) < _LATIN


def _free_name(path: Path) -> Path:
    """A name beside `path` that no file has, for its text in UTF-8."""
    name = Path(path.name)
    if name.suffix.lower() in _PACKED_SUFFIXES:
        name = Path(name.stem)
    count = 1
    while True:
        number = "" if count == 1 else f"-{count}"
        free = path.with_name(f"{name.stem}.utf8{number}{name.suffix or '.txt'}")
        if not free.exists():
            return free
        count += 1


def _looks_like_onnx(head: memoryview) -> bool:
    try:
        first = next(fields(head))
    except ArtifactError:
        return False
    return first.number == 1 and isinstance(first.value, int)  # ir_version

"""From bytes to characters with LF line ends, a piece at a time, in any pieces."""

import codecs
import re

from chargen_ort.errors import CorpusError
from chargen_ort.foreign import Source, iconv_name

_MARK = "\ufeff"
_RUNS = re.compile(r"(?<!\r)\r{2,}+\n")  # possessive and anchored: linear on any text
_NOT_CP1252 = b"\x81\x8d\x8f\x90\x9d"


class Decoder:
    """Turns bytes into characters, and where they are none tells why, judged over all of them.

    Args:
        encoding: one of `chargen_ort.foreign.marked_encoding`, or what the user gave.
        offset: of the first byte that it is given, counted from the beginning.
        given: whether the user gave the encoding.
    """

    def __init__(self, encoding: str, offset: int, given: bool = False) -> None:
        self._encoding, self._given = encoding, given
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._skipped = self._bytes = offset
        self._characters = 0
        self._nuls, self._first_nul = 0, 0
        self._bad: tuple[int, int] | None = None  # the first byte that cannot be, and its offset
        self._bad_count = 0
        self._cp1252 = True  # whether all bytes since the first bad one could be

    @property
    def failed(self) -> bool:
        """Whether something was no text."""
        return self._nuls > 0 or self._bad is not None

    def feed(self, data: bytes, final: bool = False) -> str:
        """The characters that `data` completes; they are not to be used after a failure."""
        if self._given and self._bad is not None:
            return ""
        try:
            text = self._decoder.decode(data, final)
        except UnicodeError as error:
            if not isinstance(error, UnicodeDecodeError):  # UTF-16 without the mark that it needs
                self._bad, self._bad_count = (data[0], self._bytes), 1
                return ""
            offset = self._bytes + len(data) - len(error.object) + error.start
            self._bad = (error.object[error.start], offset)
            self._cp1252 = _may_be_cp1252(error.object)
            # go on, to see what it may be instead
            escape = "surrogateescape" if self._encoding == "utf-8" else "replace"
            if self._given:
                return ""  # it was the user who said what it is
            self._decoder.errors = escape
            text = self._decoder.decode(data, final)
        if self._bad is not None and not self._given:
            self._bad_count += len(text) - len(text.encode("utf-8", "ignore").decode())
            self._cp1252 = self._cp1252 and _may_be_cp1252(data)
        if "\0" in text:
            if not self._nuls:
                self._first_nul = self._characters + text.index("\0")
            self._nuls += text.count("\0")
        self._bytes += len(data)
        self._characters += len(text)
        return text

    def refuse(self, source: Source) -> None:
        """Raise CorpusError, with the cure, if what was fed so far is no text."""
        if self._nuls:
            raise CorpusError(f"{source.name} has {self._nul_message(source)}")
        if self._bad is None:
            return
        byte, offset = self._bad
        unpacked = " after unpacking" if source.packed else ""
        where = f"byte 0x{byte:02x} at offset {offset}{unpacked}"
        if self._given:
            raise CorpusError(
                f"{source.name} is not in {self._encoding}, as --encoding says: {where}; give its "
                "own encoding, or leave --encoding out"
            )
        if self._encoding != "utf-8":
            name = iconv_name(self._encoding)
            raise CorpusError(
                f"{source.name} is not the {name} that its byte order mark says: {where}; leave "
                f"out what is damaged with: {source.through(f'iconv -c -f {name} -t UTF-8')}"
            )
        # bytes that characters of several bytes have beyond their first
        continued = self._bytes - self._skipped - self._characters
        if continued > self._bad_count:
            drop = source.through("iconv -c -f UTF-8 -t UTF-8")
            cure = f"most of it is, so leave out what is damaged with: {drop}"
        elif self._cp1252:
            convert = source.through("iconv -f CP1252 -t UTF-8")
            option = "give --encoding cp1252, or " if source.asks else ""
            cure = f"if it is Western European text of Windows, {option}convert it with: {convert}"
        else:
            option = "give its --encoding, or " if source.asks else ""
            cure = f"nor can it be CP1252; {option}save it as UTF-8 in the program that wrote it"
        raise CorpusError(f"{source.name} is not UTF-8: {where}; {cure}")

    def _nul_message(self, source: Source) -> str:
        many = f"{self._nuls:,} NUL character{'s' if self._nuls > 1 else ''}"
        where = f"{many}, the first at position {self._first_nul:,} (in characters, from 0)"
        if self._bad is not None:
            return f"{where}, and bytes that are not UTF-8: it is no text; give a text file"
        filters = ["tr -d '\\000'"]
        if self._encoding != "utf-8":
            filters.insert(0, f"iconv -f {iconv_name(self._encoding)} -t UTF-8")
        return f"{where}, which no text has; leave them out with: {source.through(*filters)}"


def _may_be_cp1252(data: bytes) -> bool:
    return not any(byte in data for byte in _NOT_CP1252)


class LineEnds:
    """Makes every line end LF and drops byte order marks, and counts both.

    Attributes:
        marks: byte order marks so far.
    """

    def __init__(self) -> None:
        self.marks = 0
        self._pairs = self._runs = self._lone = 0
        self._held = 0  # carriage returns at the end, until it is known what follows

    def feed(self, text: str, final: bool = False) -> str:
        """What `text` becomes, but for what depends on the text that follows."""
        if _MARK in text:
            self.marks += text.count(_MARK)
            text = text.replace(_MARK, "")
        if not self._held and "\r" not in text:
            return text
        body = text.rstrip("\r")
        before, after = self._held, len(text) - len(body)
        if not body:
            self._held += after
            return self._release() if final else ""
        self._held = after
        rest = body.lstrip("\r")
        if before and rest[0] == "\n":
            before += len(body) - len(rest)
            self._runs += before > 1
            self._pairs += before == 1
            before, body = 0, rest
        self._lone += before
        body = "\n" * before + self._replace(body)
        return body + self._release() if final else body

    def changes(self) -> list[str]:
        """What was changed, counted; nothing where nothing was."""
        kinds = ((self._pairs, "CR LF"), (self._runs, "CR CR LF"), (self._lone, "CR"))
        found = [f"{count:,} {kind}" for count, kind in kinds if count]
        changes = []
        if found:
            one = self._pairs + self._runs + self._lone == 1
            ends = "line end read as a line end" if one else "line ends read as line ends"
            changes.append(f"{' and '.join(found)} {ends}")
        if self.marks:
            changes.append(f"{self.marks:,} byte order mark{'s' * (self.marks > 1)} dropped")
        return changes

    def _replace(self, body: str) -> str:
        if "\r" not in body:
            return body
        body, runs = _RUNS.subn("\n", body) if "\r\r" in body else (body, 0)
        pairs, returns = body.count("\r\n"), body.count("\r")
        self._runs += runs
        self._pairs += pairs
        self._lone += returns - pairs
        return body.replace("\r\n", "\n").replace("\r", "\n")

    def _release(self) -> str:
        """The line ends of carriage returns that nothing follows."""
        self._lone += self._held
        held, self._held = self._held, 0
        return "\n" * held

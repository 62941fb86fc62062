"""Reading a text file the same way everywhere: UTF-8, no byte order mark, LF line ends."""

from pathlib import Path

from chargen_ort.errors import CorpusError


def read_text(path: Path) -> tuple[str, bytes]:
    """The text of a file and its bytes as they are on disk.

    A byte order mark is dropped and CRLF line ends are read as LF.

    Raises:
        CorpusError: no such file, a directory, not readable, or not UTF-8 (with the offset).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise CorpusError(f"{path} is a directory; give a text file") from None
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}") from None
    return decode_text(data, str(path)), data


def decode_text(data: bytes, name: str) -> str:
    """The text in `data`; `name` says in messages where it came from.

    Raises:
        CorpusError: not UTF-8; the message has the byte offset.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; "
            "convert it first, for example with: iconv -f latin1 -t utf-8"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")

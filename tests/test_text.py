"""Reading a text: what is read as what it is, and what is refused with which cure."""

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import os
import re
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_ort import CorpusError, text
from chargen_ort.foreign import Source, unmarked_encoding
from chargen_ort.text import TextReader, open_text, read_stream, read_text

NAMES = "Mara\nTobin\nZoë\nЮлия\n" * 20
MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.fixture
def file(tmp_path):
    def make(data, name="names.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make


def read(data, size=text.CHUNK, limit=None):
    """The text of some bytes, `size` of them decoded at a time, and its notes."""
    reader = TextReader(io.BytesIO(data), Source("names"), limit, size)
    return "".join(reader), *reader.notes


def refusal(path):
    with pytest.raises(CorpusError) as caught:
        read_text(path)
    assert "\n" not in str(caught.value)
    assert "latin1" not in str(caught.value).lower()
    return str(caught.value)


def cured(path):
    """The text after the command line that the refusal of `path` names was run."""
    command = refusal(path).split("with: ", 1)[1]
    subprocess.run(["bash", "-c", command], check=False, capture_output=True, cwd=path.parent)
    (made,) = [new for new in path.parent.iterdir() if new != path]
    return made.name, read_text(made).text


# What is read


def test_plain_text_is_read_without_a_note(file):
    read = read_text(file(NAMES.encode()))
    assert (read.text, read.notes) == (NAMES, ())


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_says_how_to_read(encoding, packed):
    data = MARKED[encoding] + NAMES.encode(encoding)
    content, note = read(gzip.compress(data) if packed else data)
    assert content == NAMES
    assert note.startswith("unpacked from gzip, ") == packed
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert note.endswith("1 byte order mark dropped" if name == "UTF-8" else f"read as {name}")


def test_gzip_of_several_members_is_read():
    data = gzip.compress(b"hello ") + gzip.compress(b"world") + b"\0" * 10
    assert read(data) == ("hello world", "unpacked from gzip")


def test_the_hash_is_that_of_the_bytes_on_disk(file):
    for data in (b"a\r\nb", gzip.compress(NAMES.encode()), NAMES.encode("utf-16")):
        assert read_text(file(data)).sha256 == hashlib.sha256(data).hexdigest()


def test_streams_are_read_as_files_are():
    data = gzip.compress(("a\r\n" + NAMES).encode("utf-16"))
    read = read_stream(io.BytesIO(data), "standard input")
    assert read.text == "a\n" + NAMES
    assert read.notes == (
        "unpacked from gzip, read as UTF-16LE, 1 CR LF line end read as a line end",
    )


# Line ends and byte order marks inside


@pytest.mark.parametrize(
    ("given", "expected", "note"),
    [
        ("a\nb", "a\nb", None),
        ("a\r\nb\r\n", "a\nb\n", "2 CR LF line ends read as line ends"),
        ("a\rb\r", "a\nb\n", "2 CR line ends read as line ends"),
        ("a\r\r\nb", "a\nb", "1 CR CR LF line end read as a line end"),
        ("a\r\r\r\nb", "a\nb", "1 CR CR LF line end read as a line end"),
        ("a\r\rb", "a\n\nb", "2 CR line ends read as line ends"),
        ("\r\r", "\n\n", "2 CR line ends read as line ends"),
        ("a\n\rb", "a\n\nb", "1 CR line end read as a line end"),
        (
            "a\r\nb\rc\r\r\nd\n",
            "a\nb\nc\nd\n",
            "1 CR LF and 1 CR CR LF and 1 CR line ends read as line ends",
        ),
        ("a\ufeffb", "ab", "1 byte order mark dropped"),
        ("\ufeff\ufeffa\r\ufeff\n", "a\n", "1 CR LF line end read as a line end, "
         "3 byte order marks dropped"),
        ("\r" * 1750, "\n" * 1750, "1,750 CR line ends read as line ends"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_every_line_end_becomes_lf_and_is_counted(given, expected, note, size):
    assert read(given.encode(), size) == ((expected, note) if note else (expected,))


@settings(deadline=None)
@given(st.text("a\n\r\ufeff"), st.integers(1, 9))
def test_line_ends_are_the_same_in_any_pieces(content, size):
    expected = re.sub(r"\r+\n|\r", "\n", content.replace("\ufeff", ""))
    assert read(content.encode(), size)[0] == expected
    assert read(content.encode(), size) == read(content.encode())


def test_many_carriage_returns_take_no_longer_than_other_text():
    assert read(b"\r" * 3_000_000 + b"\nx", size=1 << 16)[0] == "\nx"
    assert read(b"\r\rx" * 1_000_000)[0] == "\n\nx" * 1_000_000


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff")


@settings(deadline=None)
@given(st.text(characters), st.sampled_from(sorted(MARKED)), st.booleans(), st.integers(1, 9))
def test_every_text_is_read_back_in_any_pieces(content, encoding, packed, size):
    data = MARKED[encoding] + content.encode(encoding)
    assert read(gzip.compress(data) if packed else data, size)[0] == content


@settings(deadline=None)
@given(st.text("a\n\r\ufeff€\0", max_size=20), st.binary(max_size=4), st.integers(1, 9))
def test_pieces_change_neither_the_text_nor_the_refusal(content, end, size):
    def outcome(size):
        try:
            return read(content.encode() + end, size)
        except CorpusError as error:
            return str(error)

    assert outcome(size) == outcome(1000)


# What is refused, and the cure


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
@pytest.mark.parametrize("content", ["Mara\nTobin\n", "Юлия и Ольга\n" * 9, "你好,世界\n" * 40])
def test_without_a_mark_utf_16_and_utf_32_are_told_by_their_nuls(file, encoding, content):
    path = file(content.encode(encoding), "it's.txt")
    assert f"looks like {encoding} without a byte order mark" in refusal(path)
    assert cured(path) == ("it's.utf8.txt", content)


def test_inside_gzip_the_cure_unpacks_too(file):
    path = file(gzip.compress(NAMES.encode("utf-16-be")), "names.txt.gz")
    assert cured(path) == ("names.utf8.txt", NAMES)


def test_a_cure_writes_over_nothing(file):
    first = file(b"ol\xe9")
    file(b"", "names.utf8.txt")
    assert f"> {first.with_name('names.utf8-2.txt')}" in refusal(first)


def test_nuls_are_refused_with_their_count_and_the_position_of_the_first(file):
    path = file("né\0me\0".encode())
    assert "2 NUL characters, the first at position 2 (in characters, from 0)" in refusal(path)
    assert cured(path) == ("names.utf8.txt", "néme")
    late = file(b"a" * 3_000_000 + b"\0")
    assert "1 NUL character, the first at position 3,000,000" in refusal(late)


def test_nuls_in_utf_16_are_refused_too(tmp_path, file):
    path = file("a\0b".encode("utf-16"))
    assert "1 NUL character, the first at position 1" in refusal(path)
    assert cured(path) == ("names.utf8.txt", "ab")


def test_what_a_wrong_cure_made_is_told(file):
    wrong = codecs.BOM_UTF16_LE + "Mara\nTobin".encode("utf-16-le")
    path = file(wrong.decode("latin-1").encode())
    assert "looks like UTF-16 that was converted as if it were Latin-1" in refusal(path)
    assert read("ÿþa".encode())[0] == "ÿþa"


def test_separators_are_no_sign_of_utf_16():
    assert unmarked_encoding(b"Mara\0Tobin\0Jo\0Ann\0Bert\0Li\0Christopher\0Max\0") is None
    assert unmarked_encoding(b"hello") is None


def test_western_text_of_windows_is_to_be_converted_from_cp1252(file):
    path = file("naïve – “café”".encode("cp1252"))
    assert "not UTF-8: byte 0xef at offset 2; " in refusal(path)
    assert "iconv -f CP1252 -t UTF-8 < " in refusal(path)
    assert cured(path) == ("names.utf8.txt", "naïve – “café”")


def test_what_cp1252_cannot_be_is_not_called_so(file):
    assert "nor can it be CP1252" in refusal(file(b"ab\x81cd"))
    assert "nor can it be CP1252" in refusal(file(b"\xe9" + b"a" * 3_000_000 + b"\x8d"))


def test_damaged_utf_8_loses_only_what_is_damaged(file):
    path = file("Юлия".encode() + b"\xff" + "Zoë".encode())
    assert "byte 0xff at offset 8; most of it is" in refusal(path)
    assert cured(path) == ("names.utf8.txt", "ЮлияZoë")


def test_damaged_utf_16_says_so(file):
    assert "not the UTF-16LE that its byte order mark says" in refusal(file(b"\xff\xfea\0b"))
    assert "byte 0x00 at offset 4" in refusal(file(b"\xff\xfea\0\0\xd8a\0"))


def zip_of(name):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, "hello")
    return data.getvalue()


def tar_of(name):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", zip_of("a.txt"), "is a zip archive; unpack it first with: unzip "),
        ("a.docx", zip_of("word/document.xml"), "office document, save it as plain text"),
        ("a.tar", tar_of("a.txt"), "is a tar archive; unpack it first with: tar -xf "),
        ("a.tgz", gzip.compress(tar_of("a.txt")), "inside gzip; unpack it first with: tar -xzf "),
        ("a.txt.gz", gzip.compress(gzip.compress(b"a")), "is a gzip file inside gzip"),
        ("a.txt.bz2", bz2.compress(b"hello"), "is a bzip2 file; unpack it first with: bzip2 -dc"),
        ("a.txt.xz", lzma.compress(b"hello"), "is an xz file; unpack it first with: xz -dc < "),
        ("a.zst", b"\x28\xb5\x2f\xfd\x04", "is a zstd file; unpack it first with: zstd -dc < "),
        ("a.pdf", b"%PDF-1.7\n", "is a PDF document; take its text out"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0", "is a PNG picture"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0", "is a JPEG picture"),
        ("a.gif", b"GIF89a\x01\0", "is a GIF picture"),
        ("a", b"\x7fELF\x02", "is a program"),
        ("a.db", b"SQLite format 3\0\x10", "is an SQLite database"),
        ("a.gz", gzip.compress(b"hello" * 99)[:-9], "is a gzip file that breaks off"),
        ("a.gz", gzip.compress(b"hello")[:-8] + b"\0" * 8, "is a gzip file that is damaged (CRC"),
        ("a.gz", b"\x1f\x8bhello hello hello", "is a gzip file that is damaged"),
        ("a.gz", gzip.compress(b"hello") + b"hello", "is a gzip file that is damaged"),
    ],
    ids=lambda value: "data" if isinstance(value, bytes) else None,  # a gzip file has its time
)
def test_what_is_no_text_is_named_with_its_cure(file, name, data, message):
    assert message in refusal(file(data, name))


def test_a_text_may_begin_like_a_picture():
    assert read(b"GIF89a is a format")[0] == "GIF89a is a format"
    assert read(b"PAR1S")[0] == "PAR1S"


def test_what_gzip_gives_has_a_limit():
    bomb = gzip.compress(b"a" * 3_000_000)
    with pytest.raises(CorpusError, match="more than 2,000,000 bytes of text, the limit"):
        read(bomb, limit=2_000_000)
    assert len(read(bomb, limit=3_000_000)[0]) == 3_000_000


def test_a_gzip_file_has_the_limit_and_a_plain_file_has_none(file, monkeypatch):
    monkeypatch.setattr(text, "MAX_UNPACKED", 1000)
    path = file(gzip.compress(b"a" * 2000), "a.txt.gz")
    assert cured(path) == ("a.utf8.txt", "a" * 2000)  # which is plain and as long
    with pytest.raises(CorpusError, match="standard input has more than 1,000 bytes"):
        read_stream(io.BytesIO(b"a" * 2000), "standard input")


# What is no regular file


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path} is a directory; give a text file"
    assert refusal(tmp_path / "x") == f"no such file: {tmp_path / 'x'}"
    assert "no such file: " in refusal(tmp_path / "a\0b")
    assert "cannot read " in refusal(tmp_path / ("x" * 300))


def test_devices_are_refused():
    assert refusal("/dev/zero") == "/dev/zero is a device, which may have no end; give a text file"
    assert "is a device" in refusal("/dev/null")


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert "s is a socket" in refusal("s")


def test_a_pipe_that_nobody_writes_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_WRITER_SECONDS", 0.01)
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is a pipe that nobody writes to" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_pipe_that_somebody_writes_to_is_read(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(text, "_WRITER_SECONDS", seconds)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # the descriptor for both directions is a writer from the start
    descriptor = os.open(path, os.O_RDWR)
    opened = os.fdopen(os.open(path, os.O_WRONLY), "w", encoding="utf-8")

    def write():
        with opened:
            opened.write(NAMES * 1000)

    writer = threading.Thread(target=write)
    writer.start()
    with open_text(path) as reader:
        os.close(descriptor)
        assert "".join(reader) == NAMES * 1000
    writer.join()


def test_a_slow_writer_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_WRITER_SECONDS", 0.01)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    with open_text(path) as reader:  # open, although nothing was written
        os.write(descriptor, b"hello")
        os.close(descriptor)
        assert "".join(reader) == "hello"


def test_process_substitution_and_dev_stdin_are_read():
    code = (
        "import sys; from pathlib import Path; from chargen_ort.text import read_text\n"
        "print(*(read_text(Path(p)).text for p in sys.argv[1:]))"
    )
    line = f"echo one | {sys.executable} -c '{code}' <(echo two) /dev/stdin"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("two\n one\n\n", "")


def test_too_little_memory_is_one_line(file, monkeypatch):
    path = file(b"hello")
    expected = f"there is not enough memory to read {path} (5 bytes); give a smaller text"
    with pytest.raises(CorpusError) as caught, open_text(path):
        raise MemoryError
    assert str(caught.value) == expected
    monkeypatch.setattr(TextReader, "__iter__", lambda self: iter(bytearray(1 << 62)))
    assert refusal(path) == expected


def test_a_device_that_took_the_place_of_a_file_meanwhile_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.touch()
    real = os.fstat

    def fstat(descriptor):
        found = list(real(descriptor))
        found[0] = stat.S_IFCHR | 0o666
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", fstat)
    assert "is a device" in refusal(path)

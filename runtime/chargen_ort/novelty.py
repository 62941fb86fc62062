"""Texts that are new: none twice, none of the corpus, none of a file.

A filter holds the documents of a corpus as a Bloom filter (Bloom, "Space/time trade-offs in hash
coding with allowable errors", 1970), 29 bits a document: it knows each of them, and takes one in a
million other texts for one. The file says which corpora it is of.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort.batch_plain import WrittenText
from chargen_ort.errors import ArtifactError, ChargenError
from chargen_ort.records import CorpusFacts, Sha256, Size, Training
from chargen_ort.strict import Record, parse_record
from chargen_ort.text import read_text

SUFFIX = ".filter"
FALSE_POSITIVES = 1e-6
MOST_IN_VAIN = 10_000  # texts in a row that are not new, after which there are none
MAGIC = b"chargen-filter-1\n"
_BITS_PER_DOCUMENT, _HASHES = 29, 20  # 28.76 and 19.93 are the least for one in a million
_MOST_HEADER = 1 << 16  # bytes
_AT_ONCE = 1 << 16  # documents


class FilterHeader(Record):
    """What a filter says of itself before its bits.

    Attributes:
        corpora: SHA-256 of the files that the documents are of
        documents: how many there are
        bits: SHA-256 of the bits
    """

    corpora: tuple[Sha256, ...]
    documents: Size
    bits: Sha256


class DocumentFilter:
    """The documents of a corpus, as a set that may have a few others as well.

    Args:
        documents: how many it holds.
        bits: as they were written; None is an empty set.
    """

    def __init__(self, documents: int, bits: bytes | None = None) -> None:
        self.documents = documents
        size = filter_bytes(documents)
        self._bits = np.zeros(size, np.uint8) if bits is None else np.frombuffer(bits, np.uint8)

    def add(self, texts: Iterable[str]) -> None:
        """Put texts into the set."""
        waiting: list[str] = []
        for text in texts:
            waiting.append(text)
            if len(waiting) == _AT_ONCE:
                self._add(waiting)
                waiting = []
        if waiting:
            self._add(waiting)

    def _add(self, texts: Sequence[str]) -> None:
        places = self._places(texts).ravel()
        np.bitwise_or.at(self._bits, places >> np.uint64(3), _bit(places))

    def __contains__(self, text: str) -> bool:
        places = self._places([text])[0]  # [hashes]
        return bool((self._bits[places >> np.uint64(3)] & _bit(places)).all())

    def _places(self, texts: Sequence[str]) -> NDArray[np.uint64]:
        """The bits of texts, ``[texts, hashes]``, from two hashes each."""
        digests = b"".join(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            for text in texts
        )
        pairs = np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)
        step = pairs[:, 1:] | np.uint64(1)
        places = pairs[:, :1] + np.arange(_HASHES, dtype=np.uint64) * step  # modulo 2**64
        return np.asarray(places % np.uint64(8 * len(self._bits)))

    def to_bytes(self, corpora: Sequence[CorpusFacts]) -> bytes:
        """The filter as a file."""
        bits = self._bits.tobytes()
        header = FilterHeader(
            corpora=tuple(corpus.sha256 for corpus in corpora),
            documents=self.documents,
            bits=hashlib.sha256(bits).hexdigest(),
        )
        return MAGIC + header.dump().encode() + b"\n" + bits


def _bit(places: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.left_shift(1, (places & np.uint64(7)).astype(np.uint8)).astype(np.uint8)


def filter_bytes(documents: int) -> int:
    """How many bytes a filter of so many documents has, without its header."""
    return documents * _BITS_PER_DOCUMENT // 8 + 8


def filter_path(model: Path) -> Path:
    """Where the filter of a model lies: beside it."""
    return model.with_name(model.name + SUFFIX)


def read_filter(model: Path, training: Training) -> DocumentFilter:
    """The filter beside a model, checked against the corpora that the model is of.

    Raises:
        ArtifactError: there is none, it is damaged, or it is of other corpora.
    """
    path = filter_path(model)
    cure = f"train again with --with-filter, or give --not-in FILE ({path} is where it would be)"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"--new needs a filter of the corpus, which is not there; {cure}"
        ) from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    head, _, bits = data.removeprefix(MAGIC).partition(b"\n")
    if not data.startswith(MAGIC) or len(head) > _MOST_HEADER:
        raise ArtifactError(f"{path} is no filter of this version; {cure}")
    try:
        header = parse_record(FilterHeader, head.decode(), "its header")
    except (ArtifactError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from None
    if len(bits) != filter_bytes(header.documents) or _sha256(bits) != header.bits:
        raise ArtifactError(f"{path} is damaged: its bits are not those that were written; {cure}")
    if set(header.corpora) != {corpus.sha256 for corpus in training.corpora}:
        raise ArtifactError(f"{path} is of another corpus than the model; {cure}")
    return DocumentFilter(header.documents, bits)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_lines(paths: Iterable[Path]) -> frozenset[str]:
    """The lines of files, without their line ends.

    Raises:
        CorpusError: a file cannot be read, or is no text.
    """
    return frozenset(line for path in paths for line in read_text(path).text.split("\n"))


class Novelty:
    """Which texts are passed on.

    Args:
        unique: none that was passed on before.
        documents: none that this has; None is nothing.
        others: none of these.
    """

    def __init__(
        self, unique: bool, documents: DocumentFilter | None, others: frozenset[str]
    ) -> None:
        self._unique, self._documents, self._others = unique, documents, others
        self._passed: set[bytes] = set()

    def accepts(self, text: str) -> bool:
        """Whether a whole text, its start included, is new; it then counts as passed on."""
        if text in self._others or (self._documents is not None and text in self._documents):
            return False
        if not self._unique:
            return True
        # a digest takes 49 bytes whatever the text; two are equal once in 10**30 texts
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = digest in self._passed
        self._passed.add(digest)
        return not known

    def choose(self, texts: Iterable[WrittenText], start: str, num: int) -> Iterator[WrittenText]:
        """The first `num` of `texts` that are new, each behind `start`.

        Raises:
            ChargenError: `MOST_IN_VAIN` texts in a row were not.
        """
        found = in_vain = 0
        for written in texts:
            if self.accepts(start + written.text):
                yield written
                found, in_vain = found + 1, 0
                if found == num:
                    return
            else:
                in_vain += 1
                if in_vain == MOST_IN_VAIN:
                    raise NothingNewError(found, num)


class NothingNewError(ChargenError):
    """There seem to be no more texts that are new."""

    def __init__(self, found: int, num: int) -> None:
        super().__init__(
            f"{found:,} of {num:,} texts were written: none of {MOST_IN_VAIN:,} more was new; ask "
            "for fewer, raise --temperature, or let the texts be longer"
        )

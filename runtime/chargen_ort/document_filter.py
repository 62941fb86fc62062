"""The documents of a corpus as a Bloom filter, in its model's file or beside it.

A filter (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970) has 29 bits a
document: it knows each of them, and takes one in a million other texts for one. Up to
`MAX_IN_FILE` documents it travels in the model's metadata, as base64; of more it is a file of its
own, which says what corpora it is of.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import ArtifactError
from chargen_ort.fields import Sha256, Size
from chargen_ort.provenance import CorpusFacts, Training
from chargen_ort.strict import Record, parse_record

SUFFIX = ".filter"
MAX_IN_FILE = 200_000  # documents: 967 kB of the 2 MiB that metadata may have
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

    @classmethod
    def of_text(cls, documents: int, text: str) -> Self:
        """The filter that `to_text` gave."""
        return cls(documents, base64.b64decode(text))

    def to_text(self) -> str:
        """The filter as a model's metadata has it."""
        return base64.b64encode(self._bits.tobytes()).decode()

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
    """How many bytes a filter of so many documents has, without its header.

    A multiple of three, which base64 writes without padding.
    """
    return (documents * _BITS_PER_DOCUMENT // 8 + 8) // 3 * 3 + 3


def describe_misfit(text: str, training: Training) -> str:
    """Why the text of a filter cannot be of the documents that a record tells of; else empty."""
    split = training.split
    if split.documents == "none" or not 1 <= split.count <= MAX_IN_FILE:
        return f"it is there for 1 to {MAX_IN_FILE} documents, and this corpus has {split.count}"
    size = filter_bytes(split.count) // 3 * 4
    if len(text) != size or not re.fullmatch("[A-Za-z0-9+/]*", text):
        return f"it is not base64 of {size} characters, which {split.count} documents have"
    return ""


def filter_path(model: Path) -> Path:
    """Where the filter of a model lies: beside it."""
    return model.with_name(model.name + SUFFIX)


def filter_of(model: Path, training: Training, text: str) -> DocumentFilter:
    """The filter of a model: the one in its file, or else the one beside it.

    Args:
        model: its path.
        training: its record.
        text: of the filter in the file, which was found to fit; empty where there is none.

    Raises:
        ArtifactError: see `read_filter`.
    """
    if text:
        return DocumentFilter.of_text(training.split.count, text)
    return read_filter(model, training)


def read_filter(model: Path, training: Training) -> DocumentFilter:
    """The filter beside a model, checked against the corpora that the model is of.

    Raises:
        ArtifactError: there is none, it is damaged, or it is of other corpora.
    """
    path = filter_path(model)
    cure = (
        "make one with train-export convert CHECKPOINT --text CORPUS --with-filter, or give "
        f"--not-in FILE (no filter is in the model, nor as {path} beside it)"
    )
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

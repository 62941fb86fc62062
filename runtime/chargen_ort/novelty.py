"""Texts that are new: none twice, none of the corpus, none of a file."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from chargen_ort.batch_plain import WrittenText
from chargen_ort.document_filter import DocumentFilter
from chargen_ort.errors import ChargenError
from chargen_ort.text import read_text

MOST_IN_VAIN = 10_000  # texts in a row that are not new, after which there are none


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

"""What a document is: a text of its own, which has a beginning and an end."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

DocumentKind = Literal["none", "lines", "blank", "files"]
DOCUMENT_KINDS: tuple[DocumentKind, ...] = get_args(DocumentKind)
DOCUMENT_WORDS = {
    "none": "running text",
    "lines": "each line is one",
    "blank": "separated by blank lines",
    "files": "each file is one",
}


def cut_documents(pieces: Iterable[str], kind: DocumentKind) -> Iterator[str]:
    """The documents of a text, one by one, without the line ends that separate them.

    Args:
        pieces: of the text, in their order, cut anywhere.
        kind: ``lines``, each line that is not empty; ``blank``, what stands between lines with
            nothing but white space; ``files`` and ``none``, the whole text.
    """
    if kind in ("files", "none"):
        yield "".join(pieces)
        return
    document: list[str] = []
    for line in split_lines(pieces):
        if kind == "lines":
            if line:
                yield line
        elif line.strip():
            document.append(line)
        elif document:
            yield "\n".join(document)
            document = []
    if document:
        yield "\n".join(document)


def split_lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text without their line ends; only a line feed ends a line."""
    rest: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        rest.append(first)
        if others:
            yield "".join(rest)
            yield from others[:-1]
            rest = others[-1:]
    if last := "".join(rest):
        yield last

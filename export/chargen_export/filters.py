"""The filter of a corpus with its model, by which chargen-ort --new knows its documents."""

from pathlib import Path

from chargen_ort.artifact import Artifact
from chargen_ort.document_filter import MAGIC, MAX_IN_FILE, DocumentFilter, filter_path
from chargen_ort.errors import OptionError
from chargen_train.corpus import Corpus, document_texts
from chargen_train.files import as_option_error, refuse_special, write_atomically

_MOST_TOKENS = 1 << 14  # beside which a filter fits into the metadata


def goes_into_file(corpus: Corpus) -> bool:
    """Whether the filter of a corpus becomes a part of the model's file, rather than one beside."""
    return corpus.document_count <= MAX_IN_FILE and len(corpus.vocabulary) <= _MOST_TOKENS


def check_filter(corpus: Corpus, model: Path) -> None:
    """Refuse, before hours of training, a filter that could not be written.

    Raises:
        OptionError: the corpus is running text, or there is a file that is no filter.
    """
    if not corpus.vocabulary.end:
        raise OptionError(
            "a filter is of documents, and this corpus is running text; leave out --with-filter, "
            "or say with --documents what its documents are"
        )
    if goes_into_file(corpus):
        return
    path = filter_path(model)
    refuse_special(path)
    with as_option_error(path):
        if path.exists():
            with path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise OptionError(
                        f"cannot write {path}: there is a file that train-export did not write; "
                        "move it away, or choose another --out"
                    )


def make_filter(corpus: Corpus) -> DocumentFilter:
    """The filter of the documents of a corpus, those that measure among them."""
    found = DocumentFilter(corpus.document_count)
    found.add(document_texts(corpus))
    return found


def text_in_file(documents: DocumentFilter | None, corpus: Corpus) -> str:
    """What the metadata of a model has of the filter of its corpus; empty is nothing."""
    if documents is None or not goes_into_file(corpus):
        return ""
    return documents.to_text()


def write_beside(
    documents: DocumentFilter | None, corpus: Corpus, artifact: Artifact, model: Path
) -> None:
    """Write the filter of a corpus beside a model, if there is one and the model does not have it.

    Raises:
        OptionError: it cannot be written.
    """
    if documents is None or goes_into_file(corpus):
        return
    check_filter(corpus, model)
    write_atomically(filter_path(model), documents.to_bytes(artifact.training.corpora))

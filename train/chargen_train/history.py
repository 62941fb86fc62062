"""What a run says of its corpus and of how well its model predicts, for the artifact's record."""

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import printable
from chargen_ort.provenance import CorpusFacts, HeldOut, OfLength, Quantiles, Split, Training
from chargen_train.corpus import Corpus
from chargen_train.evaluate import Losses, bits_per_char
from chargen_train.split import WINDOW, Part

_MOST_FILES = 256  # that a record holds
# of the scores' quantiles: close together where texts are odd, which is where thresholds lie
_LEVELS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    *(0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99998, 0.99999),
)
_CLASSES, _IN_A_CLASS = 8, 50  # of documents by their length, and how many each has at least
_LEAST_SPREAD = 1e-3  # nats a character: of documents that are all alike


def describe_corpus(corpus: Corpus) -> Training:
    """The record of a model that has not been trained on `corpus` yet."""
    return Training(
        corpora=_corpora(corpus),
        characters=len(corpus),
        training_characters=corpus.training.characters,
        split=Split(
            documents=corpus.documents,
            count=corpus.document_count,
            holdout=corpus.reading.holdout_kind,
        ),
        settings={},
        versions={},
    )


def _corpora(corpus: Corpus) -> tuple[CorpusFacts, ...]:
    """The files of a corpus; as one, if there are more than a record holds."""
    whole = CorpusFacts(name=printable(corpus.name), sha256=corpus.sha256, characters=len(corpus))
    if not 1 < len(corpus.sources) <= _MOST_FILES:
        return (whole,)
    return tuple(
        CorpusFacts(name=printable(each.name), sha256=each.sha256, characters=each.characters)
        for each in corpus.sources
    )


def describe_losses(corpus: Corpus, losses: Losses) -> tuple[HeldOut, Quantiles]:
    """What the held-out part costs, and how the scores of its texts are spread."""
    validation, read = corpus.validation, len(losses.predicted)
    documents = read if validation.documents else 0
    predicted = int(losses.predicted.sum())
    all_read = read == len(validation.passages())
    characters = validation.characters if all_read else predicted - documents
    measured = HeldOut(
        nats_per_char=losses.mean,
        bits_per_char=bits_per_char(losses.mean),
        characters=max(1, characters),
        documents=documents,
        protocol=_protocol(corpus),
    )
    # a shorter window scores with more noise
    least = WINDOW if validation.widths is None else WINDOW // 2
    return measured, describe_spread(losses, validation.documents > 0, least)


def describe_spread(losses: Losses, documents: bool, least: int = WINDOW) -> Quantiles:
    """How the scores of passages are spread, which are documents or else windows.

    Short documents score worse than long ones and differ more. So where there are many, what is
    usual for a length is told of up to 8 classes of equal size, and quantiles of what is beyond it.

    Args:
        losses: of the passages.
        documents: whether they are documents.
        least: characters that a window must have to be counted, if there is one that has.
    """
    whole = losses.predicted >= least
    whole |= documents or not whole.any()
    lengths = losses.predicted[whole]
    scores = losses.nats[whole] / lengths
    usual = _by_length(lengths, scores) if documents else ()
    oddness: tuple[float, ...] = ()
    if usual:
        places, means, spreads = np.array(
            [(each.characters, each.nats_per_char, each.spread) for each in usual]
        ).T
        excess = scores - np.interp(lengths, places, means)
        oddness = _quantiles(excess / np.interp(lengths, places, spreads))
    return Quantiles(
        window=None if documents else round(float(lengths.mean())),
        count=len(scores),
        levels=_LEVELS,
        nats_per_char=_quantiles(scores),
        by_length=usual,
        oddness=oddness,
    )


def _by_length(lengths: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[OfLength, ...]:
    """What is usual for documents of so many characters; nothing where there are few."""
    classes = min(_CLASSES, len(lengths) // _IN_A_CLASS)
    if classes < 2:
        return ()
    edges = np.unique(np.quantile(lengths, np.arange(1, classes) / classes))
    which = np.searchsorted(edges, lengths, side="right")
    return tuple(
        OfLength(
            characters=_rounded(lengths[which == each].mean()),
            nats_per_char=_rounded(scores[which == each].mean()),
            spread=_rounded(max(_LEAST_SPREAD, scores[which == each].std())),
        )
        for each in np.unique(which)
    )


def _quantiles(scores: NDArray[np.float64]) -> tuple[float, ...]:
    # the k-th of n scores stands for the level k / (n + 1): a fresh text of the same kind exceeds
    # it with the probability 1 - k / (n + 1), however the scores are spread (Weibull 1939)
    return tuple(_rounded(score) for score in np.quantile(scores, _LEVELS, method="weibull"))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _protocol(corpus: Corpus) -> str:
    """How the held-out part is measured, in words."""
    place = {
        "tail": "of the last tenth",
        "spread": "of parts spread over the text",
        "file": "of a text of its own",
        "none": "",
    }[corpus.reading.holdout_kind]
    if corpus.validation.documents:
        if corpus.reading.holdout_kind == "spread":
            place = "chosen by a hash of their content"
        return (
            f"mean over all characters and ends of held-out documents {place}, each document from "
            "its own beginning"
        )
    windows = describe_windows(corpus.validation)
    return f"mean over consecutive {windows} {place}, each from a zero state"


def describe_windows(part: Part) -> str:
    """What the windows of a running text are, in words."""
    if part.widths is None:
        return f"{WINDOW}-character windows"
    return f"windows of whole tokens ({WINDOW} characters on average)"

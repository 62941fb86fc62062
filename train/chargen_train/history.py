"""What a run says of its corpus and of how well its model predicts, for the artifact's record."""

import numpy as np

from chargen_ort.checks import printable
from chargen_ort.records import CorpusFacts, HeldOut, Quantiles, Split, Training
from chargen_train.corpus import Corpus
from chargen_train.evaluate import Losses, bits_per_char
from chargen_train.split import WINDOW

_LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)  # of the scores' quantiles


def describe_corpus(corpus: Corpus) -> Training:
    """The record of a model that has not been trained on `corpus` yet."""
    return Training(
        corpora=(
            CorpusFacts(name=printable(corpus.name), sha256=corpus.sha256, characters=len(corpus)),
        ),
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
    whole = losses.predicted >= (WINDOW if validation.widths is None else WINDOW // 2)
    whole |= validation.documents or not whole.any()
    scores = losses.nats[whole] / losses.predicted[whole]
    quantiles = Quantiles(
        window=None if validation.documents else round(float(losses.predicted[whole].mean())),
        count=len(scores),
        levels=_LEVELS,
        nats_per_char=np.quantile(scores, _LEVELS).tolist(),
    )
    return measured, quantiles


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
    windows = f"{WINDOW}-character windows"
    if corpus.validation.widths is not None:
        windows = f"windows of whole tokens, {WINDOW} characters on average,"
    return f"mean over consecutive {windows} {place}, each from a zero state"

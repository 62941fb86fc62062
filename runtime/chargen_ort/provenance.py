"""How a model came to be: the second of the three records that its file has of itself.

See `config` for what annotations and sentences of a record are for.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from chargen_ort.documents import DocumentKind
from chargen_ort.fields import Amount, Count, Line, Real, Sha256, Share, Size, Versions
from chargen_ort.strict import Record, Within

PIECE = 40  # characters of each text of the model's own that is compared, of running text
_BITS_AGREE = 1e-6  # relative

Setting = Line | Annotated[int, Within(-(1 << 63), (1 << 63) - 1)] | Real | bool | None


class CorpusFacts(Record):
    """A file that the model was trained on.

    Attributes:
        name: file name without its suffix
        sha256: of the file's bytes, hexadecimal
        characters: code points after line ends became LF
    """

    name: Line
    sha256: Sha256
    characters: Size


class Split(Record):
    """How the corpora were cut into documents, and what of them was held out.

    Attributes:
        documents: what a document is; none is running text
        count: documents in all, 0 for running text
        holdout: what measures the model: the last tenth, parts spread over the text, nothing, or a file of its own
    """  # noqa: E501 - a description is one line

    documents: DocumentKind = "none"
    count: Count = 0
    holdout: Literal["tail", "spread", "none", "file"]


class HeldOut(Record):
    """How well the model predicts text that it was not trained on.

    Attributes:
        nats_per_char: mean negative log probability of a character, nats; an end counts as one
        bits_per_char: the same in bits
        characters: held-out characters that were read, without the ends of documents
        documents: held-out documents that were read, 0 for running text
        protocol: how it was measured, in words
    """

    nats_per_char: Amount
    bits_per_char: Amount
    characters: Size
    documents: Count = 0
    protocol: Line

    def contradiction(self) -> str:
        """See `Record`."""
        bits = self.nats_per_char / math.log(2)
        if math.isclose(self.bits_per_char, bits, rel_tol=_BITS_AGREE):
            return ""
        return (
            f"bits_per_char is {self.bits_per_char:g}, but {self.nats_per_char:g} nats are "
            f"{bits:g} bits; export it again"
        )


class Baseline(Record):
    """What an n-gram model reaches on the same held-out text.

    Attributes:
        method: how its counts become probabilities
        order: characters that it looks at, the predicted one included
        nats_per_char: mean negative log probability of a character, nats
    """

    method: Line
    order: Annotated[int, Within(1, 64)]
    nats_per_char: Amount


class SampleFacts(Record):
    """What the model's own texts have in common with the corpus and with each other.

    Attributes:
        count: texts that were written; of a model of running text, 40 characters each
        share_in_corpus: of them that stand in the corpus
        share_of_doubles: of them that are equal to an earlier one
        searched: share of the corpus that was looked through, in blocks spread over it
    """

    count: Size
    share_in_corpus: Share
    share_of_doubles: Share
    searched: Share = 1.0


class OfLength(Record):
    """The scores of held-out documents of about one length.

    Attributes:
        characters: their mean length, ends counted
        nats_per_char: their mean score
        spread: the standard deviation of their scores, nats a character
    """

    characters: Amount
    nats_per_char: Amount
    spread: Annotated[float, Within(1e-6)]


class Quantiles(Record):
    """How the scores of held-out texts are spread.

    Attributes:
        window: characters of each text where running text was cut; null for documents
        count: texts that were scored
        levels: shares of the texts, rising
        nats_per_char: the score that so many do not exceed, for each level
        by_length: what is usual for documents of a length, by rising length; empty where too few were scored
        oddness: that of nats_per_char, less what is usual for the length, in spreads; empty without by_length
    """  # noqa: E501 - a description is one line

    window: Size | None
    count: Size
    levels: Annotated[tuple[Share, ...], Within(2, 1024)]
    nats_per_char: Annotated[tuple[Amount, ...], Within(2, 1024)]
    by_length: Annotated[tuple[OfLength, ...], Within(0, 64)] = ()
    oddness: Annotated[tuple[Real, ...], Within(0, 1024)] = ()

    def contradiction(self) -> str:
        """See `Record`."""
        if len(self.levels) != len(self.nats_per_char):
            return f"{len(self.levels)} levels and {len(self.nats_per_char)} nats_per_char"
        if len(self.oddness) != (len(self.levels) if self.by_length else 0):
            return f"{len(self.by_length)} by_length and {len(self.oddness)} oddness"
        lengths = [each.characters for each in self.by_length]
        if lengths != sorted(set(lengths)):
            return "by_length does not rise"
        for name in ("levels", "nats_per_char", "oddness"):
            if list(getattr(self, name)) != sorted(getattr(self, name)):
                return f"{name} do not rise"
        return ""


class Base(Record):
    """The model that training began with.

    Attributes:
        name: file name without its suffix
        sha256: its seal
    """

    name: Line
    sha256: Sha256


class Training(Record):
    """How the model came to be.

    Attributes:
        corpora: what the model was trained on
        characters: of all corpora together
        training_characters: how many of them were trained on
        split: documents, and what was held out
        validation: how well it predicts held-out text; null where none was held out
        baseline: what an n-gram reaches there; null where it was not measured
        samples: how new its texts are; null where it was not measured
        score_quantiles: how held-out texts score; null where it was not measured
        base: the model that training began with; null where it began with nothing
        steps: optimizer steps
        exported_step: the step whose weights these are
        epochs: how often the training text was read
        processes: that took part
        device: where it ran
        seed: of weights, windows and dropout
        notes: what a person should know about how it went, a sentence each
        settings: the recipe
        versions: version of each library, by its name
    """

    corpora: Annotated[tuple[CorpusFacts, ...], Within(1, 256)]
    characters: Size
    training_characters: Size
    split: Split
    validation: HeldOut | None = None
    baseline: Baseline | None = None
    samples: SampleFacts | None = None
    score_quantiles: Quantiles | None = None
    base: Base | None = None
    steps: Count = 0
    exported_step: Count = 0
    epochs: Amount = 0
    processes: Size = 1
    device: Line = "cpu"
    seed: Annotated[int, Within(0, (1 << 64) - 1)] = 0
    notes: Annotated[tuple[Line, ...], Within(0, 64)] = ()
    settings: Annotated[Mapping[str, Setting], Within(0, 256)]
    versions: Versions

    def contradiction(self) -> str:
        """See `Record`."""
        whole, part = self.characters, self.training_characters
        if part > whole:
            return f"training_characters is {part}, but the corpus has {whole}; export it again"
        longest = max(corpus.characters for corpus in self.corpora)
        if longest > whole:
            return f"characters is {whole}, but a corpus has {longest}; export it again"
        if self.exported_step > self.steps:
            return f"exported_step is {self.exported_step}, but steps is {self.steps}"
        if self.validation is None or self.split.holdout == "file":
            return ""
        left = 0 if self.split.holdout == "none" else whole - part
        if self.validation.characters > left:
            found = self.validation.characters
            return f"validation: characters is {found}, but {left} were held out; export it again"
        if self.validation.documents > self.split.count:
            return f"validation: documents is {self.validation.documents} of {self.split.count}"
        return ""

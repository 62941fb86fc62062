"""What a model file says of itself: Config, Training and Certificate, each one JSON object.

A record's annotations are the format's limits; the schemas beside this package are made of them
by ``python -m tests.tools.schemas``, with the sentences under Attributes as descriptions.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from chargen_ort.checks import instance
from chargen_ort.documents import DocumentKind
from chargen_ort.errors import OptionError
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Sizes
from chargen_ort.options import SamplingOptions
from chargen_ort.strict import Record, Within
from chargen_ort.vocabulary import Unit, UnknownPolicy, Vocabulary

MAX_TOKENS, MAX_WIDTH, MAX_LAYERS = 1 << 16, 1 << 16, 64
MAX_LINE = 4096  # characters
PIECE = 40  # characters of each text of the model's own that is compared, of running text
LINE_PATTERN = "[^\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]*"
_BITS_AGREE = 1e-6  # relative
_NEWER = "that needs a newer chargen-ort: pip install --upgrade chargen-ort"

Piece = Annotated[str, Within(0, 256)]
TokenId = Annotated[int, Within(0, MAX_TOKENS - 1)]
Width = Annotated[int, Within(1, MAX_WIDTH)]
Count = Annotated[int, Within(0, (1 << 63) - 1)]
Size = Annotated[int, Within(1, (1 << 63) - 1)]
Amount = Annotated[float, Within(0)]
Real = Annotated[float, Within(-math.inf)]
Share = Annotated[float, Within(0, 1)]
Line = Annotated[
    str, Within(0, MAX_LINE, LINE_PATTERN, "one line without control or direction characters")
]
Sha256 = Annotated[str, Within(64, 64, "[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
Setting = Line | Annotated[int, Within(-(1 << 63), (1 << 63) - 1)] | Real | bool | None
Versions = Annotated[Mapping[str, Line], Within(0, 64)]


class Config(Record):
    """What the model is: the facts a caller cannot choose, and the options it suggests.

    Attributes:
        unit: what a token is: char, one Unicode code point; byte; word, a frequent word or a character; bpe, characters that merges join
        tokens: the texts that tokens stand for, token 0 first: single characters, then pieces of several; of byte, the bytes as U+0000 to U+00FF
        merges: of bpe, in their order: pairs of tokens that are joined, one after the other
        end: whether the last token, written as an empty text, ends a text
        separator: the token that stands before a text begins; with an end token that one
        embedding_dim: width of the token embedding
        hidden_size: width of each GRU layer
        num_layers: GRU layers
        precision: how the weights are stored; each has its own graph
        unknown: what to do with a character outside the vocabulary
        replacement: the token that stands for unknown characters under the policy replace
        sampling: options that apply where a call gives none

    Raises:
        OptionError: see `Record`; also a precision that this version does not know.
    """  # noqa: E501 - a description is one line

    unit: Unit = "char"
    tokens: Annotated[tuple[Piece, ...], Within(1, MAX_TOKENS, unique=True)]
    merges: Annotated[tuple[TokenId, ...], Within(0, 2 * MAX_TOKENS)] = ()
    end: bool = False
    separator: Piece
    embedding_dim: Width
    hidden_size: Width
    num_layers: Annotated[int, Within(1, MAX_LAYERS)]
    precision: Line = "fp32"
    unknown: UnknownPolicy = "error"
    replacement: Piece
    sampling: SamplingOptions = SamplingOptions()

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        separator: str,
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
        precision: str = "fp32",
    ) -> "Config":
        """The configuration of a model with this vocabulary.

        Raises:
            OptionError: see `Config`.
        """
        instance("vocabulary", vocabulary, Vocabulary)
        return cls(
            unit=vocabulary.unit,
            tokens=vocabulary.texts,
            merges=vocabulary.merges,
            end=vocabulary.end,
            unknown=vocabulary.unknown,
            replacement=vocabulary.replacement,
            embedding_dim=embedding_dim,
            hidden_size=hidden_size,
            num_layers=num_layers,
            separator=separator,
            sampling=sampling,
            precision=precision,
        )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens and their texts, and the policy for unknown characters."""
        own = self.tokens[:-1] if self.end else self.tokens
        single = self._single(own)
        characters, policy = "".join(own[:single]), (self.unknown, self.replacement, self.end)
        return Vocabulary(characters, *policy, self.unit, own[single:], self.merges)

    def _single(self, tokens: tuple[str, ...]) -> int:
        """How many of the tokens are single characters, of which the first ones are."""
        if self.unit in ("char", "byte"):
            return len(tokens)
        return next((place for place, text in enumerate(tokens) if len(text) != 1), len(tokens))

    @cached_property
    def separator_token(self) -> int:
        """The token of `separator`, which is read before a text."""
        return self.tokens.index(self.separator)

    @property
    def sizes(self) -> Sizes:
        """What the graph's shapes follow from."""
        return Sizes(len(self.tokens), self.embedding_dim, self.hidden_size, self.num_layers)

    def contradiction(self) -> str:
        """See `Record`."""
        if self.precision not in VARIANTS:
            known = ", ".join(VARIANTS)
            return f"precision is {self.precision[:60]!a}, none of {known}; {_NEWER}"
        characters = self.tokens[:-1] if self.end else self.tokens
        if self.end and (self.tokens[-1] or self.separator or not characters):
            return "end is true, so the last of two or more tokens, and the separator, are empty"
        single = self._single(characters)
        for index, token in enumerate(characters):
            if index < single and len(token) != 1:
                return (
                    f"tokens[{index}] has {len(token)} characters; with the unit {self.unit} it "
                    "has 1"
                )
            if index >= single and len(token) < 2:
                return f"tokens[{index}] has {len(token)} characters and comes after a longer one"
        for name in ("separator", "replacement"):
            own = characters[:single] if name == "replacement" or not self.end else self.tokens
            if getattr(self, name) not in own:
                return f"the {name} {getattr(self, name)!r} is not one character of the vocabulary"
        self.vocabulary.check_writable(self.sampling.stops)
        if self.sampling.controlled:
            return "sampling confines the text, which a call does and no model; leave that out"
        return ""


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


class TextComparison(Record):
    """Text that the graph and what it was exported from have both written.

    Attributes:
        characters: tokens written
        temperature: of the draws
        seed: of the draws
        equal: whether all tokens were the same
        near_ties: tokens that differed where both were within the tolerance
    """

    characters: Count
    temperature: Amount
    seed: Count
    equal: bool
    near_ties: Count

    def contradiction(self) -> str:
        """See `Record`."""
        if self.equal != (self.near_ties == 0):
            return f"equal is {self.equal} with {self.near_ties} near ties; export it again"
        if self.near_ties > self.characters:
            return f"{self.near_ties} near ties in {self.characters} characters; export it again"
        return ""


class Gate(Record):
    """What a smaller precision costs, measured on a text.

    Attributes:
        fp32_sha256: seal of the fp32 file that it was made of
        text: name of the text
        held_out: whether none of it was trained on
        characters: that were predicted
        protocol: how it was measured, in words
        fp32_nats_per_char: loss of the fp32 file
        nats_per_char: loss of this one
        loss_increase: the difference
        max_loss_increase: the most that was allowed
        greedy_agreement: share of the characters where both hold the same one likeliest
    """

    fp32_sha256: Sha256
    text: Line
    held_out: bool
    characters: Size
    protocol: Line
    fp32_nats_per_char: Amount
    nats_per_char: Amount
    loss_increase: Real
    max_loss_increase: Amount
    greedy_agreement: Share

    def contradiction(self) -> str:
        """See `Record`."""
        increase = self.nats_per_char - self.fp32_nats_per_char
        if not math.isclose(self.loss_increase, increase, rel_tol=1e-6, abs_tol=1e-6):
            return f"loss_increase is {self.loss_increase:g}, but the losses say {increase:g}"
        if self.loss_increase > self.max_loss_increase:
            return f"loss_increase is {self.loss_increase:g}, above {self.max_loss_increase:g}"
        return ""


class TestVector(Record):
    """What the graph computed from a zero state where it was exported.

    Attributes:
        tokens: fed in one call
        stride: logits holds those of token 0, stride, 2 stride and so on
        logits: after the last of tokens, float32 in shortest decimal form
        greedy: the tokens that follow at temperature 0
    """

    __test__ = False  # pytest takes classes of such names for tests

    tokens: Annotated[tuple[TokenId, ...], Within(1, 4096)]
    stride: Annotated[int, Within(1, MAX_TOKENS)]
    logits: Annotated[tuple[Real, ...], Within(1, 1024)]
    greedy: Annotated[tuple[TokenId, ...], Within(0, 4096)]

    def misfit(self, vocab_size: int) -> str:
        """Why it cannot be of a model with so many tokens; empty where it can."""
        if max(*self.tokens, *self.greedy, 0) >= vocab_size:
            return f"a token is not below {vocab_size}, the size of the vocabulary"
        expected = -(-vocab_size // self.stride)
        if len(self.logits) != expected:
            return f"{len(self.logits)} logits; the vocabulary and the stride ask for {expected}"
        return ""


class Certificate(Record):
    """What the exporter compared before it wrote the file. Differences are absolute.

    Attributes:
        against: what the graph was compared with, in words
        steps: single steps compared, the hidden state carried within a text
        batches: batch sizes compared
        largest_logits_difference: over all single steps
        largest_hidden_difference: after the last step
        largest_prefill_difference: of the logits when all steps of a text are fed in one call
        greedy: text at temperature 0; null for int8
        seeded: text at temperature 1; null for int8
        gate: what the precision costs; null for fp32
        vectors: test vectors, each from a zero state
        versions: version of each library, by its name
    """

    against: Line
    steps: Size
    batches: Annotated[tuple[Size, ...], Within(0, 64)]
    largest_logits_difference: Amount
    largest_hidden_difference: Amount
    largest_prefill_difference: Amount
    greedy: TextComparison | None = None
    seeded: TextComparison | None = None
    gate: Gate | None = None
    vectors: Annotated[tuple[TestVector, ...], Within(0, 16)] = ()
    versions: Versions

    def refuse_misfit(self, precision: str, vocab_size: int) -> None:
        """Hold it against what the format allows the precision, and against the vocabulary.

        Raises:
            OptionError: a difference above the format's tolerance, or a test vector of a model
                with other tokens.
        """
        tolerance = VARIANTS[precision].tolerance
        for what, limit in (
            ("logits", tolerance.logits),
            ("hidden", tolerance.hidden),
            ("prefill", tolerance.logits),
        ):
            name = f"largest_{what}_difference"
            if getattr(self, name) > limit:
                raise OptionError(
                    f"{name} is {getattr(self, name):g}; the format allows {limit:g}; "
                    "export it again"
                )
        for index, vector in enumerate(self.vectors):
            if problem := vector.misfit(vocab_size):
                raise OptionError(f"vector {index}: {problem}; export it again")

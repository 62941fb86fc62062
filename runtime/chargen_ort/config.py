"""What a model is: the first of the three records that its file has of itself.

A record's annotations are the format's limits; the schemas beside this package are made of them
by ``python -m tests.tools.schemas``, with the sentences under Attributes as descriptions.
"""

from functools import cached_property
from typing import Annotated

from chargen_ort.checks import instance
from chargen_ort.fields import MAX_TOKENS, Line, TokenId
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Sizes
from chargen_ort.options import SamplingOptions
from chargen_ort.strict import Record, Within
from chargen_ort.vocabulary import Unit, UnknownPolicy, Vocabulary

MAX_WIDTH, MAX_LAYERS = 1 << 16, 64
_NEWER = "that needs a newer chargen-ort: pip install --upgrade chargen-ort"

Piece = Annotated[str, Within(0, 256)]
Width = Annotated[int, Within(1, MAX_WIDTH)]


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

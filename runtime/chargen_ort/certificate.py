"""What an exporter compared before it wrote a file: the third of the records of a model.

See `config` for what annotations and sentences of a record are for.
"""

import math
from typing import Annotated

from chargen_ort.errors import OptionError
from chargen_ort.fields import (
    MAX_TOKENS,
    Amount,
    Count,
    Line,
    Real,
    Sha256,
    Share,
    Size,
    TokenId,
    Versions,
)
from chargen_ort.graphs import VARIANTS
from chargen_ort.strict import Record, Within


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

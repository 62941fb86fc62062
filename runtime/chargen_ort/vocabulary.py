"""Tokens and their texts: the only place where text becomes numbers and back."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import instance, iterate_texts, shown_value
from chargen_ort.errors import OptionError, UnknownCharacterError
from chargen_ort.pieces import (
    MAX_RUN,
    PieceEncoder,
    TextDecoder,
    merge_table,
    pieces_problem,
    split_runs,
)

Unit = Literal["char", "byte", "word", "bpe"]
UNITS: tuple[Unit, ...] = get_args(Unit)
BYTES = "".join(map(chr, range(256)))  # how the tokens of the unit byte are written down
UnknownPolicy = Literal["error", "skip", "replace"]
UNKNOWN_POLICIES: tuple[UnknownPolicy, ...] = get_args(UnknownPolicy)

_CODE_POINTS = 0x110000
_CHUNK = 1 << 20  # characters handled at a time, so that huge corpora need little extra memory


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model and their texts.

    Token ``i`` is ``characters[i]``; after the characters come the pieces, and then the end token.

    Args:
        characters: distinct characters (code points), at least one. Of the unit byte they stand
            for the bytes of their numbers, and are all 256.
        unknown: what `encode` does with a character outside: refuse it with an error, skip it,
            or encode `replacement` instead.
        replacement: a character of the vocabulary, used when the policy is ``replace``.
        end: whether there is an end token, the last one, which ends a text. It stands for no
            character: no text is encoded to it, and decoding leaves it out.
        unit: what a token is: ``char``, one character; ``byte``, one byte of UTF-8; ``word``, a
            frequent word or a character; ``bpe``, a character or what merges make of several.
        pieces: the tokens of several characters, of word and bpe.
        merges: of bpe, in their order: pairs of tokens that are joined, one after the other.

    Raises:
        OptionError: duplicate or no characters, a replacement outside the vocabulary, or pieces
            and merges that contradict each other.
    """

    characters: str
    unknown: UnknownPolicy = "error"
    replacement: str = ""
    end: bool = False
    unit: Unit = "char"
    pieces: tuple[str, ...] = ()
    merges: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        instance("characters", self.characters, str)
        instance("replacement", self.replacement, str)
        instance("end", self.end, bool)
        if not self.characters:
            raise OptionError("a vocabulary needs at least one character, got none")
        if len(set(self.characters)) != len(self.characters):
            raise OptionError("a vocabulary lists each character once, got a duplicate")
        if check_policy(self.unknown) is None:
            raise OptionError(f"unknown is None; choose one of {UNKNOWN_POLICIES}")
        if not self.replacement:
            object.__setattr__(self, "replacement", _default_replacement(self.characters))
        if len(self.replacement) != 1 or self.replacement not in self.characters:
            raise OptionError(
                f"the replacement {self.replacement!r} is not one character of the vocabulary"
            )
        if problem := self._unit_problem():
            raise OptionError(problem)

    def _unit_problem(self) -> str:
        if self.unit not in UNITS:
            return f"unit is {shown_value(self.unit)}; choose one of {UNITS}"
        if self.unit == "byte" and self.characters != BYTES:
            return "with the unit byte, the tokens are the 256 bytes, written U+0000 to U+00FF"
        if self.unit in ("word", "bpe"):
            return pieces_problem(self.characters, self.pieces, self.merges, self.unit)
        return f"with the unit {self.unit} there are no pieces" * bool(self.pieces or self.merges)

    @classmethod
    def from_texts(cls, texts: Iterable[str], unknown: UnknownPolicy = "error") -> "Vocabulary":
        """The distinct characters of `texts`, in code point order.

        Raises:
            OptionError: not texts, or none of them has a character.
        """
        counts = np.zeros(_CODE_POINTS, dtype=bool)
        for text in iterate_texts("texts", texts):
            for begin in range(0, len(text), _CHUNK):
                counts[_code_points(text[begin : begin + _CHUNK])] = True
        return cls("".join(map(chr, np.flatnonzero(counts).tolist())), unknown)

    def __len__(self) -> int:
        return len(self.characters) + len(self.pieces) + self.end

    @property
    def end_token(self) -> int | None:
        """The token that ends a text; None where texts have no end."""
        return len(self) - 1 if self.end else None

    @property
    def has_pieces(self) -> bool:
        """Whether a token may be several characters, so that the last one of a prompt may grow."""
        return self.unit in ("word", "bpe")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """What each token stands for; the end token's text is empty."""
        return (*self.characters, *self.pieces, *([""] if self.end else []))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many characters each token adds to a text, ``[vocab_size]``; the end token none.

        Of bytes, those do that begin a character.
        """
        if self.unit == "byte":
            return np.array([(each & 0xC0) != 0x80 for each in range(256)] + [0] * self.end)
        return np.array([len(text) for text in self.texts])

    @cached_property
    def _token_of(self) -> NDArray[np.int32]:
        """Token id by code point, -1 where there is none."""
        table = np.full(max(map(ord, self.characters)) + 1, -1, dtype=np.int32)
        table[_code_points(self.characters)] = np.arange(len(self.characters), dtype=np.int32)
        return table

    @cached_property
    def _points(self) -> NDArray[np.uint32]:
        """Code point by token."""
        return _code_points(self.characters)

    @cached_property
    def _encoder(self) -> PieceEncoder:
        token_of = {text: token for token, text in enumerate(self.texts) if text}
        if self.unit == "word":
            return PieceEncoder(token_of, None)
        return PieceEncoder(token_of, merge_table(self.merges, self.texts, token_of))

    @cached_property
    def _in_order(self) -> list[tuple[str, int]]:
        """The texts of all tokens but the end token, in order, each with its token."""
        return sorted((text, token) for token, text in enumerate(self.texts) if text)

    def encode(self, text: str, unknown: UnknownPolicy | None = None) -> NDArray[np.int64]:
        """Tokens of `text`, int64 ``[time]``; `unknown` overrides the vocabulary's own policy.

        Raises:
            UnknownCharacterError: a character is not in the vocabulary and the policy is ``error``.
            OptionError: `text` is not a string, or the policy has another name.
        """
        pieces = list(self.encode_pieces(text, unknown))
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def encode_pieces(
        self, text: str, unknown: UnknownPolicy | None = None, size: int = _CHUNK
    ) -> Iterator[NDArray[np.int64]]:
        """As `encode`, about `size` characters at a time, for texts too long to hold as tokens."""
        instance("a text", text, str)
        policy = check_policy(unknown) or self.unknown
        if self.unit != "char":
            yield from map(self._encode_known, self.cut(self.known_part(text, policy), size))
            return
        for begin in range(0, len(text), size):
            yield self._encode_chunk(text[begin : begin + size], begin, policy)

    def _encode_chunk(self, text: str, offset: int, policy: UnknownPolicy) -> NDArray[np.int64]:
        tokens = self.look_up(text)
        missing = tokens < 0
        if missing.any():
            if policy == "error":
                first = int(missing.argmax())
                raise UnknownCharacterError(text[first], offset + first, len(self.characters))
            if policy == "skip":
                tokens = tokens[~missing]
            else:
                tokens[missing] = self.characters.index(self.replacement)
        return tokens.astype(np.int64)

    def encode_open(
        self, text: str, unknown: UnknownPolicy | None = None, whole: bool = False
    ) -> tuple[NDArray[np.int64], str]:
        """Tokens of `text` without its last run, int64 ``[time]``, and that run.

        A text that goes on may go on inside its last word, whose pieces are then others: so what
        follows is to begin with that run. Of the units char and byte it is empty, and with `whole`,
        as where the text is confined.

        Raises:
            UnknownCharacterError, OptionError: see `encode`.
        """
        if whole or not self.has_pieces:
            return self.encode(text, unknown), ""
        instance("a text", text, str)
        runs = split_runs(self.known_part(text, check_policy(unknown) or self.unknown))
        tokens = self._encoder.encode(runs[:-1])
        return np.array(tokens, dtype=np.int64), runs[-1] if runs else ""

    def known_part(self, text: str, policy: UnknownPolicy) -> str:
        """`text` with what `policy` makes of the characters that are unknown.

        Raises:
            UnknownCharacterError: there is one, and the policy is ``error``.
        """
        found = self._unknown_in(text)
        if found is None:
            return text
        if policy == "error":
            raise UnknownCharacterError(found[0], found.start(), len(self.characters))
        return self._unknown.sub("" if policy == "skip" else lambda _: self.replacement, text)

    @cached_property
    def _unknown(self) -> re.Pattern[str]:
        """Finds a character that is in no text of this vocabulary."""
        if self.unit == "byte":
            return re.compile("[\ud800-\udfff]")
        return re.compile(f"[^{re.escape(self.characters)}]")

    def _unknown_in(self, text: str) -> re.Match[str] | None:
        if self.unit == "byte" and text.isascii():
            return None
        return self._unknown.search(text)

    def _encode_known(self, text: str) -> NDArray[np.int64]:
        """Tokens of a text whose characters are all known; of any unit but char."""
        if self.unit == "byte":
            return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        return np.array(self._encoder.encode(split_runs(text)), dtype=np.int64)

    def cut(self, text: str, size: int) -> Iterator[str]:
        """`text` in parts of about `size` characters that have the tokens which it has whole."""
        begin = 0
        while begin < len(text):
            end = begin + size
            if self.has_pieces:
                end = begin + max(size, 2 * MAX_RUN)
                if end < len(text):  # before the run that may go on
                    end -= len(split_runs(text[begin:end])[-1])
            yield text[begin:end]
            begin = end

    def check_writable(self, stops: Iterable[str]) -> None:
        """Refuse stop strings that could never come, as the model cannot write them.

        Raises:
            OptionError: one has a character that is not in the vocabulary.
        """
        text = "".join(stops)
        try:
            if text:
                self.encode(text, "error")
        except UnknownCharacterError as error:
            raise OptionError(
                f"stop has the character {error.character!r} (U+{ord(error.character):04X}), which "
                "the model does not know, so the text would never stop there; leave it out"
            ) from None

    def look_up(self, text: str) -> NDArray[np.int32]:
        """Tokens of `text`, int32 ``[time]``, where a character that the vocabulary lacks is -1."""
        if self.unit != "char":
            return self._look_up_pieces(text)
        table = self._token_of
        points = _code_points(text)
        return np.where(points < len(table), table[np.minimum(points, len(table) - 1)], -1)

    def _look_up_pieces(self, text: str) -> NDArray[np.int32]:
        parts, begin = [np.zeros(0, dtype=np.int32)], 0
        if self._unknown_in(text) is not None:
            for found in self._unknown.finditer(text):
                known = self._encode_known(text[begin : found.start()])
                parts += [known.astype(np.int32), np.array([-1], dtype=np.int32)]
                begin = found.end()
        parts.append(self._encode_known(text[begin:]).astype(np.int32))
        return np.concatenate(parts)

    def beginning_with(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens that go on as `text` does: those that reach beyond its end, and the others."""
        order, token_of = self._in_order, self._encoder.token_of
        beyond = []
        for found, token in order[bisect_left(order, (text, len(order))) :]:
            if not found.startswith(text):
                break
            beyond.append(token)
        within = (token_of.get(text[:end]) for end in range(1, len(text) + 1))
        return beyond, [token for token in within if token is not None]

    def decoder(self) -> TextDecoder:
        """A decoder for tokens that come one after the other."""
        return TextDecoder(self.texts, self.unit == "byte")

    def decode(self, tokens: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of `tokens`; the end token is no part of it.

        Of bytes, see `TextDecoder`: what is not UTF-8 becomes U+FFFD, and a character that the last
        of them leave unfinished is left out.

        Raises:
            OptionError: a token is outside 0 … len(self) - 1.
        """
        try:
            ids = np.asarray(tokens)
        except ValueError:  # lists of unequal length
            raise OptionError("tokens must be one list of integers") from None
        if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= len(self)):
            raise OptionError(f"tokens must be integers from 0 to {len(self) - 1}")
        ids = ids.ravel() if ids.size else np.zeros(0, dtype=np.int64)
        ids = ids[ids < len(self) - self.end]
        if self.unit != "char":
            return self.decoder().feed(ids.tolist())
        points: NDArray[np.uint32] = self._points[ids]
        return points.tobytes().decode("utf-32-le", "surrogatepass")


def check_policy(unknown: object) -> UnknownPolicy | None:
    """`unknown` as a policy, None as it is.

    Raises:
        OptionError: another name, or no name.
    """
    if unknown is None:
        return None
    for policy in UNKNOWN_POLICIES:
        if isinstance(unknown, str) and unknown == policy:
            return policy
    raise OptionError(f"unknown is {shown_value(unknown)}; choose one of {UNKNOWN_POLICIES}")


def _code_points(text: str) -> NDArray[np.uint32]:
    # "surrogatepass": a lone surrogate from a caller's string is an unknown character, not a crash
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _default_replacement(characters: str) -> str:
    return next((c for c in "\N{REPLACEMENT CHARACTER}? " if c in characters), characters[0])

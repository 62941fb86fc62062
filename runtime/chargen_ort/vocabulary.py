"""Characters and their token ids: where text becomes numbers and back."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import instance, iterate_texts, shown_value
from chargen_ort.errors import OptionError, UnknownCharacterError

UnknownPolicy = Literal["error", "skip", "replace"]
UNKNOWN_POLICIES: tuple[UnknownPolicy, ...] = get_args(UnknownPolicy)

_CODE_POINTS = 0x110000
_CHUNK = 1 << 20  # characters handled at a time, so that huge corpora need little extra memory


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a model, in token order: token ``i`` is ``characters[i]``.

    Args:
        characters: distinct characters (code points), at least one.
        unknown: what `encode` does with a character outside: refuse it with an error, skip it,
            or encode `replacement` instead.
        replacement: a character of the vocabulary, used when the policy is ``replace``.
        end: whether there is an end token, the last one, which ends a text. It stands for no
            character: no text is encoded to it, and decoding leaves it out.

    Raises:
        OptionError: duplicate or no characters, or a replacement outside the vocabulary.
    """

    characters: str
    unknown: UnknownPolicy = "error"
    replacement: str = ""
    end: bool = False

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
        return len(self.characters) + self.end

    @property
    def end_token(self) -> int | None:
        """The token that ends a text; None where texts have no end."""
        return len(self.characters) if self.end else None

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
        """As `encode`, `size` characters at a time, for texts too long to hold as tokens."""
        instance("a text", text, str)
        policy = check_policy(unknown) or self.unknown
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
        """Token of each character of `text`, int32 ``[time]``; -1 where the vocabulary lacks it."""
        table = self._token_of
        points = _code_points(text)
        return np.where(points < len(table), table[np.minimum(points, len(table) - 1)], -1)

    def decode(self, tokens: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of `tokens`; the end token is no part of it.

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
        points: NDArray[np.uint32] = self._points[ids[ids < len(self.characters)]]
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

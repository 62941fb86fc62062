"""What tokens write, and which of them a pattern cannot tell apart."""

import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen_ort.config import Config
from chargen_ort.options import SamplingOptions

# what Python's parser would read as something else than Rust's, which decides
_NOT_PYTHON = re.compile(r"\{,|\[\^?[\]\[]|\[:|&&|--|~~|\(\?[^:P]|\\(?![dDwWsSnrtf])[a-zA-Z]")


def token_bytes(config: Config) -> list[bytes]:
    """What each token writes, in UTF-8; nothing for the end token."""
    return [text.encode("utf-8", "surrogatepass") for text in config.tokens]


def token_lengths(config: Config) -> NDArray[np.int64]:
    """How many characters each token writes, ``[vocab_size]``."""
    return np.array([len(text) for text in config.tokens], dtype=np.int64)


def token_classes(config: Config, options: SamplingOptions) -> NDArray[np.int64]:
    """Numbers for tokens, the same for those that lead to the same wherever they stand.

    Characters are told apart where a literal, range or class of the pattern has one and not the
    other; those of banned and stop strings are on their own. A pattern that Python's parser might
    read in another way than llguidance's has no two characters alike.
    """
    sets = _character_sets(options.pattern) if options.pattern is not None else []
    own = set("".join([*options.ban, *options.stops]))
    characters = config.vocabulary.characters
    kinds: dict[str, Any] = {}
    for character in characters:
        alone = sets is None or character in own or ord(character) > 127
        point = ord(character)
        kinds[character] = point if alone else tuple(point in each for each in sets) if sets else ()
    numbers: dict[Any, int] = {}
    classes = []
    for token, text in enumerate(config.tokens):
        known = bool(text) and all(character in kinds for character in text)
        kind = tuple(kinds[character] for character in text) if known else ("token", token)
        classes.append(numbers.setdefault(kind, len(numbers)))
    return np.array(classes, dtype=np.int64)


def parse_pattern(pattern: str) -> Any | None:
    """A pattern as Python's `re` parses it; None where Rust's parser may read something else."""
    if _NOT_PYTHON.search(pattern) or not pattern.isascii():
        return None
    from re import _parser  # type: ignore[attr-defined]

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, Warning):
        return None


def _character_sets(pattern: str) -> list[set[int]] | None:
    """The sets of ASCII characters that a pattern tells apart; None if that is not known."""
    tree = parse_pattern(pattern)
    if tree is None:
        return None
    found: list[set[int]] = []
    _collect_sets(tree, found)
    return found


CATEGORIES = {
    "DIGIT": set(range(48, 58)),
    "SPACE": {*range(9, 14), 32},
    "WORD": {*range(48, 58), *range(65, 91), 95, *range(97, 123)},
}


def _collect_sets(tree: Any, found: list[set[int]]) -> None:
    """Add the sets of what `re` has parsed: nested sequences, and pairs of a name and its parts."""
    name = str(tree[0]) if isinstance(tree, tuple) and tree else ""
    if name in ("LITERAL", "NOT_LITERAL"):
        found.append({tree[1]})
    elif name == "RANGE":
        found.append(set(range(tree[1][0], min(tree[1][1], 127) + 1)))
    elif name == "CATEGORY":
        found.append(CATEGORIES[str(tree[1]).rsplit("_", 1)[1]])
    elif name == "ANY":
        found.append({10})
    elif hasattr(tree, "__getitem__") and not isinstance(tree, str):
        for part in tree:
            _collect_sets(part, found)

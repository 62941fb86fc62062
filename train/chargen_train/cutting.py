"""Documents in a text of tokens: whether each line is one, and where each begins and ends."""

import numpy as np

from chargen_train.split import Ranges, Tokens, distinct, hash_ranges

_CHUNK = 1 << 20
_LEAST, _LONGEST, _DIFFERENT = 50, 512, 0.9  # lines, their characters, the share of different ones


def judge_lines(tokens: Tokens, characters: str) -> tuple[bool, str]:
    """Whether the lines of a text look like documents, and why, as the end of a sentence.

    They do where there are at least 50, none blank, at least 90% of them different, and none longer
    than 512 characters: a list of names or addresses is so, and prose, verse and programs are not.

    Args:
        tokens: of the text, ``[characters]``.
        characters: of the tokens.
    """
    line_end = characters.find("\n")
    ends = np.append(_places(tokens, line_end), len(tokens))
    if len(ends) > 1 and ends[-1] == ends[-2] + 1:  # nothing follows the last line end
        ends = ends[:-1]
    lines = np.stack([np.append(0, ends[:-1] + 1), ends], axis=1)  # [lines, 2]
    sizes = lines[:, 1] - lines[:, 0]
    if len(lines) < _LEAST:
        return False, f"it has {len(lines):,} lines, and a list has at least {_LEAST}"
    if blank := int((sizes == 0).sum()):
        return False, f"{blank:,} of its {len(lines):,} lines are blank"
    if sizes.max() > _LONGEST:
        return False, f"one of its lines has {sizes.max():,} characters, more than {_LONGEST}"
    share = len(distinct(hash_ranges(tokens, lines, characters))) / len(lines)
    if share < _DIFFERENT:
        return False, f"only {share:.0%} of its lines are different"
    return True, (
        f"there are {len(lines):,}, none blank, {share:.0%} of them different, none longer than "
        f"{sizes.max():,} characters"
    )


def end_documents(tokens: Tokens, separator: int, end: int) -> Tokens:
    """A text with the end token before its first document and after each; no document is empty.

    Args:
        tokens: with separators between documents, ``[characters]``; they are changed.
        separator: the token that stands there; those above it take a number less.
        end: the end token, above all others.
    """
    for begin in range(0, len(tokens), _CHUNK):
        part = tokens[begin : begin + _CHUNK]
        is_separator = part == separator
        part[part > separator] -= 1
        part[is_separator] = end
    is_end = tokens == end
    kept = ~is_end
    kept[1:] |= ~is_end[:-1]  # the first separator after a document
    kept[:1] = ~is_end[:1]
    tokens = tokens[kept]
    single = np.array([end], dtype=tokens.dtype)
    is_open = len(tokens) > 0 and tokens[-1] != end
    return np.concatenate([single, tokens, single] if is_open else [single, tokens])


def document_ranges(tokens: Tokens, end: int) -> Ranges:
    """Where each document begins and where it ends, its end token included, ``[documents, 2]``.

    Args:
        tokens: as `end_documents` gives them.
        end: the end token.
    """
    ends = _places(tokens, end) + 1
    return np.stack([ends[:-1], ends[1:]], axis=1)


def _places(tokens: Tokens, token: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Where `token` stands, ``[places]``."""
    parts = [
        begin + np.flatnonzero(tokens[begin : begin + _CHUNK] == token)
        for begin in range(0, len(tokens), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

"""What the tokens of a corpus are of, and whether those that lie beside a run are still of it."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from chargen_ort.text import as_corpus_error
from chargen_ort.vocabulary import Vocabulary
from chargen_train.collecting import SourceFile
from chargen_train.ids import Tokens, load_tokens
from chargen_train.inputs import STDIN, Input
from chargen_train.reading import Reading


@dataclass(frozen=True)
class Facts:
    """What the tokens of a corpus are of: attributes that it has, and what it is made from.

    Attributes:
        title: what messages call it.
        counts: how often each token stands in it, ``[vocab_size]``.
        cut: tokens of the text to train on; behind them stands that which measures.
        known: characters that were to be in the vocabulary besides.
    """

    name: str
    title: str
    characters: int
    sources: tuple[SourceFile, ...]
    measure: tuple[SourceFile, ...]
    vocabulary: Vocabulary
    counts: list[int]
    cut: int
    reading: Reading
    decision: str
    notes: tuple[str, ...]
    known: Vocabulary | None


def find_kept(
    path: Path,
    inputs: Sequence[Input],
    measure: Sequence[Input],
    reading: Reading,
    known: Vocabulary | None,
) -> tuple[Facts, Tokens] | None:
    """The tokens that a run that stopped has left, if they are of the same files.

    Those are only hashed, not read as texts. None where there are no such tokens, their file is
    damaged, or they are of something else.

    Args:
        path: of the file of tokens.
        inputs, measure: what would be read, to train on and to measure with.
        reading: how; what it says of how the tokens are split may differ, and is kept.
        known: characters that the vocabulary was to have besides.
    """
    if any(each.path == STDIN or not each.size for each in (*inputs, *measure)):
        return None  # what can be read only once
    if (loaded := load_tokens(path)) is None:
        return None
    tokens, values = loaded
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        facts = _facts_of(values)
        hashes = [each.sha256 for each in (*facts.sources, *facts.measure)]
        same = _what_is_read(reading) == _what_is_read(facts.reading)
        # a vocabulary that the text was read with adds nothing to itself
        same = same and known in (facts.known, replace(facts.vocabulary, end=False))
        if same and hashes == _hashes((*inputs, *measure)):
            return replace(facts, reading=reading), tokens
    return None


def _what_is_read(reading: Reading) -> Reading:
    """A reading without what it says of how the tokens are split."""
    holdout = reading.holdout if reading.holdout_kind == "file" else None
    return replace(reading, holdout=holdout, skip_unreadable=False, unit="char", vocab_size=None)


def _facts_of(values: Mapping[str, Any]) -> Facts:
    """The `Facts` that became these values as JSON."""
    made = {each.name: values[each.name] for each in fields(Facts)}
    for name in ("sources", "measure"):
        made[name] = tuple(SourceFile(**each) for each in made[name])
    for name in ("vocabulary", "known"):
        own = made[name]  # of characters, whose tuples of pieces JSON has as empty lists
        made[name] = None if own is None else Vocabulary(**own | {"pieces": (), "merges": ()})
    made |= {"reading": Reading(**made["reading"]), "notes": tuple(made["notes"])}
    return Facts(**made)


def _hashes(inputs: Sequence[Input]) -> list[str]:
    found = []
    for each in inputs:
        with as_corpus_error(str(each)), open(each.path, "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found
